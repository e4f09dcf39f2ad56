"""Methods whose scores carry no information: a plugin of the tests."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from influence.base import Method


class Lost(Method):
    """No scores for the first `n` queries, as after a solver that diverged; the row number for all others."""

    name: ClassVar[str] = "lost"
    uses_checkpoints: ClassVar[bool] = False
    may_diverge: ClassVar[bool] = True

    n: int = 1

    def score(self, queries, train, prepared):
        scores = np.tile(train.rows.astype(np.float32), (len(queries), 1))
        scores[: self.n] = np.nan
        return scores


class Flat(Method):
    """The same score for every training example; the row number for queries after the first `n`."""

    name: ClassVar[str] = "flat"
    uses_checkpoints: ClassVar[bool] = False

    n: int = 1

    def score(self, queries, train, prepared):
        scores = np.tile(train.rows.astype(np.float32), (len(queries), 1))
        scores[: self.n] = 0.5
        return scores
