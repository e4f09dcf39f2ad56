"""What an influence method is. No torch at import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.checkpoint import Checkpoint, QueryBlock
from tasks.base import Component
from tasks.hooks import refuse_misspelt
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from influence.gradients import GradientShard
    from influence.inverse_hessian import SolveOptions
    from influence.layers import Layers


class Method(Component):
    """Scores the influence of training examples on queries; positive = the example helps the query (removing it lowers the measurement).

    A subclass with scores must define `score`. The other methods and attributes are hooks with defaults, and a misspelt one is
    refused when the class is made.

    `needs` says what a gradient shard must hold for it, any of NEEDS; an empty set: no gradients at all. `uses_checkpoints`: every configured
    checkpoint (else the last one of each scoring model only). `is_control`: the planner's, has no scores.
    `follows_query_loss`: it differentiates the query loss, so that any label works. `may_diverge`: a query may have no scores, all of them NaN.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    uses_checkpoints: ClassVar[bool] = True
    is_control: ClassVar[bool] = False
    follows_query_loss: ClassVar[bool] = True
    may_diverge: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Method, cls.model_fields)

    def takes_last_checkpoint(self) -> bool:
        """Whether it takes the last checkpoint of each scoring model alone, with weight 1 / number of models."""
        return not self.uses_checkpoints

    def weighs_by_learning_rate(self) -> bool:
        """Whether the weight of a checkpoint holds its learning rate; otherwise it is 1 / number of scoring models."""
        return True

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Refuse options that do not fit this task, before any worker starts and without torch. Raises InputError with `where` (file and dotted key)."""

    def explained_splits(self, task: Task) -> frozenset[str] | None:
        """The splits whose rows have the loss that is explained; None: all that are measured."""
        return None

    def check_network(self, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
        """Refuse what only a fresh network of the prepared task can tell, such as names of layers: in the driver, before any worker starts.

        `queries`: None where a model that is not trained yet judges them. Raises InputError with `where` (file and dotted key).
        """
        if self.needs:
            from influence.network_checks import check_method

            check_method(self, task, network, queries, where)

    def chosen_layers(self, layers: Layers) -> list[str]:
        """The modules whose weight gradients it needs, if it needs `layers`: by default all that are trained."""
        return layers.choose("all")

    def solve_options(self) -> SolveOptions:
        """How it solves for its queries, if it needs `curvature`."""
        raise NotImplementedError

    def options_identity(self, base_dir: Path) -> dict[str, Any]:
        """What enters the score id: name, version, options; a file by the digest of its content."""
        return self.identity()

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> Any:
        """Driver-side, once: whatever `score` wants besides gradients (an idf table, somebody's matrix). Must pickle. No torch."""
        return None

    def solve(
        self,
        task: Task,
        checkpoints: Sequence[tuple[Checkpoint, float]],
        queries: QueryBlock,
        device: torch.device | str = "cpu",
    ) -> Any:
        """Worker-side, once, if it needs `curvature`: what `score` gets as `prepared`, from (checkpoint, weight) of each model."""
        raise NotImplementedError

    def diagnostics(self, solved: Any) -> dict[str, Any]:
        """What is kept about `solved`, which `solve` returned: plain JSON values."""
        return {}

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Scores float32 [n_queries, n_train of the shard]; depends on nothing but its arguments."""
        raise NotImplementedError

    def words(
        self, queries: GradientShard, train: GradientShard, query_row: int, train_row: int, prepared: Any
    ) -> list[tuple[int, float]]:
        """The parts of the score of one pair by token: (token id, contribution), largest magnitude first.

        The contributions sum to the score; the report shows them where a method overrides it. `query_row` and `train_row` are
        positions in the shards.
        """
        raise NotImplementedError
