"""Tasks and methods that misbehave on request, importable by Ray workers."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tiny_task import TinyRecipe, TinyTask

from influence.base import Method
from influence.checkpoint import QueryBlock
from orchestrator.runtime.backend import ScoreJob, WorkerContext
from tasks.base import Numerics
from tasks.recipe import Snapshot, Trained, Training

HANGS = 1000
pickled: list[int] = []  # the id of a WatchedTask, each time this process pickles it


class WatchedRecipe(TinyRecipe):
    """Records the process that trains; the first training of a seed >= HANGS writes its pid into `hang_in` and hangs."""

    hang_in: str = ""

    def train(self, task: Any, training: Training) -> Trained:
        if training.seed >= HANGS:
            hang_once(Path(self.hang_in), str(training.seed))
        trained = super().train(task, training)
        trained.metrics["pid"] = os.getpid()
        trained.metrics["threads"] = int(os.environ.get("OMP_NUM_THREADS", "1"))  # Ray's workers have this variable
        return trained


class WaitingRecipe(WatchedRecipe):
    """A training whose seed is in `waits` continues once the file named there exists."""

    waits: Mapping[int, str] = {}

    def train(self, task: Any, training: Training) -> Trained:
        wait_for_file(self.waits.get(training.seed, "/"))
        return TinyRecipe.train(self, task, training)


class ResumableRecipe(TinyRecipe):
    """Writes its node into `seen_in`; a training of a seed >= HANGS ends only after it was given back and resumed."""

    seen_in: str = ""
    resumable: ClassVar[bool] = True

    def train(self, task: Any, training: Training) -> Trained:
        if training.seed >= HANGS:
            snapshots = training.snapshots
            assert snapshots is not None
            stored = snapshots.resume()
            leave_node(Path(self.seen_in), "first" if stored is None else "second")
            while stored is None:
                snapshots.passed(1, lambda: Snapshot({}, {"step": 1}))
                time.sleep(0.02)
        return super().train(task, training)


@dataclass
class WatchedTask(TinyTask):
    """A TinyTask that counts how often it is pickled and may refuse to prepare."""

    problem: str = ""

    def prepare(self) -> None:
        if self.problem:
            raise OSError(self.problem)

    def __getstate__(self) -> dict[str, Any]:
        pickled.append(id(self))
        return dict(self.__dict__)


class Products(Method):
    """score = 1000 query row + train row, which tests know without gradients. `hang_in`, `bad_row`: how scoring fails."""

    name: ClassVar[str] = "products"
    hang_in: str = ""
    bad_row: int = -1
    seen_in: str = ""

    def score(self, queries: Any, train: Any, prepared: Any) -> np.ndarray:
        if self.seen_in:
            leave_node(Path(self.seen_in), f"{train.rows[0]}.pid-{os.getpid()}")
        if self.hang_in and 2 in train.rows:
            hang_once(Path(self.hang_in), "scorer")
        if self.bad_row in train.rows:
            raise ValueError("cannot score this row")
        return (1000 * queries.rows[:, None] + train.rows[None, :]).astype(np.float32)


def leave_node(folder: Path, name: str) -> None:
    """Write the id of this process's node into `folder/name`."""
    import ray

    (folder / f"{name}.part").write_text(ray.get_runtime_context().get_node_id())
    (folder / f"{name}.part").rename(folder / name)


def wait_for_file(path: str) -> None:
    """Return once `path` exists; raise TimeoutError after a minute."""
    end = time.monotonic() + 60.0
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.02)


def hang_once(folder: Path, name: str) -> None:
    """Write this process's pid into `folder/name` and hang, unless the file exists."""
    try:
        descriptor = os.open(folder / f"{name}.claimed", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.close(descriptor)
    (folder / f"{name}.part").write_text(str(os.getpid()))
    (folder / f"{name}.part").rename(folder / name)
    while True:
        time.sleep(0.05)


def tiny_context(task: TinyTask | None = None, threads: int = 1) -> WorkerContext:
    """Return a context of the watched task on the CPU."""
    return WorkerContext(task or WatchedTask(recipe=WatchedRecipe()), Numerics(threads=threads))


def tiny_job(ranges: list[tuple[int, int]], **options: Any) -> ScoreJob:
    """Return a job that scores `ranges` for two queries of the test split."""
    queries = QueryBlock("test", np.array([100, 101]), np.array([0, 1]), np.array([0, 1]))
    return ScoreJob({"products": Products(**options)}, {"products": None}, [], queries, ranges)
