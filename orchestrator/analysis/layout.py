"""A queries x repeats layout, with or without holes: the additive fit, its mean and its mean squares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROUNDING = 32 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Layout:
    """The pattern of present cells in a queries x repeats table, and the quantities that depend only on this pattern.

    `cells`: float64 [n_queries, n_repeats], 1 where there is a number, else 0; every row and column has at least one.
    `rows`, `columns`: positions of the rows and columns in the original table.
    With weights w, mean = sum(w y) and Var(mean) = s_q^2 / n_queries + s_r^2 / n_repeats + s_e^2 sum(w^2),
    since every query and every repeat has equal weight.
    """

    cells: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @staticmethod
    def of(complete: np.ndarray) -> Layout:
        """Return the layout of a bool table [n_queries, n_repeats], without its empty rows and columns."""
        rows, columns = np.flatnonzero(complete.any(axis=1)), np.flatnonzero(complete.any(axis=0))
        return Layout(complete[np.ix_(rows, columns)].astype(np.float64), rows, columns)

    @property
    def n_queries(self) -> int:
        return self.cells.shape[0]

    @property
    def n_repeats(self) -> int:
        return self.cells.shape[1]

    @cached_property
    def n_cells(self) -> int:
        return int(self.cells.sum())

    @cached_property
    def per_query(self) -> np.ndarray:
        """Number of cells of each query: float64 [n_queries, 1]."""
        return self.cells.sum(axis=1, keepdims=True)

    @cached_property
    def is_connected(self) -> bool:
        """Whether all repeats are linked through shared queries; if not, their levels cannot be compared."""
        joined = self.cells.T @ self.cells > 0
        for _ in range(self.n_repeats.bit_length()):
            joined = np.matmul(joined, joined)
        return bool(joined.all())

    @property
    def degrees_of_freedom(self) -> tuple[int, int, int]:
        """Degrees of freedom of the mean squares of queries, repeats and residual."""
        return self.n_queries - 1, self.n_repeats - 1, self.n_cells - self.n_queries - self.n_repeats + 1

    @property
    def c_queries(self) -> float:
        """Factor of MS_q in the variance of the mean: 1 / (n_queries k), where E MS_q = s_e^2 + k s_q^2.

        k = (n_cells - n_repeats) / (n_queries - 1)
        """
        return (self.n_queries - 1) / (self.n_queries * (self.n_cells - self.n_repeats))

    @property
    def c_repeats(self) -> float:
        """Factor of MS_r in the variance of the mean: 1 / (n_repeats k), where E MS_r = s_e^2 + k s_r^2.

        k = (n_cells - n_queries) / (n_repeats - 1)
        """
        return (self.n_repeats - 1) / max(self.n_repeats * (self.n_cells - self.n_queries), 1)

    @cached_property
    def c_residual(self) -> float:
        """Factor of s_e^2 in the variance of the mean: the sum of squared weights.

        All three factors are 1 / (n_queries n_repeats) without holes.
        """
        return float((self.weights**2).sum())

    @cached_property
    def solve_repeats(self) -> np.ndarray:
        """Inverse of the normal equations for the repeats b, with queries eliminated and sum b = 0: float64 [n_repeats, n_repeats]."""
        shared = _sum_last((self.cells / self.per_query).T[:, None, :] * self.cells.T[None, :, :])
        return np.linalg.inv(np.diag(self.cells.sum(axis=0)) - shared + 1 / self.n_repeats)

    @cached_property
    def weights(self) -> np.ndarray:
        """Weights of the cells in the mean: float64 [n_queries, n_repeats].

        The mean is the average fitted value over the whole table, or the plain mean if the layout is not connected.
        """
        if not self.is_connected or self.n_cells == self.cells.size:
            return self.cells / self.n_cells
        share = self.cells / self.per_query
        lack = 1 / self.n_repeats - share.mean(axis=0)
        pull = _sum_last(self.solve_repeats * lack)
        return self.cells * (1 / (self.n_queries * self.per_query) + pull - (share * pull).sum(axis=1, keepdims=True))

    def mean(self, y: np.ndarray) -> np.ndarray:
        """Return the weighted mean of y [..., n_queries, n_repeats]: [...]; if y is constant, exactly that constant."""
        first = y[..., :1, self.cells[0].argmax(), None]
        return first[..., 0, 0] + _sum_table(np.where(self.cells > 0, y - first, 0.0) * self.weights)

    def additive_fit(self, y: np.ndarray) -> np.ndarray:
        """Return the least-squares fit a_q + b_r of y [..., n_queries, n_repeats], zero outside the cells: same shape."""
        b = self._repeat_effects(y)
        return self.cells * (self.query_means(y - b) + b)

    def query_levels(self, y: np.ndarray) -> np.ndarray:
        """Return a_q of the additive fit with sum b_r = 0: [..., n_queries]; y may hold any values outside the cells.

        Without holes this is the plain mean over repeats. The layout must be connected.
        """
        y = np.where(self.cells > 0, y, 0.0)
        if self.n_cells < self.cells.size:
            y = y - self._repeat_effects(y)
        return self.query_means(y)[..., 0]

    def _repeat_effects(self, y: np.ndarray) -> np.ndarray:
        """Return b_r of the additive fit with sum b_r = 0, in every cell: y [..., n_queries, n_repeats] -> same shape."""
        by_repeat = _sum_last(np.swapaxes(self.cells * (y - self.query_means(y)), -1, -2))
        return self.cells * _sum_last(self.solve_repeats * by_repeat[..., None, :])[..., None, :]

    def query_means(self, y: np.ndarray) -> np.ndarray:
        """Return the means over repeats of y [..., n_queries, n_repeats], which is zero outside the cells: [..., n_queries, 1]."""
        return _sum_last(y)[..., None] / self.per_query

    def repeat_means(self, y: np.ndarray) -> np.ndarray:
        """Return the means over queries of y [..., n_queries, n_repeats], which is zero outside the cells: [..., 1, n_repeats]."""
        return (_sum_last(np.swapaxes(y, -1, -2)) / self.cells.sum(axis=0))[..., None, :]


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares [...] of queries (adjusted for repeats), repeats (adjusted for queries) and residual; NaN without degrees of freedom."""

    queries: np.ndarray
    repeats: np.ndarray
    residual: np.ndarray


