"""What a task is: the data, the model and the recipe of a training, and hooks for influence methods. No torch at import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Batch, Component, Split
from tasks.hooks import refuse_misspelt

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn


@dataclass(frozen=True)
class OpenRequest:
    """What `TaskConfig.open` is given.

    `base_dir`: where relative paths of the config start. `cache_dir`: where tokens are kept (None: nowhere). `where` (the file)
    and `key` (the dotted key of the task's block) are for error messages. `plugins`: the modules that the config lists.
    """

    base_dir: Path
    cache_dir: Path | None = None
    where: str = "config"
    key: str = "task"
    plugins: Sequence[str] = ()

    def at(self, option: str) -> OpenRequest:
        """The same request for the block of an option of this block."""
        return replace(self, key=f"{self.key}.{option}")


class Task(ABC):
    """A prepared task: data read, model and recipe chosen. It can be pickled once `prepare` has run, and is shipped to workers once.

    A subclass must define the abstract methods. The others are hooks with defaults, and a misspelt one is refused when the class
    is made. Losses are in nats where they are -log p, and lower is better.

    `splits`: name -> data, one of them called train. `measured`: split -> rows whose outputs every retrain records, int64.
    `encoding`: how texts become tokens (tasks.data.tokens), None for tasks without text. `properties`: what is measured of word
    vectors, in the order of the split `properties`; None for a task that can have none. `refused`: label -> why a property cannot
    be measured. `splits_with_losses` and `splits_with_query_losses`: the splits whose rows `losses` and `query_losses` take; None
    means all. `independent_rows`: names of parameters whose rows never meet in one second derivative of the train objective.
    """

    model: Any  # a tasks.model.Model
    recipe: Any  # a tasks.recipe.Recipe, whose `train` takes a task
    splits: Mapping[str, Split]
    measured: Mapping[str, np.ndarray]
    encoding: Any = None
    properties: tuple[Any, ...] | None = None
    refused: Mapping[str, str] = MappingProxyType({})
    splits_with_losses: frozenset[str] | None = None
    splits_with_query_losses: frozenset[str] | None = None
    independent_rows: frozenset[str] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_misspelt(cls, Task)

    # --- identities: plain JSON values, made without torch ----------------------------------------------------------

    @abstractmethod
    def train_identity(self) -> dict[str, Any]:
        """The content of the train digest: ids, joined text, labels, class order, tokeniser, preprocessing."""

    @abstractmethod
    def model_identity(self) -> dict[str, Any]:
        """Digest of weights, config and tokeniser files, or options and version of a model that starts at random."""

    @abstractmethod
    def record_identity(self) -> dict[str, Any]:
        """What is recorded: measured splits (ids, content, class order) and the output schema."""

    # --- training and evaluation ------------------------------------------------------------------------------------

    def prepare(self) -> None:  # noqa: B027  (a hook: a task in memory has nothing to prepare)
        """Make what training needs: tokenise (from the cache where it was done before), load base weights. Idempotent."""

    @abstractmethod
    def network(self, seed: int) -> nn.Module:
        """A fresh network; what is random in it is drawn from generators keyed (seed, 'init', ...)."""

    @abstractmethod
    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Inputs and `labels` of `rows`, int64 [n].

        Rows where `blank` (bool [n]) is true carry neutral content and label 0: the text of a removed example can then change no
        bit, not even through the padding length.
        """

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Outputs [n, n_outputs], differentiable; class logits for classifiers. Methods that need gradients ask for them."""
        raise NotImplementedError

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Train loss of every example [n], differentiable. Influence functions need it twice differentiable."""
        raise NotImplementedError

    @abstractmethod
    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Outputs in evaluation mode, float32 [n, n_outputs]: what is recorded of `rows`."""

    def with_recipe(self, options: Any, request: OpenRequest) -> Task | None:
        """The same task trained by the recipe that `options` ask for; `request.key` is the recipe's dotted key.

        None (the default): the recipe need not fit the data, and the caller gives it to a copy. Raises InputError.
        """
        return None

    # --- queries ----------------------------------------------------------------------------------------------------

    def query_losses(self, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """The loss of each query [n] that is explained, under `labels` int64 [n], differentiable in the whole network.

        A task that does not override it is explained by -log p(label) of its logits.
        """
        raise NotImplementedError

    def query_labels(self, split: str, rows: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Labels int64 [n] of the queries, read from a model's recorded outputs (measured split -> array), as for clusters.

        Queries of a task that overrides it are judged by a trained model. Other tasks have their labels in the split.
        """
        raise NotImplementedError

    # --- second derivatives of the train objective, the mean of the losses + the penalty ----------------------------

    def penalty(self, network: nn.Module) -> Tensor | None:
        """What the train objective adds to the mean of the losses, [], twice differentiable; None: nothing."""
        return None

    def influence_parameters(self, split: str, rows: np.ndarray) -> Mapping[str, np.ndarray | None] | None:
        """The parameters on which a method takes its Hessian for the queries `rows`.

        Parameter name -> numbers of rows of its first axis, int64, or None for all of it. None: every trained parameter.
        """
        return None

    def rows_touching(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """The train rows, int64, whose loss depends on the rows `rows` of the parameter `name`; None: all of them."""
        return None

    def row_hessians(self, network: nn.Module, name: str, rows: np.ndarray) -> Tensor | None:
        """Second derivatives of the train objective in each of these rows of d numbers, all else fixed: [n_rows, d, d].

        A closed form for parameters in `independent_rows`; None: there is none.
        """
        return None

    def row_derivatives(
        self, network: nn.Module, name: str, rows: np.ndarray, vectors: Tensor, train_rows: np.ndarray
    ) -> Tensor | None:
        """<gradient of an example's loss in these rows, vector> along `vectors` [q, n_rows, d]: [q, n_train_rows].

        A closed form for parameters in `independent_rows`; None: there is none.
        """
        return None

    # --- what some methods and reports read -------------------------------------------------------------------------

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text: padding, start and end. Methods that tell tokens apart need them."""
        raise NotImplementedError

    def token_counts(self, split: str) -> csr_matrix:
        """Token counts of a split, special tokens included: CSR [n, vocabulary size]. TF-IDF needs them."""
        raise NotImplementedError

    def token_spans(self, split: str, row: int) -> list[tuple[int, int, int]]:
        """(start, end, token id) of every token of a row, in characters of its text; (0, 0, id) for special tokens."""
        raise NotImplementedError

    def token_text(self, token_id: int) -> str:
        """A token as the report shows it."""
        raise NotImplementedError

    def named_scores(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Scores that the task itself knows: ([n_queries, n_train], query ids, train ids); positive: the example helps.

        None: the task knows no scores. Raises ValueError or KeyError on a name that it does not know.
        """
        return None

    def neighbours(
        self, network: nn.Module | Mapping[str, np.ndarray], words: Sequence[str], n: int = 10
    ) -> dict[str, list[tuple[str, float]]]:
        """The `n` words whose vectors have the highest cosine with each of `words`: word -> (neighbour, cosine), falling.

        `network`: a network, or weights by name. Empty for a task without word vectors.
        """
        return {}


class TaskConfig(Component):
    """The config block of a task: `open` reads the data and returns the Task."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, TaskConfig, cls.model_fields)

    @abstractmethod
    def open(self, request: OpenRequest) -> Task:
        """Read the data, choose model and recipe; no torch. Raises InputError with `request.where` and the dotted key."""

    def measurable(self) -> Collection[str] | None:
        """The splits that could be measured, of a block that leaves `measure` open; the queries' split is then measured.

        None: the block decides what is measured.
        """
        return None
