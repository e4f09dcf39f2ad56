"""What a backend is: the in-process twin and Ray are interchangeable, and pass one contract suite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from orchestrator.records import Work
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Event
from tasks.base import Numerics
from tasks.recipe import KeepCheckpoint, SnapshotStore
from tasks.sources import Sources
from tasks.task import Task

Alive = Callable[[], None]  # called at least once a second while nothing comes; it may raise, and then the wait is over


class CheckpointSink(Protocol):
    """Where a worker stores weights while it trains, and reads those of a parent (implemented by orchestrator.storage.checkpoints)."""

    def keeper(self, spec_id: str) -> KeepCheckpoint: ...

    def load(self, spec_id: str, step: int) -> Mapping[str, np.ndarray]: ...

    def progress(self, spec_id: str) -> SnapshotStore: ...

    def may_have_progress(self, spec_id: str) -> bool: ...

    def require(self, key: str) -> None:
        """Raise RefitError unless the store, as this process sees it, has the key."""
        ...


@dataclass(frozen=True)
class WorkerContext:
    """All a worker needs, shipped once: the prepared task of every arm (data and base weights), numerics, and where checkpoints go.

    `task` is the first arm's; `tasks` holds them all by label where there are several. `observers`: the components that look
    at every retrain; each has `start(task, device) -> Observer`.
    """

    task: Task
    numerics: Numerics
    checkpoints: CheckpointSink | None = None
    faults: Mapping[str, str] = field(
        default_factory=dict
    )  # tests only: spec_id or "*" -> "raise" | "exit" | "hang" | "oom"
    tasks: Mapping[str, Task] = field(default_factory=dict)
    observers: tuple[Any, ...] = ()
    landmark: str = ""  # a key of the store that the driver sees: who does not see it would write where nobody reads
    sources: Sources = field(
        default_factory=dict
    )  # of parts that are not built in: what a worker runs must be the same
    snapshot_s: float | None = None  # a retrain that has run for this long is stored about as often; None: never

    def task_of(self, arm: str) -> Task:
        """The task of an arm."""
        return self.tasks[arm] if self.tasks else self.task


@dataclass(frozen=True)
class ScoreJob:
    """Score these train rows for all queries by several methods in one pass over gradients.

    `ranges` are [start, stop) rows of the train split. They are fixed by the data, never by the number of workers: same bits whatever the pool.
    """

    methods: Mapping[str, Method]  # label -> method; only those with something to compute
    prepared: Mapping[str, Any]
    checkpoints: Sequence[Checkpoint]
    queries: QueryBlock
    ranges: Sequence[tuple[int, int]]
    arm: str = ""


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of train rows [start, stop): label -> float32 [n_queries, stop - start].

    `diagnostics`: label -> what a method has to say of its own work (plain JSON values), the same in every block.
    """

    start: int
    stop: int
    scores: Mapping[str, np.ndarray]
    seconds: float = 0.0
    device: str = ""
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """A pool of workers. One thread drives it; `wait` is the only call that blocks."""

    def start(self) -> None:
        """Bring the pool up; `WorkerJoined` events follow from `wait`."""
        ...

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """How many workers there is work for: the pool grows towards it, a few pending requests at a time, never above its own limit
        nor `at_most`, which is what a budget bears.

        It never shrinks by this, but for requests that have no place yet: workers go by `release`.
        """
        ...

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Hand one retrain to a worker that is idle."""
        ...

    def give_back(self, worker: str) -> None:
        """Ask a worker to store how far its retrain is, if its recipe can, and to stop; nothing happens if it cannot, or has ended."""
        ...

    def release(self, worker: str) -> None:
        """Let a worker go, whatever it is doing, so that the node under it can go; no event follows."""
        ...

    def nodes(self) -> list[Node]:
        """The machines that are there now, busy or not: what the bill is for."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """Events since the last call, in the order they came; blocks until there is one or `timeout_s` has passed."""
        ...

    def score(self, job: ScoreJob, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Blocks in whatever order they are done; each range exactly once. A lost gradient worker's ranges are recomputed elsewhere.

        What `alive` raises is passed on, and the ranges in flight are given up.
        """
        ...

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """`numerics` with what only a worker knows filled in (device model). What `alive` raises while none is there is passed on."""
        ...

    def close(self) -> None:
        """Stop what this backend started, and nothing else; idempotent."""
        ...


def ranges_of(n_train: int, rows_per_shard: int) -> list[tuple[int, int]]:
    """Fixed-size score shards covering [0, n_train)."""
    return [(start, min(start + rows_per_shard, n_train)) for start in range(0, n_train, rows_per_shard)]


__all__: Iterable[str] = ["Backend", "CheckpointSink", "ScoreBlock", "ScoreJob", "WorkerContext", "ranges_of"]
