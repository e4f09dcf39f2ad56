"""Retrains the works that the ledger lacks, parents before the children that start from their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.campaigns.plan import waves
from orchestrator.config.blocks import ComputeConfig
from orchestrator.experiment.run_dir import code_version
from orchestrator.records import LedgerRow, Work
from orchestrator.runtime.driver import DriveResult, SpendMeter, StopSignal, drive
from orchestrator.runtime.publisher import WriteRows
from orchestrator.scheduling.eta import Durations
from orchestrator.scheduling.policies import Budgets, Timing
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.stages.pilot import class_of
from orchestrator.stages.workforce import Stopped, Workforce
from orchestrator.storage.checkpoints import CheckpointStore
from orchestrator.storage.ledger import LedgerIndex
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.story_file import StoryFile
from orchestrator.terminal.progress import Progress, duration


@dataclass
class Retraining:
    """Runs the missing retrains of a run and counts those of this session. `damaged`: names of damaged ledger parts already reported."""

    ledger: Ledgers
    checkpoints: CheckpointStore
    workforce: Workforce
    compute: ComputeConfig
    progress: Progress
    stop: StopSignal
    meter: SpendMeter | None = None
    durations: Durations = field(default_factory=Durations)
    n_retrained: int = 0
    n_attempts: int = 0
    damaged: set[str] = field(default_factory=set)

    def bring_in_waves(self, works: Sequence[Work], label: str, redo: Iterable[str] = ()) -> None:
        """Retrain the missing `works` and those in `redo`, parents before children.

        A finished parent is retrained if an unfinished child needs its weights and the store has lost them.
        """
        to_repeat = set(redo)
        for wave in waves(works):
            self.bring_in(wave, label, to_repeat | self._lost_parents(works, wave, to_repeat))

    def bring_in(self, works: Sequence[Work], label: str, redo: Iterable[str] = ()) -> None:
        """Retrain those of `works` that are not in the ledger, and those in `redo`. Raises Stopped; finished retrains are kept."""
        finished = self._index().rows.keys() - set(redo)
        todo = [work for work in works if work.spec_id not in finished]
        if not todo:
            return
        self.check_budget(label)
        self.progress.begin(label, len(works), len(works) - len(todo))
        result = self._drive(works, todo)
        self.progress.end()
        n_done = result.n_ok + result.n_diverged + result.n_quarantined
        self.n_retrained += n_done
        self.n_attempts += result.n_attempts
        if not result.complete:
            raise Stopped(f"{label}: stopped ({result.stopped}); {n_done} of {len(todo)} done and kept")

    def _index(self) -> LedgerIndex:
        """Return the index of the ledger. A part that was damaged after the run began is reported, since its retrains must be repeated."""
        index = self.ledger.index()
        for part in index.bad_parts:
            if part.name not in self.damaged:
                self.progress.say(f"ledger part {part.name} is damaged ({part.problem}): its retrains are repeated")
        self.damaged.update(part.name for part in index.bad_parts)
        return index

    def check_budget(self, label: str) -> None:
        """Raise Stopped if the run should stop or has reached a limit; called before any machine is started."""
        reason = self.stop.reason or (self.meter.reason if self.meter and self.meter.is_used_up else None)
        if reason:
            raise Stopped(f"{label}: stopped ({reason})")

    def _add_known_durations(self, works: Sequence[Work]) -> None:
        """Add the durations in the ledger to `durations`, for kinds that have none yet."""
        rows, unknown = self.ledger.index().rows, [w for w in works if self.durations.typical_s(_kind(w)) is None]
        for work in unknown:
            if (row := rows.get(work.spec_id)) and row.status == "ok":
                self.durations.add(_kind(work), row.seconds)

    def _drive(self, works: Sequence[Work], todo: Sequence[Work]) -> DriveResult:
        compute, n_all, n_before = self.compute, len(works), len(works) - len(todo)
        kinds = {work.spec_id: _kind(work) for work in todo}
        self._add_known_durations(works)
        scheduler = Scheduler(
            [work.spec_id for work in todo],
            Budgets(compute.retries, compute.preemptions),
            timing=Timing(idle_s=compute.idle_s),
            kind_of=kinds.__getitem__,
            durations=self.durations,
        )
        return drive(
            scheduler,
            self.workforce.backend(),
            self._publisher(todo),
            {work.spec_id: work for work in todo},
            stop=self.stop,
            code_version=code_version(),
            progress=lambda p: self.progress.update(n_before + p.done, n_all, _note(p)),
            meter=self.meter,
            write_stories=StoryFile(self.workforce.run_dir.story).append,
        )

    def _publisher(self, todo: Sequence[Work]) -> WriteRows:
        """Return a function that writes rows to the ledger and deletes the snapshots of their retrains."""
        write, after_s = self.ledger.publisher(todo), self.compute.snapshot_s

        def may_have(row: LedgerRow) -> bool:
            is_long = after_s is not None and row.outcome.seconds >= after_s
            return is_long or row.attempts > 1 or self.checkpoints.may_have_progress(row.spec_id)

        def publish(rows: Sequence[LedgerRow]) -> None:
            write(rows)
            self.checkpoints.clear_progress([row.spec_id for row in rows if may_have(row)])

        return publish

    def quarantined(self) -> set[str]:
        """Return the spec ids that the ledger holds as quarantined."""
        return {spec_id for spec_id, entry in self.ledger.index().rows.items() if entry.status == "quarantined"}

    def without_weights(self, works: Iterable[Work]) -> set[str]:
        """Return the spec ids of `works` whose weights must be kept but are not in the store."""
        return {w.spec_id for w in works if w.keep_steps and not self.checkpoints.has(w.spec_id, w.keep_steps)}

    def _lost_parents(self, works: Sequence[Work], wave: Sequence[Work], redo: set[str]) -> set[str]:
        """Return the finished works of a wave whose weights the store has lost and an unfinished retrain starts from."""
        finished = self.ledger.index().rows.keys() - redo
        wanted = {w.spec.parent["spec_id"] for w in works if w.spec.parent and w.spec_id not in finished}
        return self.without_weights(w for w in wave if w.spec_id in wanted)


def _kind(work: Work) -> str:
    return " ".join(map(str, class_of(work)))


def _note(progress: Any) -> str:
    parts = []
    if progress.failed:
        parts.append(f"{progress.failed} attempts failed")
    if progress.quarantined:
        parts.append(f"{progress.quarantined} quarantined")
    if progress.stuck:
        parts.append(f"{progress.stuck} running ten times as long as is typical (compute.timeout_s would end them)")
    if progress.eta_s is not None:
        parts.append(f"about {duration(progress.eta_s)} left")
    return ", ".join(parts)
