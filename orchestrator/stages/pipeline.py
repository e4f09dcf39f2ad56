"""train -> score -> plan -> retrain -> analyse. Every stage writes what another can read, and is skipped when it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

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
from orchestrator.runtime.backend import ScoreBlock, WorkerContext
from orchestrator.runtime.driver import SpendMeter, StopSignal
from orchestrator.stages.pilot import pilot_works
from orchestrator.stages.retraining import Retraining
from orchestrator.stages.score_shards import ScoreStage
from orchestrator.stages.score_warnings import score_warnings
from orchestrator.stages.scoring_models import ScoringModels, Unfinished
from orchestrator.stages.workforce import BackendFactory, Workforce
from orchestrator.storage.blobs import write_file
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.run_mirror import RunMirror
from orchestrator.storage.store import Store
from orchestrator.terminal.progress import Progress
from tasks.base import Numerics
from tasks.errors import InputError
from tasks.sources import require_late_imports

log = logging.getLogger("refit")
STAGES = ("train", "score", "plan", "retrain", "analyse")


@dataclass
class Report:
    """What a run did: for the last line on the terminal and for tests."""

    stage: str = ""
    retrained: int = 0
    attempts: int = 0
    quarantined: tuple[str, ...] = ()
    score_seconds: float = 0.0
    set_aside: tuple[str, ...] = ()


@dataclass
class Pipeline:
    """One experiment over one store. The backend starts only when there is something to compute.

    `read_only`: to read a run again, a year later and elsewhere; nothing is trained, so the pinned numerics stand.
    `meter`: what the machines cost, where there is a limit or somebody wants to know. `pilot`: retrain no more than so many of every
    class, to learn how long they take. `mirror`: keeps the run directory in an object store.
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

    def run(self, until: str = "analyse") -> Report:
        """All stages up to `until`. Raises Stopped, InputError or RefitError; what is finished is kept."""
        self.workforce.is_running = True
        try:
            self._tidy_ledger()
            for stage in STAGES[: STAGES.index(until) + 1]:
                self.report.stage = stage
                getattr(self, f"_{stage}")()
                self.workforce.patiently(self.mirror.publish)()
        finally:
            self.workforce.is_running = False
            self.close()
            self.report.retrained, self.report.attempts = self.retraining.n_retrained, self.retraining.n_attempts
        return self.report

    def close(self) -> None:
        """Stop the backend if it was started."""
        self.workforce.close()
        if self.meter:
            self.meter.close()

    @property
    def campaign(self) -> Campaign:
        """The campaign, with the hooks that plan it and make its results. Raises InputError for a class that has none of them."""
        campaign, config = self.experiment.campaign, self.experiment.config
        if not isinstance(campaign, Campaign):
            problem = f"{config.settings.campaign!r} must derive from orchestrator.campaigns.base.Campaign"
            raise InputError(f"{config.where}: campaign", problem)
        return campaign

    @cached_property
    def workforce(self) -> Workforce:
        """What computes for this run."""
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
        """What brings retrains into the ledger."""
        compute = self.experiment.settings.compute
        checkpoints = self.store.checkpoints
        return Retraining(self.ledger, checkpoints, self.workforce, compute, self.progress, self.stop, self.meter)

    @cached_property
    def ledger(self) -> Ledgers:
        """The ledgers this experiment records to, as one."""
        return Ledgers.of(self.store, self.experiment.task_ids, self.workforce.patiently)

    @cached_property
    def again(self) -> set[str]:
        """Spec ids given up in earlier sessions that this one is to retrain, and has not yet: nothing is decided by their rows."""
        return self.retraining.quarantined() if self.retry_quarantined else set()

    @property
    def numerics(self) -> Numerics:
        """The numerics of this campaign."""
        return self.workforce.numerics

    @property
    def known_numerics(self) -> Numerics | None:
        """The numerics, unless only a worker with a GPU could tell."""
        return self.workforce.known_numerics

    def context(self) -> WorkerContext:
        """What a worker needs."""
        return self.workforce.context()

    def _tidy_ledger(self) -> None:
        records = {arm.task_id: arm.record for arm in self.experiment.arms.values()}
        bad = self.workforce.patiently(self.ledger.tidy)(records)
        for part in bad:
            self.progress.say(
                f"ledger part {part.name} is damaged ({part.problem}): set aside, its retrains will be done again"
            )
        self.report.set_aside = tuple(part.name for part in bad)
        swept = self.workforce.patiently(self.store.checkpoints.swept)
        self.store.checkpoints = swept(self.ledger.index().rows.keys())

    # --- train and score -----------------------------------------------------------------------------------------

    @cached_property
    def models(self) -> ScoringModels:
        """The scoring models and their scores."""
        models = ScoringModels(self.experiment, self.store, self.numerics, self.ledger_rows)
        self.ledger.expect(models.works)
        return models

    @property
    def groups(self) -> list[ScoringGroup]:
        """The scoring models, in groups that each make one score matrix per method."""
        return self.models.groups

    @property
    def scoring(self) -> list[ScoringWork]:
        """All scoring models."""
        return self.models.models

    @property
    def stages(self) -> dict[str, ScoreStage]:
        """The score stage of every scoring group."""
        return self.models.stages

    @property
    def scores(self) -> ScoreStage:
        """The score stage of the first scoring group, the only one in most campaigns. Raises ValueError if there is none."""
        return self.models.first

    @property
    def queries(self) -> QueryBlock:
        """The queries of the first scoring group."""
        return self.models.first.queries

    @property
    def all_matrices(self) -> dict[tuple[str, str], ScoreMatrix]:
        """(scoring group, method label) -> assembled score matrix."""
        return self.models.all_matrices

    @property
    def matrices(self) -> dict[str, ScoreMatrix]:
        """Label -> score matrix of the first scoring group."""
        first = self.groups[0].key
        return {label: matrix for (key, label), matrix in self.all_matrices.items() if key == first}

    def _train(self) -> None:
        works, retraining = self.models.works, self.retraining
        missing = retraining.without_weights(works)
        if not missing.isdisjoint(self.ledger.index().rows) and not self._needs_weights():
            missing = set()
        retraining.bring_in(works, "scoring models", redo=missing | retraining.quarantined())
        self.again.difference_update(work.spec_id for work in works)
        self.models.check_trained()

    def _score(self) -> None:
        if any(stage.missing() for stage in self.stages.values()):
            self.retraining.check_budget("score shards")
        self.models.compute(self.workforce.backend, self.progress, self._heard, self.workforce.alive)
        self.workforce.pin()
        self.models.write_tables(self.run_dir)
        for warning in self.score_warnings():
            self.progress.say(f"warning: {warning}")
            log.warning("%s", warning)

    def score_warnings(self) -> list[str]:
        """What makes the scores of a method useless for some queries. Raises Unfinished while scores are missing."""
        matrices, experiment = self.all_matrices, self.experiment
        return score_warnings(matrices, list(experiment.methods), experiment.main.query_split if matrices else None)

    def _heard(self, block: ScoreBlock) -> None:
        self.report.score_seconds += block.seconds
        self.workforce.alive()

    def _needs_weights(self) -> bool:
        """Whether a score, or a retrain with a parent, is missing: only then are the weights of a finished model needed."""
        try:
            if any(stage.missing() for stage in self.stages.values()):
                return True
            finished = self.ledger.index().rows.keys() - self.again
            return any(w.spec.parent and w.spec_id not in finished for w in self.planned.works)
        except Unfinished:
            return True

    def ledger_rows(self, spec_ids: Iterable[str]) -> Mapping[str, LedgerRow]:
        """Ledger rows by spec id, for those of `spec_ids` that are finished."""
        view = self.ledger.read(set(spec_ids))
        for spec_id in view.conflicts:
            self.progress.say(f"warning: the ledger holds two results of {spec_id} that differ; the first one stands")
        return view.rows

    # --- plan ----------------------------------------------------------------------------------------------------

    @cached_property
    def scored(self) -> Scored:
        """What the campaign plans and analyses with. Raises Unfinished while scores are missing that its plan depends on."""
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
            rows=lambda spec_ids: self.ledger_rows(set(spec_ids) - self.again),
        )

    @cached_property
    def planned(self) -> Any:
        """The campaign's plan: exact, since the scores are in the store. Not final while the ledger decides how it goes on."""
        plan = self.campaign.planned(self.scored)
        self.ledger.expect(plan.works)
        return plan

    def _plan(self) -> None:
        from orchestrator.storage.tables import write_plan

        plan = self.planned
        write_plan(self.run_dir.plan, plan.columns(), {"run": self.experiment.run_name})
        self.run_dir.note({"references": plan.references()})

    # --- retrain -------------------------------------------------------------------------------------------------

    def _retrain(self) -> None:
        if self.pilot:
            works = pilot_works(self.planned.works, self.ledger.index().rows.keys(), self.pilot)
            return self.retraining.bring_in_waves(works, "pilot")
        while True:
            works = self.planned.works
            self.retraining.bring_in_waves(works, "retrains", self.again)
            self.again.difference_update(work.spec_id for work in works)
            if self.planned.is_final:
                break
            self.workforce.alive()
            del self.planned  # planned anew, now that these are in the ledger
            self._plan()
            self.workforce.patiently(self.mirror.publish)()
        self.workforce.close()  # tables and report need no machines
        planned = {work.spec_id for work in works}
        self.report.quarantined = tuple(sorted(planned & self.retraining.quarantined()))

    # --- analyse -------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Mapping[str, LedgerRow]:
        """The ledger rows of the plan and the scoring models. Raises RefitError if a retrain is not there."""
        wanted = [w.spec_id for w in self.planned.works] + [s.work.spec_id for s in self.scoring]
        rows = self.ledger_rows(wanted)
        lacking = sum(spec_id not in rows for spec_id in wanted)
        if lacking:
            raise Unfinished(f"{lacking} of {len(wanted)} retrains are not in the ledger yet; refit run finishes them")
        return rows

    @cached_property
    def results(self) -> Results:
        """The tables, verdicts and checks, from the ledger."""
        return self.results_from(self.rows)

    def results_from(self, rows: Mapping[str, LedgerRow]) -> Results:
        """The tables, verdicts and checks from these ledger rows; queries have the ids that the data gives, where those are text."""
        found = self.campaign.checked_results(self.scored, self.planned, rows)
        asks = self.campaign.asks_queries
        return found.with_given_ids(self.experiment.main.query_split if asks else None)

    @property
    def finished(self) -> FinishedRun:
        """What the report and the tracking store are made from. Raises Unfinished while a retrain is not in the ledger."""
        return FinishedRun(
            self.scored, self.planned, self.rows, self.results, lambda key: self.stages[key].checkpoints()
        )

    def _analyse(self) -> None:
        self.write_results()

    def write_results(self) -> None:
        """Write results/ from the ledger."""
        tables = self.results.csv()
        require_late_imports(self.experiment.sources)
        for name, text in tables.items():
            write_file(self.run_dir.results / name, text.encode())
        quarantined = (s for s, row in self.rows.items() if row.outcome.status == "quarantined")
        self.report.quarantined = tuple(sorted(quarantined))
