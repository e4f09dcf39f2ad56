"""Bringing works into the ledger: what is missing is retrained, by waves of parents and children."""

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
    """What a run retrains, and how much of it this session did."""

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
    damaged: set[str] = field(default_factory=set)  # parts of the ledger

    def bring_in_waves(self, works: Sequence[Work], label: str, redo: Iterable[str] = ()) -> None:
        """Retrain what is missing of `works`, parents before children, and parents whose weights a child still needs."""
        again = set(redo)
        for wave in waves(works):
            self.bring_in(wave, label, again | self._lost_parents(works, wave, again))

    def bring_in(self, works: Sequence[Work], label: str, redo: Iterable[str] = ()) -> None:
        """Retrain those of `works` that are not in the ledger, and those in `redo`. Raises Stopped; what is finished is kept."""
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
        """What the ledger holds; damage that was not there when the run began is told, since it costs retrains."""
        index = self.ledger.index()
        for part in index.bad_parts:
            if part.name not in self.damaged:
                self.progress.say(f"ledger part {part.name} is damaged ({part.problem}): its retrains are done again")
        self.damaged.update(part.name for part in index.bad_parts)
        return index

    def check_budget(self, label: str) -> None:
        """Raise Stopped if a stop was asked for or a limit is reached already, before a machine is asked for."""
        reason = self.stop.reason or (self.meter.reason if self.meter and self.meter.is_used_up else None)
        if reason:
            raise Stopped(f"{label}: stopped ({reason})")

    def _remember(self, works: Sequence[Work]) -> None:
        """Learn from the ledger how long works of each kind take, where nobody knows yet."""
        rows, new = self.ledger.index().rows, [w for w in works if self.durations.typical_s(_kind(w)) is None]
        for work in new:
            if (row := rows.get(work.spec_id)) and row.status == "ok":
                self.durations.add(_kind(work), row.seconds)

    def _drive(self, works: Sequence[Work], todo: Sequence[Work]) -> DriveResult:
        compute, n_all, n_before = self.compute, len(works), len(works) - len(todo)
        kinds = {work.spec_id: _kind(work) for work in todo}
        self._remember(works)
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
        """Writes rows, and deletes the snapshots of what they finish."""
        write, after_s = self.ledger.publisher(todo), self.compute.snapshot_s

        def may_have(row: LedgerRow) -> bool:
            is_long = after_s is not None and row.outcome.seconds >= after_s
            return is_long or row.attempts > 1 or self.checkpoints.may_have_progress(row.spec_id)

        def publish(rows: Sequence[LedgerRow]) -> None:
            write(rows)
            self.checkpoints.clear_progress([row.spec_id for row in rows if may_have(row)])

        return publish

    def quarantined(self) -> set[str]:
        """Spec ids that were given up."""
        return {spec_id for spec_id, entry in self.ledger.index().rows.items() if entry.status == "quarantined"}

    def without_weights(self, works: Iterable[Work]) -> set[str]:
        """Those of `works` whose weights are asked for and not in the store."""
        return {w.spec_id for w in works if w.keep_steps and not self.checkpoints.has(w.spec_id, w.keep_steps)}

    def _lost_parents(self, works: Sequence[Work], wave: Sequence[Work], redo: set[str]) -> set[str]:
        """Finished works of a wave whose weights a retrain still to do starts from, and which are gone."""
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
