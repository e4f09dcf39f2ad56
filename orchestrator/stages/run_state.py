"""The state of a run: the objects it was opened with, and everything derived from the store, computed on first use and cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from influence.checkpoint import QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.run_dir import RunDir
from orchestrator.experiment.scoring_work import ScoringGroup, ScoringWork
from orchestrator.records import LedgerRow
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.driver import SpendMeter, StopSignal
from orchestrator.stages.diagnoses import Diagnoses, GroupDiagnoses, by_file_name
from orchestrator.stages.retraining import Retraining
from orchestrator.stages.score_shards import GroupScores
from orchestrator.stages.score_warnings import score_warnings
from orchestrator.stages.scoring_models import ScoringModels, Unfinished
from orchestrator.stages.workforce import BackendFactory, Workforce
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.store import Store
from orchestrator.terminal.progress import Progress
from tasks.base import Numerics
from tasks.errors import InputError


@dataclass
class Report:
    """What a run did, for the last line on the terminal and for tests. `set_aside`: names of damaged ledger parts."""

    stage: str = ""
    retrained: int = 0
    attempts: int = 0
    quarantined: tuple[str, ...] = ()
    score_seconds: float = 0.0
    set_aside: tuple[str, ...] = ()


@dataclass
class RunState:
    """One experiment on one store. The backend starts only when something must be computed.

    `retry_quarantined`: this session retrains the specs that earlier sessions quarantined. `read_only`: the run is only read, possibly
    on another machine; nothing is trained, so the pinned numerics are used unchanged. `meter` charges the machines, if there is a
    limit or a price table. `pilot`: if not 0, at most this many retrains of every class run, to learn how long they take. `mirror` copies
    the run directory to an object store.
    """

    experiment: Experiment
    store: Store
    run_dir: RunDir
    make_backend: BackendFactory
    progress: Progress
    stop: StopSignal
    retry_quarantined: bool = False
    read_only: bool = False
    meter: SpendMeter | None = None
    pilot: int = 0
    mirror: RunMirror = field(default_factory=lambda: RunMirror(None, "", Path()))
    report: Report = field(default_factory=Report)

    @property
    def campaign(self) -> Campaign:
        """The campaign, with its hooks. Raises InputError if its class does not derive from Campaign."""
        campaign, config = self.experiment.campaign, self.experiment.config
        if not isinstance(campaign, Campaign):
            problem = f"{config.settings.campaign!r} must derive from orchestrator.campaigns.base.Campaign"
            raise InputError(f"{config.where}: campaign", problem)
        return campaign

    @cached_property
    def workforce(self) -> Workforce:
        """The workers of this run."""
        return Workforce(
            self.experiment,
            self.store,
            self.run_dir,
            self.make_backend,
            self.mirror,
            self.stop,
            self.meter,
            self.read_only,
        )

    @cached_property
    def retraining(self) -> Retraining:
        """The object that runs missing retrains."""
        compute = self.experiment.settings.compute
        checkpoints = self.store.checkpoints
        return Retraining(self.ledger, checkpoints, self.workforce, compute, self.progress, self.stop, self.meter)

    @cached_property
    def ledger(self) -> Ledgers:
        """The ledgers that this experiment records to, as one object."""
        return Ledgers.of(self.store, self.experiment.task_ids, self.workforce.patiently)

    @cached_property
    def to_retry(self) -> set[str]:
        """Quarantined spec ids that this session must still retrain; until then their ledger rows do not count as finished."""
        return self.retraining.quarantined() if self.retry_quarantined else set()

    @property
    def numerics(self) -> Numerics:
        """The numerics of this campaign."""
        return self.workforce.numerics

    @property
    def known_numerics(self) -> Numerics | None:
        """The numerics; None while only a worker with a GPU could determine them."""
        return self.workforce.known_numerics

    def context(self) -> WorkerContext:
        """Return everything that a worker needs."""
        return self.workforce.context()

    # --- train and score -----------------------------------------------------------------------------------------

    @cached_property
    def models(self) -> ScoringModels:
        """The scoring models and their scores."""
        models = ScoringModels(self.experiment, self.store, self.numerics, self.ledger_rows)
        self.ledger.expect(models.works)
        return models

    @property
    def groups(self) -> list[ScoringGroup]:
        """The scoring models in groups; each group has one score matrix per method."""
        return self.models.groups

    @property
    def scoring(self) -> list[ScoringWork]:
        """All scoring models."""
        return self.models.models

    @property
    def stages(self) -> dict[str, GroupScores]:
        """The score stage of every scoring group."""
        return self.models.stages

    @property
    def scores(self) -> GroupScores:
        """The score stage of the first scoring group, the only one in most campaigns. Raises ValueError if there is none."""
        return self.models.first

    @property
    def queries(self) -> QueryBlock:
        """The queries of the first scoring group."""
        return self.models.first.queries

    @property
    def all_matrices(self) -> dict[tuple[str, str], ScoreMatrix]:
        """(scoring group, label) -> assembled matrix of everything that is stored. Raises Unfinished while scores are missing."""
        return self.models.all_matrices

    @property
    def method_matrices(self) -> dict[tuple[str, str], ScoreMatrix]:
        """(scoring group, method label) -> assembled score matrix. Raises Unfinished while scores are missing."""
        return self.models.method_matrices

    @property
    def matrices(self) -> dict[str, ScoreMatrix]:
        """Method label -> score matrix of the first scoring group."""
        first = self.groups[0].key
        return {label: matrix for (key, label), matrix in self.method_matrices.items() if key == first}

    @property
    def diagnoses(self) -> Diagnoses:
        """The diagnostics of the scoring models."""
        return Diagnoses({key: GroupDiagnoses(stage) for key, stage in self.stages.items()})

    @cached_property
    def diagnosed(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Label of a diagnostic -> its tables by name. Raises Unfinished while one is missing."""
        return self.diagnoses.frames() if self.experiment.config.diagnostics else {}

    def score_warnings(self) -> list[str]:
        """Return warnings about queries without scores, and about queries with all scores equal. Raises Unfinished while scores are missing."""
        matrices, experiment = self.method_matrices, self.experiment
        return score_warnings(matrices, list(experiment.methods), experiment.main.query_split if matrices else None)

    def ledger_rows(self, spec_ids: Iterable[str]) -> Mapping[str, LedgerRow]:
        """Return the ledger rows by spec id, for those of `spec_ids` that are finished."""
        view = self.ledger.read(set(spec_ids))
        for spec_id in view.conflicts:
            self.progress.say(f"warning: the ledger holds two results of {spec_id} that differ; the first one is used")
        return view.rows

    # --- plan ----------------------------------------------------------------------------------------------------

    @cached_property
    def scored(self) -> Scored:
        """The scores and rows that the campaign plans and analyses with. Raises Unfinished while the plan depends on missing scores."""
        models = self.models
        if self.campaign.plans_by_scores:
            _ = self.all_matrices  # raises Unfinished while a score is missing
        return Scored(
            self.experiment,
            self.numerics,
            models.groups,
            queries=models.queries,
            matrix=lambda key, label: self.all_matrices[key, label],
            outcome=lambda spec_id: models.rows[spec_id].outcome,
            rows=lambda spec_ids: self.ledger_rows(set(spec_ids) - self.to_retry),
        )

    @cached_property
    def planned(self) -> Any:
        """The campaign's plan. Its `is_final` is False while further retrains depend on results that the ledger lacks."""
        plan = self.campaign.planned(self.scored)
        self.ledger.expect(plan.works)
        return plan

    # --- analyse -------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Mapping[str, LedgerRow]:
        """The ledger rows of the plan and of the scoring models. Raises Unfinished if a retrain is missing."""
        wanted = [w.spec_id for w in self.planned.works] + [s.work.spec_id for s in self.scoring]
        rows = self.ledger_rows(wanted)
        lacking = sum(spec_id not in rows for spec_id in wanted)
        if lacking:
            raise Unfinished(f"{lacking} of {len(wanted)} retrains are not in the ledger yet; refit run finishes them")
        return rows

    @cached_property
    def results(self) -> Results:
        """The tables, verdicts and checks, derived from the ledger."""
        return self.results_from(self.rows)

    def results_from(self, rows: Mapping[str, LedgerRow]) -> Results:
        """Derive the tables, verdicts and checks from these ledger rows; if the data's query ids are text, the tables show those too."""
        found = self.campaign.checked_results(self.scored, self.planned, rows)
        diagnosed = by_file_name(self.diagnosed)
        asks = self.campaign.asks_queries
        return replace(found, diagnosed=diagnosed).with_given_ids(self.experiment.main.query_split if asks else None)

    @property
    def finished(self) -> FinishedRun:
        """The finished run, from which report and tracking record are made. Raises Unfinished if a retrain is missing from the ledger."""
        return FinishedRun(
            self.scored, self.planned, self.rows, self.results, lambda key: self.stages[key].checkpoints()
        )
