"""Advice on the design: whether more queries or more repeats narrow the interval for queries of this kind more cheaply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.layout import Layout, mean_squares
from orchestrator.analysis.verdicts import number


@dataclass(frozen=True)
class Parts:
    """The variance of a curve's mean AUC-DEL for queries of this kind, in three parts.

    queries = s_q^2 / n_queries, repeats = s_r^2 / n_repeats, residual = s_e^2 / (n_queries n_repeats); negative estimates become 0.
    `half_width`: half the width of the reported interval. `n_queries`, `n_repeats`: numbers that the estimate rests on.
    """

    method: str
    group: str
    queries: float
    repeats: float
    residual: float
    half_width: float
    n_queries: int
    n_repeats: int

    def half_width_at(self, more_queries: float = 1.0, more_repeats: float = 1.0) -> float:
        """Return the approximate half-width with `more_queries` times the queries and `more_repeats` times the repeats."""
        parts = (
            self.queries / more_queries + self.repeats / more_repeats + self.residual / (more_queries * more_repeats)
        )
        return self.half_width * float(np.sqrt(parts / (self.queries + self.repeats + self.residual)))


def advice(cells: Cells, n_shared: float, n_per_query: float) -> str:
    """Return one sentence if more queries would narrow the widest interval more cheaply than more repeats; else "".

    `n_shared`: distinct retrains of a repeat that serve all queries (reference, controls); `n_per_query`: those of one query.
    With Q queries and R repeats, the variance saved per retrain is
        (s_q^2 / Q + s_e^2 / (Q R)) / (Q R n_per_query)                 for one more query,
        (s_r^2 / R + s_e^2 / (Q R)) / (R (n_shared + Q n_per_query))    for one more repeat.
    """
    widest = max(curve_parts(cells), key=lambda parts: parts.half_width, default=None)
    if widest is None or n_per_query <= 0:
        return ""
    n_queries, n_repeats = widest.n_queries, widest.n_repeats
    per_repeat = n_shared + n_queries * n_per_query
    by_queries = (widest.queries + widest.residual) / (n_queries * n_repeats * n_per_query)
    by_repeats = (widest.repeats + widest.residual) / (n_repeats * per_repeat)
    if by_queries <= by_repeats:
        return ""
    cost = n_queries * n_repeats * n_per_query  # retrains for twice as many queries
    with_queries = widest.half_width_at(more_queries=2)
    with_repeats = widest.half_width_at(more_repeats=1 + cost / (n_repeats * per_repeat))
    floor = widest.half_width_at(more_repeats=np.inf)
    return (
        f"{widest.group}, {widest.method}: the interval for queries of this kind is {number(widest.half_width)} on either side, "
        f"and more repeats cannot narrow it below {number(floor)}; {n_queries} more queries would take about {cost:.0f} retrains "
        f"and narrow it to about {number(with_queries)}; as many retrains spent on repeats would narrow it to {number(with_repeats)}"
    )


def curve_parts(cells: Cells) -> list[Parts]:
    """Return the variance parts of every curve of a judged method (no control) whose interval has a positive width."""
    low, high = by_curve(cells, cells.auc).ci
    found = []
    for m, g in np.ndindex(low.shape):
        n = int(cells.asked_repeats[m, g])
        layout = Layout.of(cells.complete[:, :n])
        half_width = float(high[m, g] - low[m, g]) / 2
        if cells.methods[m] not in cells.controls and half_width > 0:
            y = cells.auc[m, g, :, :n][layout.rows][:, layout.columns]
            of_queries, of_repeats, residual = _parts(layout, y)
            found.append(
                Parts(
                    str(cells.methods[m]),
                    str(cells.groups[g]),
                    of_queries,
                    of_repeats,
                    residual,
                    half_width,
                    layout.n_queries,
                    layout.n_repeats,
                )
            )
    return found


def _parts(layout: Layout, y: np.ndarray) -> tuple[float, float, float]:
    ms = mean_squares(layout, y)
    queries = layout.c_queries * max(float(ms.queries - ms.residual), 0.0)
    repeats = layout.c_repeats * max(float(ms.repeats - ms.residual), 0.0)
    return queries, repeats, layout.c_residual * float(ms.residual)
