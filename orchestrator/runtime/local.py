"""The in-process twin: the same worker functions, without Ray, one retrain at a time in the calling thread."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.records import Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import Alive, ScoreBlock, ScoreJob, WorkerContext
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Completed, Event, Failed, WorkerJoined
from tasks.base import Numerics
from tasks.errors import RefitError

if TYPE_CHECKING:
    from influence.scoring import Scorer

WORKER = "local"


class LocalBackend:
    """A pool of one worker, which is the calling thread: `wait` trains.

    `timeout_s`, of a retrain or a score range, is kept by SIGALRM, so only in the main thread; elsewhere it takes as long as it takes. A process
    that dies takes the driver with it. KeyboardInterrupt passes through `wait`: it is a wish to stop, not a failure.
    Start it in the thread that waits: some settings of torch belong to a thread.
    """

    trains_in_wait = True  # the driver may cut `wait` short with KeyboardInterrupt when a stop is asked for

    def __init__(self, context: WorkerContext, timeout_s: float | None = None):
        self._context = context
        self._timeout_s = timeout_s
        self._events: list[Event] = []
        self._queue: deque[tuple[Work, int]] = deque()

    def start(self) -> None:
        """Configure this process; its worker joins (again, if called again)."""
        worker.configure(self._context)
        self._events.append(WorkerJoined(WORKER))

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """There is one worker, whatever is wanted."""

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Queue one retrain. Raises ValueError if the worker is unknown or has one already."""
        if worker != WORKER or self._queue:
            raise ValueError(f"worker {worker!r} is not an idle worker of this backend")
        self._queue.append((work, attempt))

    def give_back(self, worker: str) -> None:
        """Nothing: whoever could ask is the thread that trains."""

    def release(self, worker: str) -> None:
        """Nothing: the worker is this process."""

    def nodes(self) -> list[Node]:
        """This machine, with the GPU that is used of it."""
        return [Node("local", "local", n_gpus=float(self._context.numerics.device.startswith("cuda")))]

    def wait(self, timeout_s: float) -> list[Event]:
        """Events at hand; else the queued retrain, however long it takes; else [] after `timeout_s`."""
        if self._events:
            events, self._events = self._events, []
            return events
        if self._queue:
            return [self._attempt(*self._queue.popleft())]
        time.sleep(timeout_s)
        return []

    def _attempt(self, work: Work, number: int) -> Event:
        started = time.perf_counter()
        try:
            with time_limit(self._timeout_s):
                return Completed(WORKER, worker.retrain(self._context, work, WORKER, attempt=number))
        except Exception as error:
            seconds = time.perf_counter() - started
            return Failed(WORKER, work.spec_id, worker.classify(error), worker.describe(error), seconds)

    def score(self, job: ScoreJob, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Blocks in the order of `job.ranges`; `alive` is called before each. Raises RefitError if one takes too long."""
        scorer = worker.make_scorer(self._context, job)
        for start, stop in job.ranges:
            alive()
            yield self._score(scorer, start, stop)

    def _score(self, scorer: Scorer, start: int, stop: int) -> ScoreBlock:
        try:
            with time_limit(self._timeout_s):
                return worker.score_block(self._context, scorer, start, stop)
        except TimeoutError as error:
            raise RefitError(f"scoring train rows {start} to {stop - 1}: {error}") from error

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """`numerics` with this machine's device model and torch version."""
        return worker.resolve_numerics(numerics)

    def close(self) -> None:
        """Forget what is queued; idempotent."""
        self._queue.clear()
        self._events.clear()


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """Raise TimeoutError in the body after `limit_s`; no limit outside the main thread. An outer timer goes on."""
    if limit_s is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(number: int, frame: object) -> None:
        raise TimeoutError(f"still running after {limit_s:g} s")

    started = time.monotonic()
    outer_handler = signal.signal(signal.SIGALRM, on_alarm)
    outer_s, outer_interval_s = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        if outer_s:
            left_s = max(outer_s - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left_s, outer_interval_s)
