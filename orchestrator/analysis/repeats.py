"""Adaptive repeats: which curves need another repeat, decided at barriers from finished repeats, and how many retrains this saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.curves import Row
from orchestrator.analysis.stopping import Stopping


def reached(rule: Stopping, cells: Cells) -> np.ndarray:
    """Return whether a curve's interval over seeds has reached the target half-width: bool [n_methods, n_groups].

    If the measurement is 0 or 1 only, a curve without any spread has not: a few equal answers do not show that the seed changes nothing.
    """
    found = by_curve(cells, cells.auc)
    low, high = found.ci_fixed
    enough = (found.n_repeats >= rule.least) & ((high - low) / 2 <= rule.target_half_width)
    return enough & (low < high) if _is_binary(cells) else enough


def _is_binary(cells: Cells) -> bool:
    """Return whether every measurement is 0 or 1, as those of `correct` are."""
    known = (cells.values, cells.reference)
    return all(one is not None and bool(np.isin(one[np.isfinite(one)], (0.0, 1.0)).all()) for one in known)


def needs_repeat(rule: Stopping, cells: Cells) -> np.ndarray:
    """Return whether a curve needs one more repeat: bool [n_methods, n_groups].

    `cells` end at a barrier: n repeats, all finished. A curve without the last of these repeats has ended. A control continues as
    long as any curve of its group does, since all of them are compared with it.
    """
    n = len(cells.repeats)
    if n >= rule.most:
        return np.zeros(cells.delta.shape[:2], bool)
    found = (cells.asked_repeats == n) & ~reached(rule, cells)
    for m, method in enumerate(cells.methods):
        if method in cells.controls:
            found[m] = found.any(axis=0)
    return found


def repeat_rows(cells: Cells) -> list[Row]:
    """Return, for every curve, its repeats, the half-width of its interval over seeds, the target, and what ended it: target or max."""
    stopping = _rule_of(cells)
    low, high = by_curve(cells, cells.auc).ci_fixed
    ended = reached(stopping, cells)
    return [
        {
            "method": method,
            "group": group,
            "n_repeats": int(cells.asked_repeats[m, g]),
            "half_width": float(high[m, g] - low[m, g]) / 2,
            "target": stopping.target_half_width,
            "ended": "target" if ended[m, g] else "max",
        }
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
    ]


def design_rows(cells: Cells, n_retrains: int, n_full_repeat: int) -> list[Row]:
    """Return the distinct retrains of this design and of two fixed designs.

    `n_full_repeat`: distinct retrains of a repeat that all curves have. The first fixed design gives every curve as many repeats as the
    longest curve has here; the second gives every curve the maximum, as a design that cannot look at results must.
    """
    made, most = len(cells.repeats), _rule_of(cells).most
    designs = (("adaptive", made, n_retrains), ("fixed, same target", made, made * n_full_repeat))
    return [
        {"design": name, "n_repeats": n, "n_retrains": cost, "saved": cost - n_retrains}
        for name, n, cost in (*designs, ("fixed, max", most, most * n_full_repeat))
    ]


def savings(cells: Cells, designs: Sequence[Row]) -> str:
    """Return a sentence on the retrains that adaptive repeats saved."""
    adaptive, fixed, most = (row["n_retrains"] for row in designs)
    asked, n_reached = cells.asked_repeats, int(reached(_rule_of(cells), cells).sum())
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
