"""What runs inside an actor, and what the driver sees of it. Imports no ray."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from orchestrator.records import Outcome, Work
from orchestrator.runtime import worker
from orchestrator.runtime.backend import ScoreBlock, ScoreJob, WorkerContext
from orchestrator.scheduling.events import FailureKind
from tasks.base import Numerics

if TYPE_CHECKING:
    from influence.scoring import Scorer

Result = TypeVar("Result")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Joined:
    """A worker's first answer. `gpus` are the ids it was given, as `<node>:<id>`."""

    pid: int
    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """An attempt failed in a worker that lives on: plain strings, so that no exception is pickled."""

    kind: FailureKind
    message: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Lost:
    """A worker is gone."""

    kind: FailureKind
    message: str


Answer = Joined | Failure | Outcome | ScoreBlock


class WorkerProcess:
    """One long-lived process with the task in memory; does one retrain or one score range at a time."""

    _context: WorkerContext
    _scorer: Scorer | None = None

    def __init__(self, name: str, threads: int):
        self._name = name
        for variable in THREAD_VARIABLES:  # read when torch is imported, which unpickling the context may do
            os.environ[variable] = str(threads)

    def get_ready(self, context: WorkerContext, node: str, gpus: tuple[str, ...]) -> Joined | Failure:
        """Configure the process for `context`."""

        def configure() -> Joined:
            worker.configure(context)
            return Joined(os.getpid(), node, gpus)

        self._context = context
        return attempt(configure)

    def probe(self, numerics: Numerics) -> Numerics | Failure:
        """`numerics` with this process's device model and torch version."""
        return attempt(lambda: worker.resolve_numerics(numerics))

    def retrain(self, work: Work) -> Outcome | Failure:
        """One attempt of one spec."""
        return attempt(lambda: worker.retrain(self._context, work, self._name))

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
        import torch

        self._scorer = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def attempt(function: Callable[[], Result]) -> Result | Failure:
    """What `function` returns, or the Failure its exception amounts to."""
    started = time.perf_counter()
    try:
        return function()
    except Exception as error:
        return Failure(worker.classify(error), worker.describe(error), time.perf_counter() - started)
