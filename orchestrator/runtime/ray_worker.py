"""The code that runs inside an actor, and the messages that it returns to the driver. Imports no ray."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.records import Outcome, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import Job, ScoreBlock, WorkerContext
from orchestrator.runtime.recycling import RecyclePolicy, device_memory, free_cached_memory
from orchestrator.scheduling.events import FailureKind
from tasks.base import Numerics

Result = TypeVar("Result")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Place:
    """An actor's first answer: the node that it runs on and its GPUs, each as `<node>:<id>`."""

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """An actor's second answer: it is ready for work."""

    pid: int


@dataclass(frozen=True)
class Failure:
    """A failed call in a worker whose process continues. It holds plain strings, so that no exception is pickled."""

    kind: FailureKind
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Attempted:
    """The result of a retrain. `must_be_replaced`: the recycling policy ends this worker process."""

    result: Outcome | Failure
    must_be_replaced: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker process has ended, or is given up."""

    kind: FailureKind
    message: str


Answer = Place | Joined | Failure | Attempted | ScoreBlock | Numerics


class WorkerProcess:
    """One long-lived process that holds the task in memory and does one retrain or one score range at a time.

    `give_back` is called in another thread than the other methods.
    """

    _context: WorkerContext
    _performer: worker.Performer | None = None

    def __init__(self, name: str, threads: int, recycle_after: int | None = None, device_share: float = 1.0):
        self._name = name
        self._recycling = RecyclePolicy(recycle_after, device_share)
        self._stop_requests = StopRequests()
        for variable in THREAD_VARIABLES:  # torch reads them at import, which happens when the context is unpickled
            os.environ[variable] = str(threads)

    def get_ready(self, context: WorkerContext) -> Joined | Failure:
        """Configure the process for `context`."""

        def configure() -> Joined:
            worker.configure(context)
            return Joined(os.getpid())

        self._context = context
        return attempt(configure)

    def probe(self, numerics: Numerics) -> Numerics | Failure:
        """Return `numerics` with this process's device model, torch version and environment variables."""
        return attempt(lambda: worker.resolve_numerics(numerics))

    def retrain(self, ticket: int, work: Work, number: int) -> Attempted:
        """Run attempt `number` of a spec in this session; `ticket` counts the retrains on this worker."""
        stop = self._stop_requests.begin(ticket)
        result = attempt(lambda: worker.retrain(self._context, work, self._name, stop, number))
        must_be_replaced = self._recycling.after(*device_memory())
        if self._recycling.device_share < 1:
            free_cached_memory()
        return Attempted(result, must_be_replaced)

    def give_back(self, ticket: int) -> None:
        """Request that the retrain with number `ticket` stores a snapshot, if its recipe can, and stops."""
        self._stop_requests.request(ticket)

    def score(self, job: Job | None, start: int, stop: int) -> ScoreBlock | Failure:
        """Compute the range [start, stop) of `job`; None means the previous job, which is still in memory, as are its query gradients."""

        def score_range() -> ScoreBlock:
            if job is not None:
                self._performer = worker.ready_for(self._context, job)
            assert self._performer is not None
            return worker.score_block(self._context, self._performer, start, stop)

        return attempt(score_range)

    def release(self) -> None:
        """Free the memory that scoring holds."""
        self._performer = None
        free_cached_memory()


class StopRequests:
    """Requests to stop a retrain. Retrains are numbered 1, 2, 3 ..., since a request may arrive before its retrain begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._requested = 0, 0
        self._event = threading.Event()

    def begin(self, ticket: int) -> threading.Event:
        """Return the stop event of retrain `ticket`; it is already set if the request arrived first."""
        with self._lock:
            self._running, self._event = ticket, threading.Event()
            if self._requested == ticket:
                self._event.set()
            return self._event

    def request(self, ticket: int) -> None:
        """Set the stop event of retrain `ticket`; this has no effect if the retrain has ended."""
        with self._lock:
            self._requested = max(self._requested, ticket)
            if self._running == ticket:
                self._event.set()


def attempt(function: Callable[[], Result]) -> Result | Failure:
    """Return the result of `function`, or its exception as a Failure."""
    started = time.perf_counter()
    try:
        return function()
    except Exception as error:
        return Failure(worker.classify(error), worker.describe(error), time.perf_counter() - started)
