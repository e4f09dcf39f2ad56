"""When a curve has repeats enough: decided at barriers, from complete repeats, and paid for in its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.curves import Row

Z = 1.959963984540054  # normal quantile of 97.5%
WIDENED = 6.0  # by simulation: docs/results/adaptive_repeats.md


@dataclass(frozen=True)
class Stopping:
    """The rule of `repeats: {min, max, target_se}`.

    A curve (method, group) ends at the first barrier n >= min at which it has min complete repeats and
        widening(n) t(n - 1) se_fixed <= 1.96 target_se,       widening(n) = 1 + 6 / (min n) between min and max, else 1,
    with se_fixed of its AUC-DEL over seeds, for these queries; it ends at max in any case. A rule that looks again and again
    stops more often on a standard error that is small by chance: comparing se_fixed itself with target_se covers 90% only.
    t makes up for few repeats, `widening` for the looks, in the rule and in the interval that is reported alike. So an interval
    never ends wider than 1.96 target_se unless max was reached. Chow & Robbins (1965); Woodroofe (1977) for the order 1 / n.
    """

    least: int
    most: int
    target_se: float

    @property
    def target_half_width(self) -> float:
        """Half the width of the 95% interval that is asked for: 1.96 target_se."""
        return Z * self.target_se

    def widening(self, n: int) -> float:
        """Factor of the standard error over seeds of a curve that ended after n repeats."""
        return 1 + WIDENED / (self.least * n) if self.least < n < self.most else 1.0

    def reached(self, cells: Cells) -> np.ndarray:
        """Whether a curve's seed interval is as narrow as asked: bool [n_methods, n_groups]."""
        found = by_curve(cells, cells.auc)
        low, high = found.ci_fixed
        return (found.n_repeats >= self.least) & ((high - low) / 2 <= self.target_half_width)

    def goes_on(self, cells: Cells) -> np.ndarray:
        """Which curves are asked for one repeat more: bool [n_methods, n_groups].

        `cells` end at a barrier: n repeats, all finished. A curve that was not asked for the last of them has ended. A control goes
        on as long as any curve of its group does, since its sets are compared with all of them.
        """
        n = len(cells.repeats)
        if n >= self.most:
            return np.zeros(cells.delta.shape[:2], bool)
        found = (cells.asked_repeats == n) & ~self.reached(cells)
        for m, method in enumerate(cells.methods):
            if method in cells.controls:
                found[m] = found.any(axis=0)
        return found


def repeat_rows(cells: Cells) -> list[Row]:
    """Every curve's repeats, half its seed interval, the half that was asked for, and what ended it: target or max."""
    stopping = _rule_of(cells)
    low, high = by_curve(cells, cells.auc).ci_fixed
    reached = stopping.reached(cells)
    return [
        {
            "method": method,
            "group": group,
            "n_repeats": int(cells.asked_repeats[m, g]),
            "half_width": float(high[m, g] - low[m, g]) / 2,
            "target": stopping.target_half_width,
            "ended": "target" if reached[m, g] else "max",
        }
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
    ]


def design_rows(cells: Cells, n_retrains: int, n_full_repeat: int) -> list[Row]:
    """Distinct retrains of this design and of the fixed ones it is compared with.

    `n_full_repeat`: distinct retrains of a repeat that every curve is asked for. A fixed design that leaves no curve with fewer
    repeats needs as many of them as the curve with the most; one that is sure to needs max.
    """
    made, most = len(cells.repeats), _rule_of(cells).most
    designs = (("adaptive", made, n_retrains), ("fixed, same target", made, made * n_full_repeat))
    return [
        {"design": name, "n_repeats": n, "n_retrains": cost, "saved": cost - n_retrains}
        for name, n, cost in (*designs, ("fixed, max", most, most * n_full_repeat))
    ]


def savings(cells: Cells, designs: Sequence[Row]) -> str:
    """What adaptive repeats saved, in words."""
    adaptive, fixed, most = (row["n_retrains"] for row in designs)
    asked, n_reached = cells.asked_repeats, int((_rule_of(cells).reached(cells)).sum())
    repeats = f"{asked.min()}" if asked.min() == asked.max() else f"{asked.min()} to {asked.max()}"
    return (
        f"Adaptive repeats: {n_reached} of {asked.size} curves reached the target after {repeats} repeats. "
        f"{adaptive} retrains were made; {designs[1]['n_repeats']} repeats of every curve would have taken {fixed} "
        f"({1 - adaptive / fixed:.0%} saved), the maximum of {designs[2]['n_repeats']} repeats {most} ({1 - adaptive / most:.0%} saved)."
    )


def _rule_of(cells: Cells) -> Stopping:
    if cells.stopping is None:
        raise ValueError("a fixed design has no stopping rule")
    return cells.stopping
