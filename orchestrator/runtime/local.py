"""The in-process backend: it runs the worker functions without Ray, one retrain at a time in the calling thread."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.records import Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import Alive, Job, ScoreBlock, WorkerContext
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Completed, Event, Failed, WorkerJoined
from tasks.base import Numerics
from tasks.errors import RefitError

WORKER = "local"


class LocalBackend:
    """A pool of one worker, which is the calling thread: `wait` trains.

    `timeout_s` limits a retrain or a score range by SIGALRM, so it has an effect in the main thread only. If the worker's
    process dies, the driver dies with it. KeyboardInterrupt passes through `wait`, since it requests a stop and is not a
    failure. `start` must be called in the thread that calls `wait`, because some settings of torch apply to one thread.
    """

    trains_in_wait = True  # so the driver may interrupt `wait` with KeyboardInterrupt when a stop is requested

    def __init__(self, context: WorkerContext, timeout_s: float | None = None):
        self._context = context
        self._timeout_s = timeout_s
        self._events: list[Event] = []
        self._queue: deque[tuple[Work, int]] = deque()

    def start(self) -> None:
        """Configure this process; every call makes the next `wait` report its worker as joined."""
        worker.configure(self._context)
        self._events.append(WorkerJoined(WORKER))

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """Do nothing: there is always one worker."""

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Queue one retrain. Raises ValueError if the worker is unknown or busy."""
        if worker != WORKER or self._queue:
            raise ValueError(f"worker {worker!r} is not an idle worker of this backend")
        self._queue.append((work, attempt))

    def give_back(self, worker: str) -> None:
        """Do nothing: the calling thread trains, so it cannot call this during a retrain."""

    def release(self, worker: str) -> None:
        """Do nothing: the worker is this process."""

    def nodes(self) -> list[Node]:
        """Return this machine as one node, with one GPU if the numerics use one."""
        return [Node("local", "local", n_gpus=float(self._context.numerics.device.startswith("cuda")))]

    def wait(self, timeout_s: float) -> list[Event]:
        """Return pending events; if there are none, run the queued retrain to its end; otherwise sleep for `timeout_s`."""
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

    def score(self, job: Job, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Yield the blocks in the order of `job.ranges`, calling `alive` before each.

        Raises RefitError if a block takes longer than `timeout_s`.
        """
        performer = worker.ready_for(self._context, job)
        for start, stop in job.ranges:
            alive()
            try:
                with time_limit(self._timeout_s):
                    block = worker.score_block(self._context, performer, start, stop)
            except TimeoutError as error:
                raise RefitError(f"{job.describe(start, stop)}: {error}") from error
            yield block

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """Return `numerics` with this machine's device model, torch version and environment variables."""
        return worker.resolve_numerics(numerics)

    def close(self) -> None:
        """Drop the queued retrain and pending events."""
        self._queue.clear()
        self._events.clear()


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """Raise TimeoutError in the body after `limit_s` seconds; there is no limit outside the main thread.

    A timer that was running before is continued afterwards.
    """
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
