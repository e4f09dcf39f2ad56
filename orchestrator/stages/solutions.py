"""The solutions that scores of influence functions need: which are missing, and the job that computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from influence.methods.checkpointed import checkpoint_terms
from orchestrator.runtime.backend import Backend, ScoreBlock, ScoreJob
from orchestrator.runtime.patience import patient
from orchestrator.runtime.solving import SolveJob
from orchestrator.stages.score_shards import GroupScores
from orchestrator.storage.solutions import SolvedRange

Alive = Callable[[], None]


@dataclass(frozen=True)
class GroupSolutions:
    """The solutions for the queries of one scoring group; the store keeps them until all score shards are there."""

    scores: GroupScores

    def ids(self, job: ScoreJob) -> dict[str, str]:
        """Return label -> score id of the methods of a job that share solving."""
        return {label: self.scores.score_id(method) for label, method in job.methods.items() if method.shares_solving}

    def needed(self, job: ScoreJob) -> dict[SolvedRange, str]:
        """Return every range that the methods of a job need -> the label of a method, by method, scoring model and queries."""
        found: dict[SolvedRange, str] = {}
        for label, score_id in self.ids(job).items():
            method = job.methods[label]
            for position, _ in checkpoint_terms(method, job.checkpoints):
                point = job.checkpoints[position]
                for start, stop in method.solve_options().ranges(len(job.queries.rows)):
                    found.setdefault(SolvedRange(score_id, point.spec_id, point.step, start, stop), label)
        return found

    def solve(
        self, job: ScoreJob, backend: Callable[[], Backend], alive: Alive
    ) -> Iterator[tuple[ScoreBlock | None, int, int]]:
        """Compute and store what a job needs and the store lacks.

        Yields (None, solved, all) at the start and (block, solved, all) after each range, in numbers of queries times
        scoring models. Nothing is yielded if the methods need no solutions.
        """
        needed = self.needed(job)
        if not needed:
            return
        load = patient(self.scores.store.solutions.load, meanwhile=alive)
        missing = [(label, at) for at, label in needed.items() if load(at) is None]
        total = sum(at.stop - at.start for at in needed)
        done = total - sum(at.stop - at.start for _, at in missing)
        yield None, done, total
        if not missing:
            return
        ranges = [(position, position + 1) for position in range(len(missing))]
        request = SolveJob(job.methods, job.checkpoints, job.queries, missing, ranges, job.arm)
        for block in backend().score(request, alive):
            done += sum(at.stop - at.start for _, at in missing[block.start : block.stop])
            yield block, done, total

    def clear(self) -> None:
        """Delete the solutions of all methods, since nothing needs them once all score shards are stored."""
        for method in self.scores.experiment.stored_scores.values():
            if method.shares_solving:
                self.scores.store.solutions.clear(self.scores.score_id(method))
