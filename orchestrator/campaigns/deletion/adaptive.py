"""Adaptive repeats: a plan that adds one repeat for every curve whose interval over seeds is still too wide."""

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
    """Return the plan as far as the finished retrains determine it; it is final once no curve needs another repeat.

    Barriers are n = min, min + 1, ...: the decision at each is made when all retrains of the first n repeats are finished, and
    from these alone. It depends neither on the order in which retrains finish, nor on their numbers of attempts, nor on how often
    the plan is derived.
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
        wanted = needs_repeat(stopping, cells_of(plan, found))
        if not wanted.any():
            return grid.plan(stopping)
        grid.add(wanted)
