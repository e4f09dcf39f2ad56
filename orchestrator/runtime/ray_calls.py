"""The driver's books: which worker is doing what, and what its answers mean as events. Imports no ray."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import Outcome
from orchestrator.runtime.backend import ScoreBlock
from orchestrator.runtime.ray_worker import Failure, Lost, Place
from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    FailureKind,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from tasks.base import Numerics
from tasks.errors import RefitError

SCORE_ATTEMPTS = 3
UNLIMITED = Lost("timeout", "")
FREE_KINDS: tuple[FailureKind, ...] = ("preempted", "node_lost")  # nobody's fault: never charged
Range = tuple[int, int]
Task = str | Range  # a spec id, or train rows to score


@dataclass(frozen=True)
class Ending:
    """Nothing new for a worker: its node goes away in `seconds_left`; infinite: no node goes, the process is worn."""

    seconds_left: float


@dataclass(frozen=True)
class Left:
    """An idle worker was let go."""


@dataclass
class Slot:
    """One actor as the driver sees it: at most one call in flight, due before `deadline` (monotonic seconds).

    It waits for a place, gets one, joins; `ticket` counts the retrains it was given.
    """

    name: str
    actor: Any
    labels: Mapping[str, str]
    call: Any = None
    task: Task | None = None
    deadline: float = math.inf
    overdue: Lost = UNLIMITED
    place: Place | None = None
    has_joined: bool = False
    in_doubt: str = ""
    has_job: bool = False
    ticket: int = 0
    is_ending: bool = False  # its node is draining, or it is worn: nothing new for it, and whoever asks has been told
    is_worn: bool = False

    def begin(self, call: Any, task: Task | None = None) -> None:
        """A call is in flight."""
        self.call, self.task = call, task

    def limit(self, seconds: float, overdue: Lost) -> None:
        """Without an answer within `seconds` the worker is given up, as `overdue`."""
        self.deadline, self.overdue = time.monotonic() + seconds, overdue

    def finish(self, has_job: bool) -> None:
        """The call was answered; `has_job`: the worker holds the score job."""
        self.call, self.task, self.deadline, self.has_job = None, None, math.inf, has_job

    def joined(self) -> Happening:
        """It is there; said again whenever the pool is started again."""
        return Happening(self.name, None, self.place)

    @property
    def is_idle(self) -> bool:
        return self.has_joined and self.call is None


@dataclass(frozen=True)
class Happening:
    """An answer, a warning or a loss, with the task that it concerns. A place: it has joined there."""

    worker: str
    task: Task | None
    what: Place | Outcome | Failure | ScoreBlock | Numerics | Ending | Left | Lost | None

    def event(self) -> Event:
        """The same for the scheduler."""
        match self.what:
            case Place(_, gpus):
                return WorkerJoined(self.worker, gpus)
            case Ending(seconds_left):
                return WorkerDraining(self.worker, seconds_left)
            case Left():
                return WorkerLeft(self.worker)
            case Lost(kind, message):
                return WorkerLost(self.worker, kind, message)
            case Failure(kind, message, seconds):
                return Failed(self.worker, str(self.task), kind, message, seconds)
        assert isinstance(self.what, Outcome)
        return Completed(self.worker, self.what)


@dataclass
class RangeQueue:
    """Score ranges still to hand out; each is done once, however often it is lost on the way."""

    waiting: deque[Range]
    left: int
    failed: Counter[Range] = field(default_factory=Counter)

    @staticmethod
    def of(ranges: Iterable[Range]) -> RangeQueue:
        """A queue of all `ranges`, in order."""
        waiting = deque(ranges)
        return RangeQueue(waiting, len(waiting))

    def set_back(self, happening: Happening) -> None:
        """Put the range of a failure or a loss first in the queue. Raises RefitError if every attempt has failed."""
        task, what = happening.task, happening.what
        if not isinstance(what, (Failure, Lost)) or not isinstance(task, tuple):
            return
        self.failed[task] += what.kind not in FREE_KINDS
        if self.failed[task] >= SCORE_ATTEMPTS:
            rows = f"train rows {task[0]} to {task[1] - 1}"
            raise RefitError(f"scoring {rows} failed {SCORE_ATTEMPTS} times: {what.message}")
        self.waiting.appendleft(task)
