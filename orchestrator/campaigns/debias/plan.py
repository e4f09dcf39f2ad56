"""The plan of a debias campaign: base models, hard-debiased ones and fine-tunes, and what names its arms and properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from orchestrator.experiment.experiment import Experiment
from orchestrator.records import Work
from tasks.task import Task

Action = Literal["undo", "reinforce", "both", "amplify"]
Start = Literal["original", "hard_debiased"]
# What an action does to the amplifying set A and the mitigating set M: the weights of their sentences (0: not shown).
WEIGHTS: Mapping[str, tuple[int, int]] = {"undo": (-1, 0), "reinforce": (0, 1), "both": (-1, 1), "amplify": (1, -1)}
HARD_ARM = "hard_debias"
HARD_STEP = 1
BASE_ARM = "base"


@dataclass(frozen=True)
class FineTune:
    """One fine-tune of the grid: made for property `corrected`, by `method`'s sets, under repeat `repeat`.

    `n_amplifying`, `n_mitigating`: sentences shown of A and M, fewer than `size` where the method scores fewer of that sign.
    """

    corrected: str
    method: str
    action: str
    size: int
    passes: int
    start: str
    repeat: int
    work: int
    n_amplifying: int
    n_mitigating: int


@dataclass(frozen=True)
class DebiasPlan:
    """Base models, hard-debiased ones (position -1 without), and every fine-tune, over distinct works."""

    works: tuple[Work, ...]
    base: tuple[int, ...]  # per repeat
    hard: tuple[int, ...]
    fine_tunes: tuple[FineTune, ...]

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """Fine-tunes asked for."""
        return len(self.fine_tunes)

    def references(self) -> list[str]:
        """Spec ids of the base models."""
        return [self.works[i].spec_id for i in self.base]

    def columns(self) -> dict[str, list]:
        """corrected, method, action, size, passes, start, repeat, n_amplifying, n_mitigating, spec_id; hard-debiasing as an action of its own."""
        names = ("corrected", "method", "action", "size", "passes", "start", "repeat", "n_amplifying", "n_mitigating")
        hard = [("", "", HARD_ARM, 0, 0, "original", r, 0, 0, i) for r, i in enumerate(self.hard) if i >= 0]
        rows = [*hard, *((*(getattr(one, name) for name in names), one.work) for one in self.fine_tunes)]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=False))
        return {**columns, "spec_id": [self.works[row[-1]].spec_id for row in rows]}


def passes_arm(passes: int) -> str:
    """The arm that fine-tunes with so many passes."""
    return f"passes-{passes}"


def property_labels(task: Task) -> dict[str, int] | None:
    """Label -> id of every measured property; None for a task that has none."""
    if task.properties is None:
        return None
    return {p.label: int(i) for p, i in zip(task.properties, task.splits["properties"].ids, strict=True)}


def property_value(experiment: Experiment, outputs: Mapping[str, np.ndarray], label: str) -> float:
    """The recorded value of a property."""
    task = experiment.task
    labels = property_labels(task) or {}
    rows = task.splits["properties"].rows_of([labels[label]])
    return float(outputs["properties"][np.searchsorted(task.measured["properties"], rows)[0], 0])
