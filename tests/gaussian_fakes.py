"""A small mixture of Gaussians in memory, on which recipes of deep embedded clustering are tested."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.data.edits import Edit
from tasks.gaussians import GaussiansTask, MixtureConfig
from tasks.models.dec import Dec


class SmallMixture(GaussiansTask):
    """A GaussiansTask whose train rows can be given other content."""

    def with_noise_in(self, ids: np.ndarray, seed: int = 0) -> SmallMixture:
        """Return the same task, started from the same centroids, with other points and components in the train rows `ids`."""
        train = self.splits["train"]
        rows, features, labels = train.rows_of(ids), self._features("train").copy(), train.labels.copy()
        features[rows] = 9 * np.random.default_rng(seed).standard_normal((len(rows), features.shape[1]))
        labels[rows] = (labels[rows] + 1) % len(self.classes)
        splits = {**self.splits, "train": replace(train, features=features, labels=labels)}
        return SmallMixture(splits, self.measured, self.model, self.recipe, self.data_seed, self.points)


def mixture_task(
    recipe: Any, *, n_train: int = 24, hidden: int = 6, seed: int = 0, measured: tuple[str, ...] = ("train", "means")
) -> SmallMixture:
    """Return a task of three components of n_train / 3 points each, in mixed order; all rows of `measured` are recorded."""
    splits = MixtureConfig(seed=seed, per_class=n_train // 3).splits()
    train, order = splits["train"], np.random.default_rng(seed).permutation(n_train)
    assert train.features is not None
    splits["train"] = replace(train, features=train.features[order], labels=train.labels[order])
    rows = {name: np.arange(len(splits[name])) for name in measured}
    return SmallMixture(splits, rows, Dec(hidden=hidden), recipe, seed)


def every_one_left_out(task: GaussiansTask) -> Edit:
    """Return the stack that leaves out each train row once."""
    return Edit.each_left_out(task.splits["train"].ids)
