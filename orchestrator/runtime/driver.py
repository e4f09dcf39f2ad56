"""The driver's loop: it passes events to the scheduler and carries out its instructions; training and writing overlap."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import Work
from orchestrator.runtime.backend import Backend
from orchestrator.runtime.clock import Clock, SystemClock
from orchestrator.runtime.progress import ProgressListener, ProgressMeter, SessionProgress
from orchestrator.runtime.publisher import LedgerUnwritableError, Publisher, WriteRows
from orchestrator.runtime.results import SessionResults
from orchestrator.runtime.spend_meter import SpendMeter
from orchestrator.runtime.stop import StopSignal, stop_on_signals
from orchestrator.runtime.story import StoryWriter, WriteStories
from orchestrator.scheduling.events import (
    ENDS_SESSION,
    Completed,
    Event,
    Failed,
    FailureKind,
    Finish,
    GiveBack,
    Instruction,
    Publish,
    Published,
    Release,
    StopRequested,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.scheduling.policies import Backoff
from orchestrator.scheduling.scheduler import Scheduler
from tasks.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriveOptions:
    """Waiting times of the driver.

    `poll_s`: longest time that one wait for events blocks. `progress_s`: time between two progress reports. `backoff`: delays before
    a failed write to the ledger is repeated.
    """

    poll_s: float = 0.1
    progress_s: float = 0.5
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True)
class DriveResult:
    """How a session ended. `complete`: every spec is in the ledger; otherwise `stopped` is the reason for stopping early."""

    complete: bool
    stopped: str | None
    n_total: int
    n_finished: int  # in the ledger now, including earlier sessions
    # The next three are the numbers of rows that this session wrote to the ledger, by status.
    n_ok: int
    n_diverged: int
    n_quarantined: int
    n_attempts: int
    n_duplicates: int  # the attempts among n_attempts that were second attempts of stragglers
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
    write_stories: WriteStories | None = None,
) -> DriveResult:
    """Run the scheduler on a backend until every spec is in the ledger, or the session stops early.

    `ledger_publish` makes rows durable or raises; it runs in its own thread. The backend is started if there is anything
    to retrain. The caller closes the backend, except when the session stops early (`stop` is set, or `meter` leaves no
    time): then the driver closes it and publishes the completed retrains. If the backend raises, completed retrains are
    published before the exception is raised again. `write_stories` stores the changes of state of every spec, for people to read.

    Raises LedgerUnwritableError if writes to the ledger keep failing (after a stop signal: for five seconds) or the store refuses
    them, InputError if a worker reports that the store refuses access or that a plugin was edited, KeyboardInterrupt on
    a second Ctrl-C.
    """
    clock, options = clock or SystemClock(), options or DriveOptions()
    results = SessionResults(scheduler, works, clock, code_version)
    publisher = Publisher(ledger_publish, results.rows, options.backoff, clock, stop.is_signalled)
    progress_meter = ProgressMeter(scheduler, progress, clock, options.progress_s)
    story = StoryWriter(scheduler, works, write_stories, clock)
    session = _DriveSession(
        scheduler, backend, works, results, publisher, progress_meter, story, stop, clock, meter, options.poll_s
    )
    try:
        return session.run()
    finally:
        story.write()
        publisher.close()


@dataclass
class _DriveSession:
    scheduler: Scheduler
    backend: Backend
    works: Mapping[str, Work]
    results: SessionResults
    publisher: Publisher
    progress: ProgressMeter
    story: StoryWriter
    stop: StopSignal
    clock: Clock
    meter: SpendMeter | None
    poll_s: float
    n_attempts: int = 0
    finish: Finish | None = None
    broken: Exception | None = None
    closed: bool = False

    def run(self) -> DriveResult:
        if self.scheduler.complete:
            return self.result()
        self.backend.start()
        self.tick()
        while self.finish is None:
            self.call(self.backend.want, self.scheduler.demand, self.affordable())
            events = self.next_events()
            self.tick()  # after the wait, so that these events have the present time
            for event in events:
                self.handle(event)
            self.progress.report()
            self.story.write_if_due()
        self.progress.report(now=True)
        if self.broken:
            raise self.broken
        return self.result()

    def affordable(self) -> float:
        """Return the number of workers that the budget allows; infinity without a meter.

        It is at least one, because a run whose budget is used up is stopped by the scheduler, not by this number.
        """
        return max(self.meter.workers_within(self.scheduler.durations.longest_s), 1) if self.meter else math.inf

    def tick(self) -> None:
        left_s = None
        if self.meter and not self.closed:
            nodes = self.call(self.backend.nodes)
            left_s = None if nodes is None else self.meter.tick(nodes)
        self.handle(Tick(self.clock.now(), left_s))

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
        log.error("the backend failed (%s: %s); publishing the completed retrains", type(error).__name__, error)
        self.broken = self.broken or error
        self.stop.request(f"backend failed: {error}")

    def end_session(self, worker: str, kind: FailureKind, message: str) -> None:
        if kind == "source_changed":
            self.broken = self.broken or InputError("plugins", f"on worker {worker}, {message}")
            self.stop.request(f"a plugin was edited: {message}")
            return
        problem = (
            f"worker {worker} cannot store its retrain: {message}; correct this and run the same command to resume"
        )
        self.broken = self.broken or InputError("store", problem)
        self.stop.request(f"the store refuses access: {message}")

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the backend and return its result; None if the backend is closed or the call raises."""
        if self.closed:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            self.backend_broke(error)
            return None

    def handle(self, event: Event) -> None:
        self.note(event)
        for instruction in self.scheduler.handle(event):
            self.execute(instruction)
        if isinstance(event, Published):
            self.story.write()
        early = self.finish is not None and not self.finish.complete
        if (early or self.scheduler.stopping) and not self.closed:
            log.info("stopping: %s", self.why())
            self.call(self.backend.close)
            self.closed = True

    def why(self) -> str | None:
        return self.stop.reason or (self.meter.reason if self.meter else None)

    def note(self, event: Event) -> None:
        """Record the parts of an event that the scheduler does not keep (outcomes, seconds), and log it."""
        match event:
            case Completed(_, outcome) if self.scheduler.accepts(outcome.spec_id):
                self.results.outcomes[outcome.spec_id] = outcome
                self.progress.trained(outcome.seconds)
            case Failed(worker, spec_id, kind, message, seconds):
                self.results.failed(spec_id, seconds)
                log.warning("retrain %s failed on %s (%s): %s", spec_id, worker, kind, message)
                if kind in ENDS_SESSION:
                    self.end_session(worker, kind, message)
            case WorkerJoined(worker):
                log.info("worker %s joined", worker)
            case WorkerLost(worker, kind, message):
                log.warning("worker %s lost (%s): %s", worker, kind, message)
            case WorkerDraining(worker, seconds_left) if math.isinf(seconds_left):
                log.info("worker %s gets no further retrain, since its process will be replaced", worker)
            case WorkerDraining(worker, seconds_left):
                log.info("worker %s gets no further retrain, since its node is removed in %.0f s", worker, seconds_left)
            case WorkerLeft(worker):
                log.info("worker %s left", worker)
            case Published(spec_ids):
                self.results.forget(spec_ids)

    def execute(self, instruction: Instruction) -> None:
        match instruction:
            case Submit(worker, spec_id, attempt):
                self.n_attempts += 1
                self.call(self.backend.submit, worker, self.works[spec_id], attempt)
            case GiveBack(worker, spec_id):
                log.info("worker %s must give retrain %s back", worker, spec_id)
                self.call(self.backend.give_back, worker)
            case Release(worker):
                log.info("worker %s is released", worker)
                self.call(self.backend.release, worker)
            case Publish(spec_ids):
                self.publisher.publish(spec_ids)
            case Finish():
                self.finish = instruction

    def result(self) -> DriveResult:
        return DriveResult(
            complete=self.scheduler.complete,
            stopped=None if self.scheduler.complete else self.why(),
            n_total=len(self.scheduler),
            n_finished=self.scheduler.count("finished"),
            n_ok=self.results.published["ok"],
            n_diverged=self.results.published["diverged"],
            n_quarantined=self.results.published["quarantined"],
            n_attempts=self.n_attempts,
            n_duplicates=self.scheduler.n_duplicates,
            failures=dict(self.scheduler.failures),
            seconds=self.progress.elapsed_s,
        )


__all__ = [
    "Clock",
    "DriveOptions",
    "DriveResult",
    "LedgerUnwritableError",
    "ProgressListener",
    "SessionProgress",
    "SpendMeter",
    "StopSignal",
    "SystemClock",
    "drive",
    "stop_on_signals",
]
