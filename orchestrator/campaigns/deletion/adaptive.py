"""Adaptive repeats: a plan that grows by one repeat wherever a curve's seed interval is still too wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.repeats import needs_repeat
from orchestrator.analysis.stopping import Stopping
from orchestrator.campaigns.deletion.grid import DeletionGrid
from orchestrator.campaigns.plan import Plan
from orchestrator.records import Work

Values = Callable[
    [Sequence[Work]], np.ndarray | None
]  # works -> values [n_works, n_queries]; None while one is not finished


def adaptive_plan(
    grid: DeletionGrid, stopping: Stopping, values: Values, cells_of: Callable[[Plan, np.ndarray], Cells]
) -> Plan:
    """The plan as far as the finished retrains decide it; `is_final` once no curve goes on.

    Barriers are n = min, min + 1, ...: each is decided when everything asked in the repeats before it is finished, and from that
    alone. Which retrains finished first, after how many attempts or how many times this is asked again, changes nothing.
    """
    for _ in range(stopping.least):
        grid.add()
    found = np.empty((0, len(grid.query_ids)))
    while True:
        plan = grid.plan(stopping, is_final=False)
        more = values(plan.works[len(found) :])
        if more is None:
            return plan
        found = np.concatenate([found, more])
        more_repeats = needs_repeat(stopping, cells_of(plan, found))
        if not more_repeats.any():
            return grid.plan(stopping)
        grid.add(more_repeats)
