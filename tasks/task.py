"""The base class of tasks: the data, model and recipe of a training, and hooks for influence methods. Imports no torch."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tasks.base import Batch, Component, Numerics, Split
from tasks.data.edits import Edit
from tasks.hooks import refuse_misspelt

MASKED = "(masked)"  # name of the split that `Task.with_masked` adds

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn


@dataclass(frozen=True)
class OpenRequest:
    """The arguments of `TaskConfig.open`.

    `base_dir`: where relative paths of the config start. `cache_dir`: where tokens are cached (None: nowhere). `where`
    (the file) and `key` (the dotted key of the task's block) are for error messages. `plugins`: the modules that the
    config lists.
    """

    base_dir: Path
    cache_dir: Path | None = None
    where: str = "config"
    key: str = "task"
    plugins: Sequence[str] = ()

    def at(self, option: str) -> OpenRequest:
        """Return the same request for a block nested in this one: `option` is its key, which is appended to `key`."""
        return replace(self, key=f"{self.key}.{option}")


class Task(ABC):
    """A prepared task: its data is read, its model and recipe are chosen.

    It can be pickled once `prepare` has run, and is sent to each worker once. A subclass must define the abstract
    methods. The other methods are hooks with defaults; a misspelt hook is refused when the class is defined. Losses of
    the form -log p are in nats, and lower is better.

    `splits`: name -> data, one of them called train. `measured`: split -> rows whose outputs every retrain records,
    int64. `encoding`: how texts become tokens (tasks.data.tokens), None for tasks without text. `properties`:
    descriptions of numbers that are computed from trained word vectors, such as the effect size of an association test
    (tasks.properties); the attribute is None if the task measures no properties. The split called `properties` has one
    row for each of them, in the same order. `refused`: label -> why a property cannot be measured. `splits_with_losses` and
    `splits_with_query_losses`: the splits whose rows `losses` and `query_losses` accept; None means all.
    `independent_rows`: names of matrix parameters whose Hessian of the train objective is block-diagonal by row: the
    second derivative with respect to entries of two different rows is zero. `replaced`: the words that `with_replaced` has
    replaced in the train split (tasks.data.edits.Edit). `length_group_cost` is set by `with_length_groups`.
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
    replaced: tuple[tuple[int, tuple[int, ...]], ...] = ()
    length_group_cost: int = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_misspelt(cls, Task)

    # --- identities: plain JSON values, made without torch ----------------------------------------------------------

    @abstractmethod
    def train_identity(self) -> dict[str, Any]:
        """Return what the train digest is computed from: ids, texts, labels, class order, tokeniser and preprocessing.

        The text of an example is made by joining the texts of its text columns; the two segments of a pair both enter.
        """

    @abstractmethod
    def model_identity(self) -> dict[str, Any]:
        """Return the digests of the pretrained model's files, or the options and version of a model with random initial weights.

        The files are those of the weights, the config and the tokeniser.
        """

    @abstractmethod
    def record_identity(self) -> dict[str, Any]:
        """Return what is recorded: measured splits (ids, content, class order) and the output schema."""

    # --- training and evaluation ------------------------------------------------------------------------------------

    def prepare(self) -> None:  # noqa: B027  (a hook: a task in memory has nothing to prepare)
        """Prepare what training needs: tokenise (or read the cache), load base weights. Calling it again changes nothing."""

    def prepare_for(self, numerics: Numerics) -> None:
        """Prepare what depends on the machine and on how it computes. Workers call it once, after `prepare`.

        Text tasks compute the outputs of the frozen layers here, unless `numerics.frozen_trunk` is `computed`.
        """
        if problem := self.frozen_trunk_problem() if numerics.frozen_trunk != "computed" else "":
            raise ValueError(f"frozen_trunk {numerics.frozen_trunk!r}: {problem}")

    def frozen_trunk_problem(self) -> str:
        """Return why the outputs of frozen layers cannot be computed once for all retrains, or "" if they can. Uses no torch."""
        return f"this task ({type(self).__name__}) has no encoder with frozen layers"

    def with_whole_network(self) -> Task:
        """Return the same task, in which every pass computes all layers, also frozen ones whose outputs are known.

        Code that takes gradients at the word embedding or at another frozen layer must use the returned task.
        """
        return self

    @abstractmethod
    def network(self, seed: int) -> nn.Module:
        """Return a fresh network; everything random in it is drawn from generators keyed (seed, 'init', ...)."""

    @abstractmethod
    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return the inputs and `labels`, int64 [n], of `rows`.

        Rows where `blank` (bool [n]) is true have neutral content and label 0, so that the text of a removed example
        can change no bit, not even through the padding length.
        """

    def with_replaced(self, edit: Edit) -> Task:
        """Return the same task in which the words that `edit` replaces are replaced in the train split, for one training.

        The result of `batch` must not depend on which words the replaced positions held before. An edit without replaced words returns the task
        itself. Tasks with text override this hook. Raises ValueError if nothing can be replaced.
        """
        if edit.replaced:
            raise ValueError(f"{type(self).__name__} has no words that an edit can replace")
        return self

    def row_lengths(self, split: str, rows: np.ndarray, blank: np.ndarray) -> np.ndarray | None:
        """Return the number of tokens of `rows` without padding: int64 [len(rows)]; None if all rows have the same length.

        Rows where `blank` (bool [len(rows)]) is true have the length of their neutral content. Length groups need this hook.
        """
        return None

    def with_length_groups(self, cost: int) -> Self:
        """Return the same task with batches cut into groups of rows of similar length (tasks.length_groups).

        `cost` is the fixed cost of one more forward and backward pass, in tokens; if it is 0, batches are not cut by length. If it is not
        0, `batch` pads its rows to the longest of them and no further, and `outputs` evaluates rows of similar length together.
        """
        if cost == self.length_group_cost:
            return self
        other = copy.copy(self)
        object.__setattr__(other, "length_group_cost", cost)  # a frozen dataclass refuses its own __setattr__
        return other

    def with_masked(self, split: str, rows: np.ndarray, positions: np.ndarray) -> Task:
        """Return the same task with one more split, MASKED, whose example i is row rows[i] of `split` with one token masked.

        The token at positions[i], counted from the first special token, keeps its place and its id; its attention mask is
        0. A row may occur several times; the ids of the new split are 0, 1, ... Diagnostics that mask tokens need this hook.
        """
        raise NotImplementedError

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return outputs [n, n_outputs], differentiable; class logits for classifiers. Methods that use gradients need this hook."""
        raise NotImplementedError

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the train loss of every example [n], differentiable. Influence functions need it twice differentiable."""
        raise NotImplementedError

    @abstractmethod
    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Return the outputs of `rows` in evaluation mode, float32 [n, n_outputs]. The ledger records these numbers."""

    def with_recipe(self, options: Any, request: OpenRequest) -> Task | None:
        """Return the same task trained by the recipe that `options` describe; `request.key` is the recipe's dotted key.

        None (the default) means that the recipe need not be adapted to the data; the caller then parses `options` itself
        and sets the recipe on a copy of the task. Raises InputError.
        """
        return None

    # --- queries ----------------------------------------------------------------------------------------------------

    def query_losses(self, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """Return the query loss [n] under `labels` int64 [n], differentiable in the whole network.

        A task overrides this hook to define its own query loss. For a task that does not override it,
        influence methods do not call it and compute the query loss themselves: -log p(label) from `logits`.
        """
        raise NotImplementedError

    def query_labels(self, split: str, rows: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the labels int64 [n] of the queries, read from a model's recorded outputs (measured split -> array).

        Clustering tasks override it; the labels of their queries then come from a trained model. Other tasks have
        labels in the split.
        """
        raise NotImplementedError

    # --- second derivatives of the train objective, the mean of the losses + the penalty ----------------------------

    def penalty(self, network: nn.Module) -> Tensor | None:
        """Return the term that the train objective adds to the mean of the losses, or None if it adds nothing.

        The term is a scalar tensor (shape []) that is twice differentiable.
        """
        return None

    def influence_parameters(self, split: str, rows: np.ndarray) -> Mapping[str, np.ndarray | None] | None:
        """Return the parameters to which a method restricts its Hessian when it explains the queries `rows` of `split`.

        The result maps the name of a parameter to the indices (int64) of the chosen rows along its first axis, or to
        None for the whole parameter. A result of None means every trained parameter.
        """
        return None

    def rows_touching(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Return the examples of the train split (int64 positions) whose loss depends on `rows` of the parameter `name`.

        None means all examples.
        """
        return None

    def row_hessians(self, network: nn.Module, name: str, rows: np.ndarray) -> Tensor | None:
        """Return one Hessian of the train objective per row in `rows` of the parameter `name`: [n_rows, d, d].

        Each Hessian is taken with respect to the d numbers of its row, with all other parameters fixed. It is computed by
        a closed form, for parameters in `independent_rows`. None means that the task has no closed form.
        """
        return None

    def row_derivatives(
        self, network: nn.Module, name: str, rows: np.ndarray, vectors: Tensor, train_rows: np.ndarray
    ) -> Tensor | None:
        """Return the inner products of per-example gradients with `vectors` [q, n_rows, d]: [q, n_train_rows].

        The gradients are those of the losses of the examples `train_rows` with respect to `rows` of the parameter
        `name`. They are computed by a closed form, for parameters in `independent_rows`. None means that the task has no
        closed form.
        """
        return None

    # --- for some methods and for the report ------------------------------------------------------------------------

    @property
    def special_ids(self) -> frozenset[int]:
        """Return the ids of tokens that stand for no text: padding, start, end, and the separator of pairs.

        Methods that treat these tokens differently from other tokens need this hook.
        """
        raise NotImplementedError

    def token_counts(self, split: str) -> csr_matrix:
        """Return token counts of a split, special tokens included: CSR [n, vocabulary size]. TF-IDF needs this hook."""
        raise NotImplementedError

    def word_tokens(self, word: str) -> frozenset[int]:
        """Return the ids of the tokens that stand for `word`.

        There are two if the tokenizer has one token for the word at the start of a text and another one after a space.
        The hook works before `prepare`, and uses no torch. Methods that leave out listed words need this hook. Raises
        ValueError if the tokenizer does not know the word, or splits it.
        """
        raise NotImplementedError

    def token_spans(self, split: str, row: int) -> list[tuple[int, int, int]]:
        """Return (start, end, token id) of every token of a row, in characters of its text; (0, 0, id) for special tokens."""
        raise NotImplementedError

    def token_text(self, token_id: int) -> str:
        """Return a token as the report shows it."""
        raise NotImplementedError

    def named_scores(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return the scores called `name` that the task itself defines, such as the known influence in generated data.

        The result is (scores [n_queries, n_train], query ids, train ids); a positive score means that the example helps
        the query. None means that the task defines no scores. Raises ValueError or KeyError on an unknown name.
        """
        return None

    def neighbours(
        self, network: nn.Module | Mapping[str, np.ndarray], words: Sequence[str], n: int = 10
    ) -> dict[str, list[tuple[str, float]]]:
        """Return, for each of `words`, the `n` words whose vectors have the highest cosine with it, highest first.

        The result maps each word to pairs (neighbour, cosine); it is empty for a task without word vectors. `network` is
        a network, or a mapping from parameter name to weights.
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
        """Return the splits that can be measured, if Refit is to choose the measured split; else None (the default).

        If this returns splits, Refit sets `measure` of the block to the split of the queries, which must be one of them. A
        block returns None if `measure` is set already, or if it has no such option and the task decides which splits are
        measured.
        """
        return None
