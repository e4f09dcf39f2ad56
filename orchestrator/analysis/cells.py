"""The measured changes of a deletion campaign, and the cells that all comparisons use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.analysis.stopping import Stopping


@dataclass(frozen=True, eq=False)
class Cells:
    """The measured changes of one campaign, one number per (method, group, k, query, repeat); a curve is a pair (method, group).

    delta = f(query; removal) - f(query; reference of the same repeat), in the measurement's unit. f is the measurement; a larger f
    means that the model does better on the query.
    `delta` and the optional `values` (the measurement of the removal itself) are float64
    [n_methods, n_groups, n_ks, n_queries, n_repeats]; the optional `reference` is float64 [n_queries, n_repeats].
    `accuracy` and `reference_accuracy` have the same shapes as `values` and `reference`. They hold the accuracy of the retrain on the
    measured examples other than the query, NaN where it is unknown.
    NaN in `delta` marks a hole: not measured, quarantined or diverged. `n_asked` int [n_methods, n_groups] is the number of repeats
    that the design asks for in each curve (by default all repeats). Repeats after that number need not be measured, so a NaN in them
    is no hole. `stopping` is the rule that determined these numbers, None in a fixed design.
    Raises ValueError if a shape differs from the labels or a label occurs twice.
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
    n_asked: np.ndarray | None = None
    stopping: Stopping | None = None
    accuracy: np.ndarray | None = None
    reference_accuracy: np.ndarray | None = None

    def __post_init__(self) -> None:
        axes = ("methods", "groups", "ks", "query_ids", "repeats")
        for axis in axes:
            labels = getattr(self, axis)
            if len(set(labels)) != len(labels):
                raise ValueError(f"{axis} contains a label twice: {list(labels)}")
        shape = tuple(len(getattr(self, axis)) for axis in axes)
        of_removals = dict.fromkeys(("delta", "values", "accuracy"), shape)
        of_references = dict.fromkeys(("reference", "reference_accuracy"), shape[3:])
        for name, wanted in (of_removals | of_references | {"n_asked": shape[:2]}).items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != wanted:
                raise ValueError(f"{name} has shape {np.shape(array)}, but the labels need {wanted}")

    @property
    def asked_repeats(self) -> np.ndarray:
        """The number of repeats of every curve: int [n_methods, n_groups]."""
        return np.full(self.delta.shape[:2], len(self.repeats)) if self.n_asked is None else self.n_asked

    @cached_property
    def asked(self) -> np.ndarray:
        """Whether the design asks for this repeat of a curve: bool [n_methods, n_groups, n_repeats]."""
        return np.arange(len(self.repeats)) < self.asked_repeats[..., None]

    @cached_property
    def complete(self) -> np.ndarray:
        """Whether a (query, repeat) cell is finite for all ks of all curves that include this repeat: bool [n_queries, n_repeats].

        Only complete cells enter the tables, so that all methods are judged on the same cells.
        """
        usable = np.isfinite(self.delta) | ~self.asked[:, :, None, None, :]
        return np.asarray(usable.all(axis=(0, 1, 2)))

    @property
    def n_excluded(self) -> int:
        """The number of (query, repeat) cells that are left out."""
        return int((~self.complete).sum())

    def excluded(self, queries: slice = slice(None)) -> np.ndarray:
        """Return the number of (query, repeat) cells that each curve leaves out: int [n_methods, n_groups].

        Only cells of `queries` are counted, and only in the repeats that the design asks of the curve.
        """
        left_out = (~self.complete[queries]).sum(axis=0)
        return (self.asked * left_out).sum(axis=-1)

    def widening(self, n_repeats: int) -> float:
        """Return the factor by which the standard error over seeds is multiplied if a curve ended after `n_repeats` repeats.

        It is 1 in a fixed design; see Stopping for adaptive repeats.
        """
        return 1.0 if self.stopping is None else self.stopping.widening(n_repeats)

    @cached_property
    def auc(self) -> np.ndarray:
        """AUC-DEL per (query, repeat), the plain mean of delta over k: [n_methods, n_groups, n_queries, n_repeats].

        For proponents it is the AUC-DEL+ of Yeh et al. 2022, section 2 (lower is better), and for opponents their AUC-DEL-
        (higher is better).
        """
        return np.asarray(self.delta, np.float64).mean(axis=2)
