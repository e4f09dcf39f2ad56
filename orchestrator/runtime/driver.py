"""The shell loop: events go to the scheduler, and what it asks for is done; training and writing go on together."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.records import LedgerRow, Outcome, Status, Work
from orchestrator.runtime.backend import Backend
from orchestrator.runtime.clock import Clock, SystemClock
from orchestrator.runtime.progress import Progress, ProgressListener, ProgressMeter
from orchestrator.runtime.publisher import LedgerUnwritableError, Publisher, WriteRows
from orchestrator.runtime.stop import StopSignal, stop_on_signals
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    FailureKind,
    Finish,
    Instruction,
    Publish,
    Published,
    StopRequested,
    Submit,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import Backoff
from orchestrator.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


class SpendMeter(Protocol):
    """What the machines cost. `reason`: which limit is reached, for people."""

    @property
    def reason(self) -> str: ...

    def tick(self, nodes: Sequence[Node]) -> float | None:
        """Charge these machines until now; seconds left until a limit at the present rate, None without limits."""
        ...


@dataclass(frozen=True)
class DriveOptions:
    """How the driver waits: longest blocking wait, time between progress reports, waiting between failed writes."""

    poll_s: float = 0.1
    progress_s: float = 0.5
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True)
class DriveResult:
    """How a session ended. `complete`: every spec is in the ledger; else `stopped` says why not."""

    complete: bool
    stopped: str | None
    n_total: int
    n_finished: int  # in the ledger now, earlier sessions included
    n_ok: int  # brought into the ledger by this session, by status
    n_diverged: int
    n_quarantined: int
    n_attempts: int
    failures: Mapping[FailureKind, int]  # attempts charged to a budget, by cause
    seconds: float


def drive(
    scheduler: Scheduler,
    backend: Backend,
    ledger_publish: WriteRows,
    works: Mapping[str, Work],
    progress: ProgressListener | None,
    stop: StopSignal,
    clock: Clock | None = None,
    *,
    code_version: str,
    options: DriveOptions | None = None,
    meter: SpendMeter | None = None,
) -> DriveResult:
    """Run the scheduler on a backend until everything is in the ledger, or a stop was asked for.

    `ledger_publish` makes rows durable or raises; it runs in a thread of its own. The backend is started if there is
    anything to do; closing it is the owner's affair, except on a stop: then it is closed and what is finished is
    published. If the backend breaks, what is finished is published before its exception is raised.

    Raises LedgerUnwritableError if the ledger stays unwritable, KeyboardInterrupt on a second Ctrl-C.
    """
    clock, options = clock or SystemClock(), options or DriveOptions()
    results = _Results(scheduler, works, clock, code_version)
    publisher = Publisher(ledger_publish, results.rows, options.backoff, clock)
    meter = ProgressMeter(scheduler, progress, clock, options.progress_s)
    session = _Session(scheduler, backend, works, results, publisher, meter, stop, options.poll_s)
    try:
        return session.run()
    finally:
        publisher.close()


@dataclass
class _Results:
    """What the scheduler does not keep: outcomes, from arrival until their part is durable, and counts of them."""

    scheduler: Scheduler
    works: Mapping[str, Work]
    clock: Clock
    code_version: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failed_s: dict[str, float] = field(default_factory=dict)
    published: Counter[Status] = field(default_factory=Counter)

    def failed(self, spec_id: str, seconds: float) -> None:
        self.failed_s[spec_id] = self.failed_s.get(spec_id, 0.0) + seconds

    def rows(self, spec_ids: Sequence[str]) -> list[LedgerRow]:
        committed_at = self.clock.utc().isoformat(timespec="microseconds")
        return [self.row(spec_id, committed_at) for spec_id in spec_ids]

    def row(self, spec_id: str, committed_at: str) -> LedgerRow:
        work, attempts = self.works[spec_id], self.scheduler.attempts(spec_id)
        return LedgerRow(self.outcome(spec_id), work.spec.json, work.edit, attempts, committed_at, self.code_version)

    def outcome(self, spec_id: str) -> Outcome:
        if spec_id in self.outcomes:
            return self.outcomes[spec_id]
        error = self.scheduler.quarantined[spec_id]
        return Outcome(spec_id, "quarantined", error=error, seconds=self.failed_s.get(spec_id, 0.0))

    def forget(self, spec_ids: Sequence[str]) -> None:
        for spec_id in spec_ids:
            self.published[self.outcome(spec_id).status] += 1
            self.outcomes.pop(spec_id, None)
            self.failed_s.pop(spec_id, None)


@dataclass
class _Session:
    scheduler: Scheduler
    backend: Backend
    works: Mapping[str, Work]
    results: _Results
    publisher: Publisher
    meter: ProgressMeter
    stop: StopSignal
    poll_s: float
    n_attempts: int = 0
    finish: Finish | None = None
    broken: Exception | None = None

    def run(self) -> DriveResult:
        if self.scheduler.complete:
            return self.result()
        self.backend.start()
        while self.finish is None:
            for event in self.next_events():
                self.handle(event)
            self.meter.report()
        self.meter.report(now=True)
        if self.broken:
            raise self.broken
        return self.result()

    def next_events(self) -> Sequence[Event]:
        if self.stop.reason and not self.scheduler.stopping:
            return [StopRequested(self.stop.reason)]
        ended = self.publisher.poll()
        if ended:
            return ended
        if self.scheduler.stopping or not self.scheduler.count("waiting") + self.scheduler.count("running"):
            self.publisher.wait(self.poll_s)
            return []
        return self.backend_events()

    def backend_events(self) -> Sequence[Event]:
        try:
            with self.stop.interruptible(getattr(self.backend, "trains_in_wait", False)):
                return self.backend.wait(self.poll_s)
        except KeyboardInterrupt:
            if self.stop.n_signals > 1:
                raise
            self.stop.request("interrupted")
        except Exception as error:
            self.backend_broke(error)
        return []

    def backend_broke(self, error: Exception) -> None:
        log.error("the backend failed (%s: %s); publishing what is finished", type(error).__name__, error)
        self.broken = self.broken or error
        self.stop.request(f"backend failed: {error}")

    def handle(self, event: Event) -> None:
        self.note(event)
        for instruction in self.scheduler.handle(event):
            self.execute(instruction)
        if isinstance(event, StopRequested):
            log.info("stopping: %s", event.reason)
            self.close_backend()

    def close_backend(self) -> None:
        try:
            self.backend.close()
        except Exception as error:
            self.backend_broke(error)

    def note(self, event: Event) -> None:
        """What the scheduler does not keep: outcomes, names of workers, times."""
        match event:
            case Completed(_, outcome) if self.scheduler.accepts(outcome.spec_id):
                self.results.outcomes[outcome.spec_id] = outcome
                self.meter.trained(outcome.seconds)
            case Failed(worker, spec_id, kind, message, seconds):
                self.results.failed(spec_id, seconds)
                log.warning("retrain %s failed on %s (%s): %s", spec_id, worker, kind, message)
            case WorkerJoined(worker):
                log.info("worker %s joined", worker)
            case WorkerLost(worker, kind, message):
                log.warning("worker %s lost (%s): %s", worker, kind, message)
            case Published(spec_ids):
                self.results.forget(spec_ids)

    def execute(self, instruction: Instruction) -> None:
        match instruction:
            case Submit(worker, spec_id, attempt):
                self.submit(worker, spec_id, attempt)
            case Publish(spec_ids):
                self.publisher.publish(spec_ids)
            case Finish():
                self.finish = instruction

    def submit(self, worker: str, spec_id: str, attempt: int) -> None:
        self.n_attempts += 1
        try:
            self.backend.submit(worker, self.works[spec_id], attempt)
        except Exception as error:
            self.backend_broke(error)

    def result(self) -> DriveResult:
        return DriveResult(
            complete=self.scheduler.complete,
            stopped=self.stop.reason if not self.scheduler.complete else None,
            n_total=len(self.scheduler),
            n_finished=self.scheduler.count("finished"),
            n_ok=self.results.published["ok"],
            n_diverged=self.results.published["diverged"],
            n_quarantined=self.results.published["quarantined"],
            n_attempts=self.n_attempts,
            failures=dict(self.scheduler.failures),
            seconds=self.meter.elapsed_s,
        )


__all__ = [
    "Clock",
    "DriveOptions",
    "DriveResult",
    "LedgerUnwritableError",
    "Progress",
    "ProgressListener",
    "StopSignal",
    "SystemClock",
    "drive",
    "stop_on_signals",
]
