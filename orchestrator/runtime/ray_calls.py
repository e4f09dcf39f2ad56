"""What the driver records of every actor: its state, its call in progress, and its answers as events. Imports no ray."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import Outcome
from orchestrator.runtime.backend import Job, ScoreBlock
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
# Losses that the task has not caused, so that they count towards no limit of attempts.
FREE_KINDS: tuple[FailureKind, ...] = ("preempted", "node_lost")
Range = tuple[int, int]
Task = str | Range  # a spec id, or train rows to score


@dataclass(frozen=True)
class Ending:
    """A worker must get no new task, because its node is removed in `seconds_left` seconds.

    `seconds_left` is infinite if the node stays and only the process is replaced.
    """

    seconds_left: float


@dataclass(frozen=True)
class Left:
    """An idle worker was ended."""


@dataclass
class Slot:
    """One actor as the driver sees it, with at most one call in progress, due before `deadline` (monotonic seconds).

    The actor is requested, then placed on a node (`place`), then joins. `ticket` counts the retrains handed to it.
    `unreachable` is the error message if the connection to it broke. `has_job`: it holds the score job in memory.
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
    unreachable: str = ""
    has_job: bool = False
    ticket: int = 0
    is_ending: bool = False  # an Ending was reported, so it must get no new task
    must_be_replaced: bool = False

    def begin(self, call: Any, task: Task | None = None) -> None:
        """Record the call in progress."""
        self.call, self.task = call, task

    def limit(self, seconds: float, overdue: Lost) -> None:
        """Set the deadline of the call; a worker that misses it is lost for the reason `overdue`."""
        self.deadline, self.overdue = time.monotonic() + seconds, overdue

    def finish(self, has_job: bool) -> None:
        """Record that the call was answered; `has_job`: the worker holds the score job in memory."""
        self.call, self.task, self.deadline, self.has_job = None, None, math.inf, has_job

    def joined(self) -> Happening:
        """Return the report that this worker has joined."""
        return Happening(self.name, None, self.place)

    @property
    def is_idle(self) -> bool:
        return self.has_joined and self.call is None


@dataclass(frozen=True)
class Happening:
    """What happened to a worker, with the task that it concerns. `what` is a Place if the worker has joined."""

    worker: str
    task: Task | None
    what: Place | Outcome | Failure | ScoreBlock | Numerics | Ending | Left | Lost | None

    def event(self) -> Event:
        """Return this as an event for the scheduler."""
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
    """The ranges of a job that are not handed out yet. `left` counts the ranges without a result."""

    job: Job
    waiting: deque[Range]
    left: int
    failed: Counter[Range] = field(default_factory=Counter)

    @staticmethod
    def of(job: Job) -> RangeQueue:
        """Return a queue of all ranges of `job`, in order."""
        waiting = deque(job.ranges)
        return RangeQueue(job, waiting, len(waiting))

    def set_back(self, happening: Happening) -> None:
        """Put the range of a failure or a loss at the front of the queue. Raises RefitError if all attempts have failed."""
        task, what = happening.task, happening.what
        if not isinstance(what, (Failure, Lost)) or not isinstance(task, tuple):
            return
        self.failed[task] += what.kind not in FREE_KINDS
        if self.failed[task] >= SCORE_ATTEMPTS:
            raise RefitError(f"{self.job.describe(*task)} failed {SCORE_ATTEMPTS} times: {what.message}")
        self.waiting.appendleft(task)
