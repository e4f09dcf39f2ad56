"""Leave-one-out validation: retrain without each point, and compare the measured influence with the predicted one.

Koh & Liang 2017, section 4.2; Silva et al. 2022, section 4.1 and appendix I.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis.checks import Check
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.leave_one_out.block import LeaveOneOutBlock
from orchestrator.campaigns.leave_one_out.checks import leave_one_out_checks
from orchestrator.campaigns.leave_one_out.plan import Cell, LeaveOneOutPlan
from orchestrator.campaigns.leave_one_out.results import leave_one_out_results
from orchestrator.campaigns.plan import DistinctWorks
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage
from tasks.data.edits import Edit


class LeaveOneOut(LeaveOneOutBlock):
    """The leave-one-out campaign: its config block (see LeaveOneOutBlock) with plan, results, checks and page."""

    def planned(self, scored: Scored) -> LeaveOneOutPlan:
        """Plan a reference and the leave-one-out retrains of every arm that is a truth, in every repeat."""
        works = DistinctWorks()
        cells = []
        for arm in self.truths(scored.experiment):
            ids = self.points_of(arm)
            width = self.width_of(arm, len(ids))
            stacks = [ids[start : start + width] for start in range(0, len(ids), width)]
            edits = [Edit.each_left_out(some) if width > 1 else Edit.removal(some) for some in stacks]
            member = np.arange(len(ids)) % width if width > 1 else np.full(len(ids), -1)
            for r, seed in enumerate(scored.experiment.seeds):
                reference = works.add(arm.work(scored.numerics, Edit(), seed))
                position = np.array([works.add(arm.work(scored.numerics, edit, seed)) for edit in edits])
                cells.append(Cell(arm.label, r, reference, ids, position[np.arange(len(ids)) // width], member))
        return LeaveOneOutPlan(tuple(works.works), tuple(cells))

    def results(self, scored: Scored, plan: LeaveOneOutPlan, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of agreement between predicted and measured influence."""
        return leave_one_out_results(self, scored, plan, rows)

    def checks(
        self, scored: Scored, plan: LeaveOneOutPlan, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Return the common checks; the number of units, over which intervals are formed, takes the place of the number of repeats."""
        return leave_one_out_checks(scored, plan, rows, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: agreement, predicted against measured influence, correlations, and examples in the plane."""
        from orchestrator.campaigns.leave_one_out.page import leave_one_out_page  # on demand: imports matplotlib

        return leave_one_out_page(self, finished)
