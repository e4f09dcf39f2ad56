"""The influence of every training example on itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from influence.base import Method
from influence.checkpoint import QueryBlock
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import GradientShard
    from influence.layers import Layers


class SelfInfluence(Method):
    """score(q, i) = I(i, i), where I is the score of the method `of`: the same value for every query q.

    It is at least 0 for methods that are inner products; a large value marks an example that the model could only learn by heart, such as
    a mislabeled one (Pruthi et al. 2020, section 4.1).

    It is computed and stored like a score, but it ranks nothing for a query: a campaign adds it, no config names it.
    """

    name: ClassVar[str] = "self_influence"

    of: Method

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `of` needs."""
        return self.of.needs

    def options_identity(self, base_dir: Path) -> dict[str, Any]:
        """Return name and version, and the identity of the method whose scores are taken."""
        of: Mapping[str, Any] = self.of.options_identity(base_dir)
        return {"name": self.name, "version": self.version, "of": of}

    def takes_last_checkpoint(self) -> bool:
        """Return whether `of` uses the last checkpoint only."""
        return self.of.takes_last_checkpoint()

    def weighs_by_learning_rate(self) -> bool:
        """Return whether `of` weighs checkpoints by their learning rate."""
        return self.of.weighs_by_learning_rate()

    def chosen_layers(self, layers: Layers) -> list[str]:
        """Return the modules that `of` uses."""
        return self.of.chosen_layers(layers)

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> Any:
        """Return what `of` prepares."""
        return self.of.prepare(task, base_dir, queries)

    def score(self, queries: GradientShard, train: GradientShard, prepared: Any) -> np.ndarray:
        """Return I(i, i) of every training example, once per query: float32 [n_queries, n_train]."""
        itself = np.diagonal(self.of.score(train, train, prepared))
        return np.tile(itself, (len(queries), 1))
