"""What runs inside an actor, and what the driver sees of it. Imports no ray."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from orchestrator.records import Outcome, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import ScoreBlock, ScoreJob, WorkerContext
from orchestrator.runtime.wear import Wear, device_memory, free_cached_memory
from orchestrator.scheduling.events import FailureKind
from tasks.base import Numerics

if TYPE_CHECKING:
    from influence.scoring import Scorer

Result = TypeVar("Result")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Place:
    """A worker's first answer: where it is. `gpus` are the ids it was given, as `<node>:<id>`."""

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """Its second: it is ready for work."""

    pid: int


@dataclass(frozen=True)
class Failure:
    """An attempt failed in a worker that lives on: plain strings, so that no exception is pickled."""

    kind: FailureKind
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Attempted:
    """A retrain has ended. `is_worn`: the process has done its share, and should be replaced."""

    result: Outcome | Failure
    is_worn: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker is gone."""

    kind: FailureKind
    message: str


Answer = Place | Joined | Failure | Attempted | ScoreBlock | Numerics


class WorkerProcess:
    """One long-lived process with the task in memory; does one retrain or one score range at a time.

    `give_back` is called from another thread than the rest.
    """

    _context: WorkerContext
    _scorer: Scorer | None = None

    def __init__(self, name: str, threads: int, recycle_after: int | None = None, device_share: float = 1.0):
        self._name = name
        self._wear = Wear(recycle_after, device_share)
        self._asked = GiveBacks()
        for variable in THREAD_VARIABLES:  # read when torch is imported, which unpickling the context may do
            os.environ[variable] = str(threads)

    def get_ready(self, context: WorkerContext) -> Joined | Failure:
        """Configure the process for `context`."""

        def configure() -> Joined:
            worker.configure(context)
            return Joined(os.getpid())

        self._context = context
        return attempt(configure)

    def probe(self, numerics: Numerics) -> Numerics | Failure:
        """`numerics` with this process's device model and torch version."""
        return attempt(lambda: worker.resolve_numerics(numerics))

    def retrain(self, ticket: int, work: Work, number: int) -> Attempted:
        """Attempt `number` of one spec in this session; `ticket` is its number on this worker."""
        asked = self._asked.begin(ticket)
        result = attempt(lambda: worker.retrain(self._context, work, self._name, asked, number))
        is_worn = self._wear.after(*device_memory())
        if self._wear.device_share < 1:
            free_cached_memory()
        return Attempted(result, is_worn)

    def give_back(self, ticket: int) -> None:
        """Ask the retrain that has `ticket` to store how far it is, if its recipe can, and to stop."""
        self._asked.ask(ticket)

    def score(self, job: ScoreJob | None, start: int, stop: int) -> ScoreBlock | Failure:
        """Train rows [start, stop) of `job`, or of the one before if None: what its ranges share is computed once."""

        def score_range() -> ScoreBlock:
            if job is not None:
                self._scorer = worker.make_scorer(self._context, job)
            assert self._scorer is not None
            return worker.score_block(self._context, self._scorer, start, stop)

        return attempt(score_range)

    def release(self) -> None:
        """Give back what scoring holds in memory."""
        self._scorer = None
        free_cached_memory()


class GiveBacks:
    """Which attempt was asked to stop. The two threads that meet here come in either order: attempts have numbers, 1, 2, 3 ..."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._asked = 0, 0
        self._event = threading.Event()

    def begin(self, ticket: int) -> threading.Event:
        """The event of attempt `ticket`, set already if the question came first."""
        with self._lock:
            self._running, self._event = ticket, threading.Event()
            if self._asked == ticket:
                self._event.set()
            return self._event

    def ask(self, ticket: int) -> None:
        """Set the event of attempt `ticket`; of one that has ended, nothing."""
        with self._lock:
            self._asked = max(self._asked, ticket)
            if self._running == ticket:
                self._event.set()


def attempt(function: Callable[[], Result]) -> Result | Failure:
    """What `function` returns, or the Failure its exception amounts to."""
    started = time.perf_counter()
    try:
        return function()
    except Exception as error:
        return Failure(worker.classify(error), worker.describe(error), time.perf_counter() - started)
