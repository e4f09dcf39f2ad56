"""The linear datamodelling score: do summed scores predict what models say that are trained on random subsets? (Park et al. 2023, section 3.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from influence.controls import Control
from orchestrator.analysis.checks import Check
from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.lds.checks import lds_checks
from orchestrator.campaigns.lds.results import lds_results
from orchestrator.campaigns.lds.subsets import kept_count, removed_sets
from orchestrator.campaigns.plan import CellTable, DistinctWorks
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow
from orchestrator.report.data import CampaignPage
from tasks.data.edits import Edit
from tasks.errors import InputError

LEAST_REPEATS = 2


class Lds(Campaign):
    """The `lds` block: `subsets` random subsets that each keep `fraction` of the train set, and the edit's mode.

    Every subset is trained in every repeat. The subsets are drawn once, from the seed of the first repeat; all queries and methods
    share them, and no method takes part in the draw.
    """

    name: ClassVar[str] = "lds"
    version: ClassVar[int] = 1
    has_references: ClassVar[bool] = True
    plans_by_scores: ClassVar[bool] = False

    subsets: Annotated[int, Field(ge=4)] = 100
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    mode: Literal["mask", "drop"] = "mask"

    def check(self, experiment: Experiment) -> None:
        """Raise InputError with fewer than two repeats, without a scored method, or if a subset would keep no or every example."""
        where, n_train = experiment.config.where, len(experiment.train)
        if len(experiment.seeds) < LEAST_REPEATS:
            problem = f"{len(experiment.seeds)} repeat; lds needs at least {LEAST_REPEATS}, since with one the noise of retrains is not known"
            raise InputError(f"{where}: repeats", problem)
        if not experiment.scored:
            raise InputError(f"{where}: methods", "no method has scores to compare with retrains")
        kept = kept_count(n_train, self.fraction)
        if not 0 < kept < n_train:
            problem = f"{self.fraction} of {n_train} training examples is {kept}; at least 1 must be kept and 1 removed"
            raise InputError(f"{where}: lds.fraction", problem)
        for position, (label, method) in enumerate(experiment.methods.items()):
            if method.is_control and not isinstance(method, Control):
                problem = f"{label!r} is a control and must be an influence.controls.Control, which draws its scores"
                raise InputError(f"{where}: methods[{position}]", problem)

    def removed(self, experiment: Experiment) -> list[np.ndarray]:
        """Return the TrainIds that each subset leaves out."""
        return removed_sets(experiment.train.ids, self.subsets, self.fraction, experiment.seeds[0])

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of cells, largest number of distinct retrains): the subsets, and one reference, in every repeat."""
        n_repeats = len(experiment.seeds)
        return self.subsets * n_repeats, (self.subsets + 1) * n_repeats

    def planned(self, scored: Scored) -> CellTable:
        """Plan a reference and every subset in every repeat, repeat by repeat."""
        experiment, works = scored.experiment, DistinctWorks()
        edits = [Edit.removal(ids, self.mode) for ids in self.removed(experiment)]
        reference: list[int] = []
        work: list[int] = []
        for seed in experiment.seeds:
            reference.append(works.add(experiment.main.work(scored.numerics, Edit(), seed)))
            work += [works.add(experiment.main.work(scored.numerics, edit, seed)) for edit in edits]
        subset, repeat = np.arange(self.subsets), np.arange(len(experiment.seeds))
        labels = {
            "subset": np.tile(subset, len(repeat)).tolist(),
            "repeat": np.repeat(repeat, len(subset)).tolist(),
        }
        return CellTable(tuple(works.works), work, labels, reference)

    def results(self, scored: Scored, plan: CellTable, rows: Mapping[str, LedgerRow]) -> Results:
        """Return the tables of LDS, by method and by query, with contrasts, the noise ceiling and holes."""
        return lds_results(scored, plan, rows, self.removed(scored.experiment))

    def checks(
        self, scored: Scored, plan: CellTable, rows: Mapping[str, LedgerRow], results: Results
    ) -> Sequence[Check]:
        """Return the common checks, and those of the noise ceiling, the subsets, their models and the random scores."""
        return lds_checks(scored, plan, rows, results)

    def page(self, finished: FinishedRun) -> CampaignPage:
        """Return the report sections: LDS with the noise ceiling, contrasts, and LDS by query."""
        from orchestrator.campaigns.lds.page import lds_page  # on demand, since it imports matplotlib

        return lds_page(finished, self.asked(finished.experiment, finished.plan))

    def asked(self, experiment: Experiment, plan: CellTable) -> list[tuple[str, str]]:
        """Return the question and the design."""
        n_train, seeds = len(experiment.train), ", ".join(map(str, experiment.seeds))
        kept = kept_count(n_train, self.fraction)
        return [
            ("Campaign", "lds: retrain on random subsets, and correlate the measurements with summed scores"),
            ("Methods", ", ".join(experiment.methods)),
            ("Subsets", f"{self.subsets}, each with {kept} of {n_train} training examples, edit mode {self.mode}"),
            ("Query split", experiment.main.asked.split),
            ("Measurement", experiment.config.measurement.name),
            ("Repeats", f"{len(experiment.seeds)} (seeds {seeds})"),
            ("Scoring models", str(len(experiment.scoring_seeds))),
        ]
