"""Diagnostics on the workers: the job that the driver sends, and the object that carries it out in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from influence.diagnostic import Diagnostic, ScoredModels
from tasks.task import Task

Tables = Mapping[str, Mapping[str, Sequence[Any]]]  # table name -> column -> values


@dataclass(frozen=True)
class DiagnosticJob:
    """A request to compute diagnostics of the scoring models of one arm.

    `given` maps the label of each diagnostic to its input without the task, which the workers have. The range [i, i + 1)
    of `ranges` stands for the i-th of `diagnostics`, so that workers share the work as they share ranges of train rows.
    """

    diagnostics: Mapping[str, Diagnostic]
    given: Mapping[str, Mapping[str, Any]]
    ranges: Sequence[tuple[int, int]]
    arm: str = ""

    def describe(self, start: int, stop: int) -> str:
        """Return what a range of this job is, for messages."""
        return f"diagnostics {start} to {stop - 1}"


class Diagnoser:
    """Computes the diagnostics of a job, one range at a time."""

    def __init__(self, task: Task, job: DiagnosticJob, device: str):
        self._task, self._job, self._device = task, job, device

    def tables(self, start: int, stop: int) -> dict[str, Tables]:
        """Return label -> tables of the diagnostics at the positions [start, stop)."""
        return {label: self._of(label) for label in list(self._job.diagnostics)[start:stop]}

    def _of(self, label: str) -> Tables:
        from influence.scoring import scores_of_queries

        given = self._job.given[label]
        models = ScoredModels(self._task, device=self._device, score_queries=scores_of_queries, **given)
        return self._job.diagnostics[label].compute(models)
