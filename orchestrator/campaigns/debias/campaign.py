"""Debias: undo the sentences that amplify an association, reinforce those that mitigate it, and measure it again.

Silva et al. 2022, section 4.4 (Table 3) and appendix D (over-biasing, Tables 5 and 6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.analysis.checks import Check
from orchestrator.campaigns.debias.block import DebiasBlock
from orchestrator.campaigns.debias.checks import debias_checks
from orchestrator.campaigns.debias.plan import HARD_ARM, HARD_STEP, WEIGHTS, DebiasPlan, FineTune, passes_arm
from orchestrator.campaigns.debias.results import debias_results
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.plan import DistinctWorks
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage
from tasks.data.edits import Edit


class Debias(DebiasBlock):
    """The debias campaign: its config block (see DebiasBlock) with plan, results, checks and page."""

    def planned(self, scored: Scored) -> DebiasPlan:
        """Plan, repeat by repeat, the base model, the hard-debiased model, and the grid of fine-tunes."""
        experiment, works = scored.experiment, DistinctWorks()
        base, hard, fine_tunes = [], [], []
        for r, seed in enumerate(experiment.seeds):
            [model] = scored.groups[r].models
            base.append(works.add(model.work))
            parents = {"original": {"spec_id": model.work.spec_id, "step": model.work.keep_steps[-1]}}
            hard.append(-1)
            if self.hard:
                debiased = experiment.arms[HARD_ARM].work(
                    scored.numerics, Edit(), seed, keep_steps=(HARD_STEP,), parent=parents["original"]
                )
                hard[r] = works.add(debiased)
                parents["hard_debiased"] = {"spec_id": debiased.spec_id, "step": HARD_STEP}
            for cell, edit in self._cells(scored, r):
                arm = experiment.arms[passes_arm(cell["passes"])]
                work = arm.work(scored.numerics, edit, seed, parent=parents[cell["start"]])
                fine_tunes.append(FineTune(**cell, repeat=r, work=works.add(work)))
        return DebiasPlan(tuple(works.works), tuple(base), tuple(hard), tuple(fine_tunes))

    def _cells(self, scored: Scored, repeat: int) -> Iterator[tuple[dict[str, Any], Edit]]:
        for label in self.made_for:
            for method in scored.experiment.methods:
                amplifying, mitigating = self.sets(scored, repeat, label, method)
                for action in self.actions:
                    for size in self.sizes:
                        weight_a, weight_m = WEIGHTS[action]
                        a, m = (amplifying[:size] if weight_a else []), (mitigating[:size] if weight_m else [])
                        shown = {int(i): float(weight_a) for i in a} | {int(i): float(weight_m) for i in m}
                        edit = Edit.selection(shown) if shown else Edit()
                        for passes in self.passes:
                            for start in self.starts:
                                cell = {"corrected": label, "method": method, "action": action, "size": size}
                                cell |= {"passes": passes, "start": start}
                                yield {**cell, "n_amplifying": len(a), "n_mitigating": len(m)}, edit

    def results(self, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of effects before and after, directions, the grid and the chosen settings."""
        return debias_results(self, scored, plan, rows)

    def checks(
        self, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Return the checks of seeds, of fine-tunes on random sentences, and of scores; word vectors have no accuracy to check."""
        return debias_checks(self, scored, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: effects before and after, directions, the grid, and the influential sentences."""
        from orchestrator.campaigns.debias.page import debias_page  # on demand, since it imports matplotlib

        return debias_page(self, finished)
