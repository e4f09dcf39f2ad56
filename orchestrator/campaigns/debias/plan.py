"""The plan of a debias campaign: base models, hard-debiased models and fine-tunes, and the names of its arms and properties."""

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
# Action -> weights of the sentences in the amplifying set A and in the mitigating set M: -1 gradient ascent, 1 descent, 0 not used.
WEIGHTS: Mapping[str, tuple[int, int]] = {"undo": (-1, 0), "reinforce": (0, 1), "both": (-1, 1), "amplify": (1, -1)}
HARD_ARM = "hard_debias"
HARD_STEP = 1
BASE_ARM = "base"


@dataclass(frozen=True)
class FineTune:
    """One fine-tune of the grid, made for the property `corrected` with the sets of `method`.

    `n_amplifying`, `n_mitigating`: numbers of sentences used from A and M; they are below `size` if the method gives fewer sentences an
    influence of that sign. `work` indexes the plan's works.
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
    """Base models, hard-debiased models and all fine-tunes, and their distinct works. `base` and `hard` [n_repeats] index `works`."""

    works: tuple[Work, ...]
    base: tuple[int, ...]
    hard: tuple[int, ...]  # -1 without a hard-debiased model
    fine_tunes: tuple[FineTune, ...]

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """The number of fine-tunes."""
        return len(self.fine_tunes)

    def references(self) -> list[str]:
        """Return the spec ids of the base models."""
        return [self.works[i].spec_id for i in self.base]

    def columns(self) -> dict[str, list]:
        """Return the columns of plan.parquet; a hard-debiased model is a row with its own action.

        They are corrected, method, action, size, passes, start, repeat, n_amplifying, n_mitigating, spec_id.
        """
        names = ("corrected", "method", "action", "size", "passes", "start", "repeat", "n_amplifying", "n_mitigating")
        hard = [("", "", HARD_ARM, 0, 0, "original", r, 0, 0, i) for r, i in enumerate(self.hard) if i >= 0]
        rows = [*hard, *((*(getattr(one, name) for name in names), one.work) for one in self.fine_tunes)]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=False))
        return {**columns, "spec_id": [self.works[row[-1]].spec_id for row in rows]}


def passes_arm(passes: int) -> str:
    """Return the label of the arm that fine-tunes with this many passes."""
    return f"passes-{passes}"


def property_labels(task: Task) -> dict[str, int] | None:
    """Return label -> id of every measured property; None for a task without properties."""
    if task.properties is None:
        return None
    return {p.label: int(i) for p, i in zip(task.properties, task.splits["properties"].ids, strict=True)}


def property_value(experiment: Experiment, outputs: Mapping[str, np.ndarray], label: str) -> float:
    """Return the recorded value of a property."""
    task = experiment.task
    labels = property_labels(task) or {}
    rows = task.splits["properties"].rows_of([labels[label]])
    return float(outputs["properties"][np.searchsorted(task.measured["properties"], rows)[0], 0])
