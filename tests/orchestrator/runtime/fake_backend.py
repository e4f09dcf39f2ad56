"""A pool of workers in virtual time: a seed decides how long retrains take and how they fail."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from orchestrator.records import Outcome, Work
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    FailureKind,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
)
from tasks.seeds import generator


class VirtualClock:
    """A clock whose time passes only when code waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def utc(self) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time)

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass(frozen=True)
class Chaos:
    """Probabilities per attempt.

    `late`: a lost worker still delivers its result afterwards. `drain`: the node of the worker is removed soon after
    the attempt started. `slow`: the attempt takes a hundred times as long.
    """

    seed: int = 0
    fail: float = 0.0
    lose: float = 0.0
    late: float = 0.0
    drain: float = 0.0
    slow: float = 0.0
    kinds: tuple[FailureKind, ...] = ("error", "timeout", "out_of_memory", "host_memory")
    lost_kinds: tuple[FailureKind, ...] = ("error", "preempted", "node_lost")


def numbers_of(work: Work) -> Outcome:
    """Return the outcome of a retrain, which depends on nothing but its spec."""
    outputs = generator(int(work.spec_id[:8], 16), "fake").normal(size=(3, 2)).astype(np.float32)
    return Outcome(work.spec_id, "ok", {"test": outputs}, {"loss": float(outputs.sum())}, seconds=1.0, worker="fake")


@dataclass
class FakeBackend:
    """A backend on which `n_at_start` workers (default: all) join at once.

    The pool grows by `want` up to `n_workers`, under new names, which takes two seconds, and shrinks by `release` and
    by losses. Two workers share a device, four a node; a worker alone on its device never runs out of memory.
    `resumes`: retrains can be given back, which takes a tenth of a second.
    """

    clock: VirtualClock
    n_workers: int = 3
    chaos: Chaos = Chaos()
    result_of: Callable[[Work], Outcome] = numbers_of
    on_wait: Callable[[], None] = lambda: None
    n_at_start: int | None = None
    resumes: bool = True
    submitted: list[tuple[str, str, int]] = field(default_factory=list)
    given_back: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self._pending: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._serial = itertools.count()
        self._doing: dict[str, tuple[str, int]] = {}  # busy worker -> spec, number of the event that ends it
        self.workers: set[str] = set()  # requested, and neither lost nor released

    def start(self) -> None:
        for _ in range(self.n_workers if self.n_at_start is None else self.n_at_start):
            self._join(0.0)

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        assert not self.closed, "asked a closed backend for workers"
        self.wanted.append(n_workers)
        while len(self.workers) < min(n_workers, at_most, self.n_workers):
            self._join(2.0)

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        assert worker in self.workers - self._doing.keys(), "submitted to a busy worker"
        self.submitted.append((worker, work.spec_id, attempt))
        rng = generator(self.chaos.seed, "attempt", int(work.spec_id[:8], 16), attempt)
        seconds, roll = float(rng.uniform(0.5, 2.0)), float(rng.uniform())
        outcome = replace(self.result_of(work), worker=worker)
        kind = self.chaos.kinds[int(rng.integers(len(self.chaos.kinds)))]
        if roll < self.chaos.fail and not (kind == "out_of_memory" and self._is_alone(worker)):
            event = Failed(worker, work.spec_id, kind, f"attempt {attempt}", seconds)
        elif self.chaos.fail <= roll < self.chaos.fail + self.chaos.lose:
            kind = self.chaos.lost_kinds[int(rng.integers(len(self.chaos.lost_kinds)))]
            event = WorkerLost(worker, kind, f"attempt {attempt}")
            if rng.uniform() < self.chaos.late:
                self._later(seconds + float(rng.uniform(0, 5)), Completed(worker, outcome))
        else:
            event = Completed(worker, outcome)
            seconds *= 100 if rng.uniform() < self.chaos.slow else 1
        self._doing[worker] = work.spec_id, self._later(seconds, event)
        if rng.uniform() < self.chaos.drain:
            self._drain(worker, float(rng.uniform(0.0, 20.0)))

    def give_back(self, worker: str) -> None:
        assert not self.closed, "gave back to a closed backend"
        self.given_back.append(worker)
        if self.resumes and worker in self._doing:
            spec_id, number = self._doing[worker]
            self._cancel(number)
            self._doing[worker] = spec_id, self._later(0.1, Failed(worker, spec_id, "preempted", "given back", 0.1))

    def release(self, worker: str) -> None:
        assert not self.closed, "released by a closed backend"
        self.released.append(worker)
        self.workers.remove(worker)
        if worker in self._doing:
            self._cancel(self._doing.pop(worker)[1])

    def nodes(self) -> list[Node]:
        """Return one node per four worker names that are in use or requested."""
        return [Node(name, "fake", 2.0) for name in sorted({_node_of(worker) for worker in self.workers})]

    def wait(self, timeout_s: float) -> list[Event]:
        assert not self.closed, "waited on a closed backend"
        self.on_wait()
        until = self.clock.time + timeout_s
        if not self._pending or self._pending[0][0] > until:
            self.clock.time = until
            return []
        self.clock.time = max(self.clock.time, self._pending[0][0])
        events = []
        while self._pending and self._pending[0][0] <= self.clock.time:
            _, _, event = heapq.heappop(self._pending)
            events += self._happened(event)
        return events

    def close(self) -> None:
        self.closed = True
        self._pending.clear()

    def _happened(self, event: Event) -> list[Event]:
        """Update the state by an event and return [event], or [] if its worker is already gone."""
        worker = getattr(event, "worker", "")
        if isinstance(event, WorkerLost | WorkerDraining | WorkerJoined) and worker not in self.workers:
            return []
        if isinstance(event, Completed | Failed | WorkerLost):
            self._doing.pop(worker, None)
        if isinstance(event, WorkerLost):
            self.workers.discard(worker)
        return [event]

    def _is_alone(self, worker: str) -> bool:
        return not any(_device_of(other) == _device_of(worker) for other in self._doing)

    def _drain(self, worker: str, seconds: float) -> None:
        """Announce that the node will be removed in `seconds`, and then remove it."""
        self._later(0.0, WorkerDraining(worker, seconds))
        self._later(seconds, WorkerLost(worker, "preempted", "the node went away"))

    def _join(self, seconds: float) -> None:
        worker = f"worker-{next(self._serial)}"
        self.workers.add(worker)
        self._later(seconds, WorkerJoined(worker, (_device_of(worker),)))

    def _later(self, seconds: float, event: Event) -> int:
        number = next(self._order)
        heapq.heappush(self._pending, (self.clock.time + seconds, number, event))
        return number

    def _cancel(self, number: int) -> None:
        self._pending = [entry for entry in self._pending if entry[1] != number]
        heapq.heapify(self._pending)


def _node_of(worker: str) -> str:
    return f"node-{int(worker.split('-')[1]) // 4}"


def _device_of(worker: str) -> str:
    return f"{_node_of(worker)}:{int(worker.split('-')[1]) % 4 // 2}"
