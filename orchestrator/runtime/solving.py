"""Solving for queries on the workers: the job that the driver sends, and the object that carries it out in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.scoring import naming_method
from influence.solvers import Solution
from orchestrator.storage.solutions import SolvedRange
from tasks.task import Task

if TYPE_CHECKING:
    from influence.curvature import Curvature
    from influence.inverse_hessian import QuerySolver, Stored

Keep = Callable[[SolvedRange, Solution], None]
Load = Callable[[SolvedRange], Solution | None]


@dataclass(frozen=True)
class SolveJob:
    """A request to solve for ranges of queries, each by one method at the weights of one scoring model, and to store the solutions.

    `asked` has the label of the method and the place in the store of each. The range [i, i + 1) of `ranges` stands for
    the i-th of them, so that workers share the work as they share ranges of train rows.
    """

    methods: Mapping[str, Method]
    checkpoints: Sequence[Checkpoint]
    queries: QueryBlock
    asked: Sequence[tuple[str, SolvedRange]]
    ranges: Sequence[tuple[int, int]]
    arm: str = ""

    def describe(self, start: int, stop: int) -> str:
        """Return what a range of this job is, for messages."""
        return ", ".join(f"solving for queries {at.start} to {at.stop - 1} of {m}" for m, at in self.asked[start:stop])


class RangeSolver:
    """Solves for the ranges of a job in one process, and passes each solution to `keep`, which stores it.

    The curvature of the last method and scoring model stays in memory for the next range.
    """

    def __init__(self, task: Task, job: SolveJob, device: str, keep: Keep):
        self._task, self._job, self._device, self._keep = task, job, device, keep
        self._solvers: dict[str, QuerySolver] = {}
        self._known: tuple[tuple[str, str, int], Curvature] | None = None

    def solve(self, start: int, stop: int) -> None:
        """Solve and store what the job asks at the positions [start, stop)."""
        for label, at in self._job.asked[start:stop]:
            with naming_method(label):
                curvature = self._curvature(label, at)
                self._keep(at, self._solver(label).solve(curvature, at.start, at.stop))

    def _solver(self, label: str) -> QuerySolver:
        from influence.inverse_hessian import QuerySolver

        if label not in self._solvers:
            options = self._job.methods[label].solve_options()
            self._solvers[label] = QuerySolver(options, self._task, self._job.queries, self._device)
        return self._solvers[label]

    def _curvature(self, label: str, at: SolvedRange) -> Curvature:
        which = (label, at.spec_id, at.step)
        if self._known is None or self._known[0] != which:
            [checkpoint] = [c for c in self._job.checkpoints if (c.spec_id, c.step) == (at.spec_id, at.step)]
            self._known = which, self._solver(label).curvature(checkpoint)
        return self._known[1]


def stored_solutions(load: Load, score_id: str) -> Stored:
    """Return the function by which a scorer finds the solutions of one method in the store."""

    def stored(checkpoint: Checkpoint, part: tuple[int, int]) -> Solution | None:
        return load(SolvedRange(score_id, checkpoint.spec_id, checkpoint.step, *part))

    return stored
