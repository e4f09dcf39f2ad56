"""The interface of a backend. The in-process backend and the Ray backend are interchangeable, and the same tests check both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.solvers import Solution
from orchestrator.records import Work
from orchestrator.runtime.diagnosing import DiagnosticJob, Tables
from orchestrator.runtime.solving import SolveJob
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Event
from orchestrator.storage.solutions import SolvedRange
from tasks.base import Numerics
from tasks.recipe import KeepCheckpoint, SnapshotStore
from tasks.sources import Sources
from tasks.task import Task

Alive = Callable[[], None]  # called at least once a second during a wait; an exception that it raises ends the wait


class CheckpointSink(Protocol):
    """Stores the weights of a training and loads those of a parent; implemented by orchestrator.storage.checkpoints."""

    def keeper(self, spec_id: str) -> KeepCheckpoint: ...

    def load(self, spec_id: str, step: int) -> Mapping[str, np.ndarray]: ...

    def progress(self, spec_id: str) -> SnapshotStore: ...

    def may_have_progress(self, spec_id: str) -> bool: ...

    def require(self, key: str) -> None:
        """Check that this process finds `key` in the store. Raises RefitError if it does not."""
        ...


class SolutionSink(Protocol):
    """Stores solutions for ranges of queries, and loads those of any worker; implemented by orchestrator.storage.solutions."""

    def put(self, at: SolvedRange, solution: Solution) -> None: ...

    def load(self, at: SolvedRange) -> Solution | None: ...


@dataclass(frozen=True)
class WorkerContext:
    """Everything a worker needs; it is sent to each worker once.

    `task` is the prepared task (data and base weights) of the first arm; `tasks` holds the tasks of all arms by label if
    there are several. `observers`: components that observe every retrain; each has `start(task, device) -> Observer`.
    """

    task: Task
    numerics: Numerics
    checkpoints: CheckpointSink | None = None
    # For tests only: spec id or "*" -> "raise" | "exit" | "hang" | "oom" | "nan".
    faults: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    observers: tuple[Any, ...] = ()
    # A key that the driver has written to the store ("": no check). A worker that does not find this key uses another
    # store than the driver. It refuses to start, because the driver would not find its checkpoints.
    landmark: str = ""
    # Digests of the source files of plugins; a worker refuses to run other source than the driver has.
    sources: Sources = field(default_factory=dict)
    # Seconds of training after which the first snapshot is stored. orchestrator.runtime.snapshots computes the intervals
    # between later snapshots. None: a snapshot is stored only if a worker is requested to stop (`Backend.give_back`).
    snapshot_s: float | None = None
    solutions: SolutionSink | None = None

    def task_of(self, arm: str) -> Task:
        """Return the task of an arm. With a `length_group_cost` above 0 its batches are cut into groups of similar length."""
        task = self.tasks[arm] if self.tasks else self.task
        return task.with_length_groups(self.numerics.length_group_cost)


@dataclass(frozen=True)
class ScoreJob:
    """A request to score train rows for all queries by several methods, in one pass over the gradients.

    `ranges` are [start, stop) rows of the train split. They depend on the data and not on the number of workers, so that
    the scores have the same bits with any pool. `solved` is for the methods whose solutions are stored, so that all
    workers can score with them (`Method.shares_solving`): it maps the label of such a method to the score id under which
    the store holds its solutions. A worker computes the solutions that are missing in the store.
    """

    methods: Mapping[str, Method]  # label -> method; methods with nothing to compute, such as random, are left out
    prepared: Mapping[str, Any]
    checkpoints: Sequence[Checkpoint]
    queries: QueryBlock
    ranges: Sequence[tuple[int, int]]
    arm: str = ""
    solved: Mapping[str, str] = field(default_factory=dict)

    def describe(self, start: int, stop: int) -> str:
        """Return what a range of this job is, for messages."""
        return f"scoring train rows {start} to {stop - 1}"


Job = ScoreJob | SolveJob | DiagnosticJob


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of train rows [start, stop): label -> float32 [n_queries, stop - start].

    `diagnostics`: label -> the method's diagnostics (plain JSON values), the same in every block. `tables`: in the
    answer to a DiagnosticJob, label -> the tables of the diagnostics number `start` to `stop` - 1 of the job, counted
    from 0; `scores` is then empty. In the answer to a SolveJob both are empty: the solutions are in the store.
    """

    start: int
    stop: int
    scores: Mapping[str, np.ndarray]
    seconds: float = 0.0
    device: str = ""
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Tables] = field(default_factory=dict)


class Backend(Protocol):
    """A pool of workers. Only one thread may call it. During retraining no call blocks except `wait`."""

    def start(self) -> None:
        """Start the pool; `wait` returns a `WorkerJoined` event for each worker."""
        ...

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """Let the pool grow towards `n_workers`, the number of workers for which there is work.

        The pool never has more workers than its own limit, nor more than `at_most`, the number that the budget allows. It
        requests new workers from the cluster a few at a time: only a limited number of requested workers may be waiting
        for a node. If `n_workers` is lower than before, requests that still wait are withdrawn, but no worker is ended;
        `release` ends workers.
        """
        ...

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker."""
        ...

    def give_back(self, worker: str) -> None:
        """Request that a worker stores a snapshot of its retrain and stops.

        This has no effect if the recipe cannot be resumed or the retrain has ended.
        """
        ...

    def release(self, worker: str) -> None:
        """End a worker, even a busy one, so that its node can be removed; no event follows."""
        ...

    def nodes(self) -> list[Node]:
        """Return the nodes that exist now, busy or idle; these are the nodes that are charged."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call, in order; block until there is one or `timeout_s` has passed."""
        ...

    def score(self, job: Job, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Yield the score blocks in the order in which they are finished, each range exactly once.

        The ranges of a lost worker are computed by another one. An exception raised by `alive` is passed on, and the
        ranges in progress are abandoned.
        """
        ...

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """Return `numerics` with the fields that only a worker knows (such as the device model) filled in.

        An exception that `alive` raises while no worker has answered is passed on.
        """
        ...

    def close(self) -> None:
        """Stop what this backend started, and nothing else. A second call of `close` has no effect."""
        ...


def ranges_of(n_train: int, rows_per_shard: int) -> list[tuple[int, int]]:
    """Return the row ranges of the score shards: they cover [0, n_train), `rows_per_shard` rows each."""
    return [(start, min(start + rows_per_shard, n_train)) for start in range(0, n_train, rows_per_shard)]


__all__: Iterable[str] = [
    "Backend",
    "CheckpointSink",
    "Job",
    "ScoreBlock",
    "ScoreJob",
    "SolutionSink",
    "WorkerContext",
    "ranges_of",
]
