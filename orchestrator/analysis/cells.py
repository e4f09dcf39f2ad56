"""The measured changes of one campaign, and which of them every comparison uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Cells:
    """What one campaign measured, one number per (method, group, k, query, repeat).

    delta = f(query; removal) - f(query; reference of the same repeat), in the measurement's unit, more is better.
    `delta` and the optional `values` (the removal's own measurement) are float64
    [n_methods, n_groups, n_ks, n_queries, n_repeats]; the optional `reference` is float64 [n_queries, n_repeats].
    NaN marks a hole: not measured, quarantined or diverged.
    Raises ValueError when a shape differs from the labels, or a label is there twice.
    """

    methods: Sequence[str]
    groups: Sequence[str]
    ks: Sequence[int]
    query_ids: Sequence[int]
    repeats: Sequence[int]
    delta: np.ndarray
    values: np.ndarray | None = None
    reference: np.ndarray | None = None
    controls: Sequence[str] = ("random",)  # methods that are baselines, not judged

    def __post_init__(self) -> None:
        axes = ("methods", "groups", "ks", "query_ids", "repeats")
        for axis in axes:
            labels = getattr(self, axis)
            if len(set(labels)) != len(labels):
                raise ValueError(f"{axis} holds a label twice: {list(labels)}")
        shape = tuple(len(getattr(self, axis)) for axis in axes)
        for name, wanted in (("delta", shape), ("values", shape), ("reference", shape[3:])):
            array = getattr(self, name)
            if array is not None and np.shape(array) != wanted:
                raise ValueError(f"{name} has shape {np.shape(array)}, but the labels say {wanted}")

    @cached_property
    def complete(self) -> np.ndarray:
        """Whether a (query, repeat) cell is finite for all methods, groups and ks: bool [n_queries, n_repeats].

        Only these cells enter any table, so that every method is judged on the same ones.
        """
        return np.asarray(np.isfinite(self.delta).all(axis=(0, 1, 2)))

    @property
    def n_excluded(self) -> int:
        """How many (query, repeat) cells are left out."""
        return int((~self.complete).sum())

    @cached_property
    def auc(self) -> np.ndarray:
        """AUC-DEL per (query, repeat), the plain mean of delta over k: [n_methods, n_groups, n_queries, n_repeats].

        AUC-DEL+ where the group is proponents (lower is better), AUC-DEL- where it is opponents (higher is better);
        Yeh et al. 2022, section 2.
        """
        return np.asarray(self.delta, np.float64).mean(axis=2)
