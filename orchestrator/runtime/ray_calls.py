"""The driver's books: which worker is doing what, and what its answers mean as events. Imports no ray."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import Outcome
from orchestrator.runtime.ray_worker import Answer, Failure, Joined, Lost
from orchestrator.scheduling.events import Completed, Event, Failed, FailureKind, WorkerJoined, WorkerLost
from tasks.errors import RefitError

SCORE_ATTEMPTS = 3
UNLIMITED = Lost("timeout", "")
FREE_KINDS: tuple[FailureKind, ...] = ("preempted", "node_lost")  # nobody's fault: never charged
Range = tuple[int, int]
Task = str | Range  # a spec id, or train rows to score


@dataclass
class Slot:
    """One actor as the driver sees it: at most one call in flight, due before `deadline` (monotonic seconds)."""

    name: str
    actor: Any
    call: Any = None
    task: Task | None = None
    deadline: float = math.inf
    overdue: Lost = UNLIMITED
    joined: Joined | None = None
    in_doubt: str = ""
    has_job: bool = False

    def begin(self, call: Any, task: Task | None = None) -> None:
        """A call is in flight."""
        self.call, self.task = call, task

    def limit(self, deadline: float, overdue: Lost) -> None:
        """Past `deadline` the worker is given up, as `overdue`."""
        self.deadline, self.overdue = deadline, overdue

    def finish(self, has_job: bool) -> None:
        """The call was answered; `has_job`: the worker holds the score job."""
        self.call, self.task, self.deadline, self.has_job = None, None, math.inf, has_job

    @property
    def is_idle(self) -> bool:
        return self.joined is not None and self.call is None


@dataclass(frozen=True)
class Happening:
    """An answer, or a loss, with the task that it concerns."""

    worker: str
    task: Task | None
    what: Answer | Lost

    def event(self) -> Event:
        """The same for the scheduler."""
        if isinstance(self.what, Joined):
            return WorkerJoined(self.worker)
        if isinstance(self.what, Lost):
            return WorkerLost(self.worker, self.what.kind, self.what.message)
        if isinstance(self.what, Failure):
            return Failed(self.worker, str(self.task), self.what.kind, self.what.message, self.what.seconds)
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