def mean_squares(layout: Layout, y: np.ndarray) -> MeanSquares:
    """Return the mean squares of y [..., n_queries, n_repeats] in a two-way analysis of variance, each factor adjusted for the other.

    Henderson's method 3 (Searle, Casella & McCulloch 1992, chapter 5): reductions in sums of squares.
    A mean square below the rounding error of the data becomes 0.
    """
    y = np.where(layout.cells > 0, y, 0.0)
    fit = layout.additive_fit(y)
    by_query, by_repeat = layout.cells * layout.query_means(y), layout.cells * layout.repeat_means(y)
    noise = (ROUNDING * np.abs(y).max(axis=(-2, -1))) ** 2

    def mean_square(part: np.ndarray, degrees_of_freedom: int) -> np.ndarray:
        if degrees_of_freedom < 1:
            return np.full(noise.shape, np.nan)
        found = _sum_table(part**2) / degrees_of_freedom
        return np.where(found <= noise, 0.0, found)

    parts = (fit - by_repeat, fit - by_query, y - fit)
    return MeanSquares(*(mean_square(part, f) for part, f in zip(parts, layout.degrees_of_freedom, strict=True)))


def _sum_last(y: np.ndarray) -> np.ndarray:
    """Sum over the last axis in a fixed order, so that the bits depend neither on other rows nor on the number of threads."""
    return np.ascontiguousarray(y).sum(axis=-1)


def _sum_table(y: np.ndarray) -> np.ndarray:
    """Sum over the last two axes in a fixed order, as `_sum_last` does."""
    return _sum_last(y.reshape(*y.shape[:-2], -1))
