"""train -> score -> plan -> retrain -> analyse. Every stage writes what another can read, and is skipped when it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from influence.base import QueryBlock
from influence.matrix import ScoreMatrix
from orchestrator.campaigns.base import Scored, waves
from orchestrator.experiment import Experiment, ScoringGroup, ScoringWork
from orchestrator.ledgers import Ledgers
from orchestrator.progress import Progress, duration
from orchestrator.records import LedgerRow, Work
from orchestrator.run_dir import RunDir, code_version, git_commit, require_same_numerics, versions
from orchestrator.runtime.backend import Backend, ScoreBlock, WorkerContext
from orchestrator.runtime.driver import StopSignal, drive
from orchestrator.runtime.machine import cpu_numerics
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scoring import ScoreStage
from orchestrator.scoring_models import ScoringModels, Unfinished
from orchestrator.storage.blobs import write_file
from orchestrator.store import Store
from tasks.base import Numerics

if TYPE_CHECKING:
    from orchestrator.results import Results

STAGES = ("train", "score", "plan", "retrain", "analyse")
BackendFactory = Callable[[WorkerContext], Backend]


class Stopped(Unfinished):
    """The run was asked to stop; the same command resumes it."""


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
    """

    experiment: Experiment
    store: Store
    run_dir: RunDir
    make_backend: BackendFactory
    progress: Progress
    stop: StopSignal
    retry_quarantined: bool = False
    read_only: bool = False
    report: Report = field(default_factory=Report)
    _backend: Backend | None = None

    def run(self, until: str = "analyse") -> Report:
        """All stages up to `until`. Raises Stopped, InputError or RefitError; what is finished is kept."""
        try:
            self._tidy_ledger()
            for stage in STAGES[: STAGES.index(until) + 1]:
                self.report.stage = stage
                getattr(self, f"_{stage}")()
        finally:
            self.close()
        return self.report

    def close(self) -> None:
        """Stop the backend if it was started."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    @cached_property
    def ledger(self) -> Ledgers:
        """The ledgers this experiment records to, as one."""
        return Ledgers.of(self.store, self.experiment.task_ids)

    @cached_property
    def numerics(self) -> Numerics:
        """The numerics of this campaign: pinned in the run directory at the first retrain."""
        compute, pinned = self.experiment.settings.compute, self.run_dir.numerics()
        if self.read_only and pinned:
            return pinned
        now = cpu_numerics(compute.threads)
        if compute.gpus_per_worker > 0:
            now = pinned or self._probe(dataclasses.replace(now, device="cuda", device_model=""))
        require_same_numerics(pinned, now, self.run_dir.provenance_path)
        return now

    @property
    def known_numerics(self) -> Numerics | None:
        """The numerics, unless only a worker with a GPU could tell."""
        gpus = self.experiment.settings.compute.gpus_per_worker
        return None if gpus and self.run_dir.numerics() is None else self.numerics

    def _probe(self, numerics: Numerics) -> Numerics:
        backend = self.make_backend(self.context(numerics))
        try:
            backend.start()
            return backend.probe(numerics)
        finally:
            backend.close()

    def backend(self) -> Backend:
        """The backend, started on first use."""
        if self._backend is None:
            numerics = self.numerics
            self._pin(numerics)
            self._backend = self.make_backend(self.context())
            self._backend.start()
            require_same_numerics(numerics, self._backend.probe(numerics), self.run_dir.provenance_path)
        return self._backend

    def context(self, numerics: Numerics | None = None) -> WorkerContext:
        """What a worker needs: the prepared task of every arm."""
        tasks = {label: arm.task for label, arm in self.experiment.arms.items()}
        for task in tasks.values():
            task.prepare()
        self.experiment.check_networks()
        return WorkerContext(
            self.experiment.task,
            numerics or self.numerics,
            self.store.checkpoints,
            tasks=tasks,
            observers=self.experiment.config.observers,
        )

    def _pin(self, numerics: Numerics) -> None:
        experiment = self.experiment
        self.run_dir.write(
            experiment.config,
            experiment.task,
            {
                "run": experiment.run_name,
                "task_id": experiment.task_id,
                "task_ids": sorted(set(experiment.task_ids.values())),
                "train_digest": experiment.train_digest,
                "model": experiment.model_identity,
                "recipe": experiment.recipe_identity,
                "numerics": numerics.identity(),
                "seeds": list(experiment.seeds),
                "scoring_seeds": list(experiment.scoring_seeds),
                "store": str(self.store.root),
                "config_dir": str(experiment.config.base_dir.resolve()),
                "config_file": experiment.config.path.name,
                "overrides": list(experiment.config.overrides),
                "code_version": code_version(),
                "git_commit": git_commit(),
                "versions": versions(),
            },
        )

    def _tidy_ledger(self) -> None:
        records = {arm.task_id: arm.record for arm in self.experiment.arms.values()}
        bad = self.ledger.tidy(records)
        for part in bad:
            self.progress.say(
                f"ledger part {part.name} is damaged ({part.problem}): set aside, its retrains will be done again"
            )
        self.report.set_aside = tuple(part.name for part in bad)

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
        works = self.models.works
        missing = self._without_weights(works)
        if not missing.isdisjoint(self.ledger.index().rows) and not self._needs_weights():
            missing = set()
        self._retrain_missing(works, "scoring models", redo=missing | self._quarantined())
        self.models.check_trained()

    def _score(self) -> None:
        self.models.compute(self.backend, self.progress, self._heard)
        self._pin(self.numerics)
        self.models.write_tables(self.run_dir)

    def _heard(self, block: ScoreBlock) -> None:
        self.report.score_seconds += block.seconds
        if self.stop.reason:
            raise Stopped(f"stopped ({self.stop.reason}); finished shards are kept")

    def _without_weights(self, works: Iterable[Work]) -> set[str]:
        stored = self.store.checkpoints
        return {w.spec_id for w in works if w.keep_steps and not stored.has(w.spec_id, w.keep_steps)}

    def _needs_weights(self) -> bool:
        """Whether a score, or a retrain with a parent, is missing: only then are the weights of a finished model needed."""
        try:
            if any(stage.missing() for stage in self.stages.values()):
                return True
            finished = self._finished()
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
        """What the campaign plans and analyses with. Raises Unfinished while scores are missing."""
        models, matrices = self.models, self.all_matrices
        return Scored(
            self.experiment,
            self.numerics,
            models.groups,
            queries=models.queries,
            matrix=lambda key, label: matrices[key, label],
            outcome=lambda spec_id: models.rows[spec_id].outcome,
        )

    @cached_property
    def planned(self) -> Any:
        """The campaign's plan: exact, since the scores are in the store."""
        plan = self.experiment.campaign.planned(self.scored)
        self.ledger.expect(plan.works)
        return plan

    def _plan(self) -> None:
        from orchestrator.storage.tables import write_plan

        plan = self.planned
        write_plan(self.run_dir.plan, plan.columns())
        self.run_dir.note({"references": plan.references()})

    # --- retrain -------------------------------------------------------------------------------------------------

    def _retrain(self) -> None:
        redo = self._quarantined() if self.retry_quarantined else set()
        for wave in waves(self.planned.works):
            self._retrain_missing(wave, "retrains", redo | self._lost_parents(wave))
        planned = {w.spec_id for w in self.planned.works}
        self.report.quarantined = tuple(sorted(planned & self._quarantined()))

    def _lost_parents(self, wave: Sequence[Work]) -> set[str]:
        """Finished works whose weights a retrain still to do starts from, and which are gone."""
        finished = self._finished()
        wanted = {w.spec.parent["spec_id"] for w in self.planned.works if w.spec.parent and w.spec_id not in finished}
        return self._without_weights(w for w in wave if w.spec_id in wanted)

    def _finished(self) -> set[str]:
        """Spec ids that are not to be trained again."""
        return self.ledger.index().rows.keys() - (self._quarantined() if self.retry_quarantined else set())

    def _quarantined(self) -> set[str]:
        return {spec_id for spec_id, entry in self.ledger.index().rows.items() if entry.status == "quarantined"}

    def _retrain_missing(self, works: Sequence[Work], label: str, redo: Iterable[str] = ()) -> None:
        finished = self.ledger.index().rows.keys() - set(redo)
        todo = [w for w in works if w.spec_id not in finished]
        if not todo:
            return
        backend = self.backend()
        compute = self.experiment.settings.compute
        scheduler = Scheduler([w.spec_id for w in todo], Budgets(compute.retries, compute.preemptions))
        self.progress.begin(label, len(works), len(works) - len(todo))
        result = drive(
            scheduler,
            backend,
            self.ledger.publisher(todo),
            {w.spec_id: w for w in todo},
            stop=self.stop,
            code_version=code_version(),
            progress=lambda p: self.progress.update(len(works) - len(todo) + p.done, len(works), _note(p)),
        )
        self.progress.end()
        n_done = result.n_ok + result.n_diverged + result.n_quarantined
        self.report.retrained += n_done
        self.report.attempts += result.n_attempts
        if not result.complete:
            raise Stopped(f"{label}: stopped ({result.stopped}); {n_done} of {len(todo)} done and kept")

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
        """The tables, from the ledger."""
        return self.experiment.campaign.results(self.scored, self.planned, self.rows)

    def _analyse(self) -> None:
        self.write_results()

    def write_results(self) -> None:
        """Write results/ from the ledger."""
        for name, text in self.results.csv().items():
            write_file(self.run_dir.results / name, text.encode())
        quarantined = (s for s, row in self.rows.items() if row.outcome.status == "quarantined")
        self.report.quarantined = tuple(sorted(quarantined))


def _note(progress: Any) -> str:
    parts = []
    if progress.failed:
        parts.append(f"{progress.failed} attempts failed")
    if progress.quarantined:
        parts.append(f"{progress.quarantined} quarantined")
    if progress.eta_s is not None:
        parts.append(f"about {duration(progress.eta_s)} left")
    return ", ".join(parts)
