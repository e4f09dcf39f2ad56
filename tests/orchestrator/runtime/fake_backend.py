"""A pool of workers in virtual time: retrains take the time, and fail in the ways, that a seed decides."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from orchestrator.records import Outcome, Work
from orchestrator.scheduling.events import Completed, Event, Failed, FailureKind, WorkerJoined, WorkerLost
from tasks.seeds import generator


class VirtualClock:
    """Time that passes only when somebody waits."""

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
    """Probabilities per attempt. `late`: a lost worker still delivers its result afterwards."""

    seed: int = 0
    fail: float = 0.0
    lose: float = 0.0
    late: float = 0.0
    kinds: tuple[FailureKind, ...] = ("error", "timeout", "out_of_memory")
    lost_kinds: tuple[FailureKind, ...] = ("error", "preempted", "node_lost")


def numbers_of(work: Work) -> Outcome:
    """The outcome of a retrain that depends on nothing but its spec."""
    outputs = generator(int(work.spec_id[:8], 16), "fake").normal(size=(3, 2)).astype(np.float32)
    return Outcome(work.spec_id, "ok", {"test": outputs}, {"loss": float(outputs.sum())}, seconds=1.0, worker="fake")


@dataclass
class FakeBackend:
    """Workers join at once; a lost one is replaced, under a new name, two seconds later."""

    clock: VirtualClock
    n_workers: int = 3
    chaos: Chaos = Chaos()
    result_of: Callable[[Work], Outcome] = numbers_of
    on_wait: Callable[[], None] = lambda: None
    submitted: list[tuple[str, str, int]] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self._pending: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._names = (f"worker-{n}" for n in itertools.count())
        self._busy: set[str] = set()

    def start(self) -> None:
        for _ in range(self.n_workers):
            self._join(0.0)

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        assert worker not in self._busy, "submitted to a busy worker"
        self._busy.add(worker)
        self.submitted.append((worker, work.spec_id, attempt))
        rng = generator(self.chaos.seed, "attempt", int(work.spec_id[:8], 16), attempt)
        seconds, roll = float(rng.uniform(0.5, 2.0)), float(rng.uniform())
        outcome = replace(self.result_of(work), worker=worker)
        if roll < self.chaos.fail:
            kind = self.chaos.kinds[int(rng.integers(len(self.chaos.kinds)))]
            self._later(seconds, Failed(worker, work.spec_id, kind, f"attempt {attempt}", seconds))
        elif roll < self.chaos.fail + self.chaos.lose:
            kind = self.chaos.lost_kinds[int(rng.integers(len(self.chaos.lost_kinds)))]
            self._later(seconds, WorkerLost(worker, kind, f"attempt {attempt}"))
            self._join(seconds + 2.0)
            if rng.uniform() < self.chaos.late:
                self._later(seconds + float(rng.uniform(0, 5)), Completed(worker, outcome))
        else:
            self._later(seconds, Completed(worker, outcome))

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
            events.append(heapq.heappop(self._pending)[2])
        self._busy -= {event.worker for event in events if isinstance(event, Completed | Failed | WorkerLost)}
        return events

    def close(self) -> None:
        self.closed = True
        self._pending.clear()

    def _join(self, seconds: float) -> None:
        self._later(seconds, WorkerJoined(next(self._names)))

    def _later(self, seconds: float, event: Event) -> None:
        heapq.heappush(self._pending, (self.clock.time + seconds, next(self._order), event))
