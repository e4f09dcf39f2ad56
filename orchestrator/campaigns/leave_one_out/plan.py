"""The plan of a leave-one-out campaign: the points left out of every arm, and their distinct retrains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from orchestrator.records import Work


@dataclass(frozen=True, eq=False)
class Cell:
    """The leave-one-out retrains of one arm with one seed.

    `reference` and `work` int64 [n_points] index the plan's works; `member` int64 [n_points] is the position of the point's model in a
    stack, or -1 if the work trains only this model.
    """

    arm: str
    repeat: int
    reference: int
    point_ids: np.ndarray
    work: np.ndarray
    member: np.ndarray


@dataclass(frozen=True)
class LeaveOneOutPlan:
    """All cells of a leave-one-out campaign and their distinct works."""

    works: tuple[Work, ...]
    cells: tuple[Cell, ...]

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """The number of points left out, summed over arms and repeats."""
        return sum(len(cell.point_ids) for cell in self.cells)

    def references(self) -> list[str]:
        """Return the spec ids of the references."""
        return [self.works[cell.reference].spec_id for cell in self.cells]

    def columns(self) -> dict[str, list]:
        """Return the columns of plan.parquet: arm, repeat, train_id (the point left out), member of a stack, spec_id."""
        rows = [
            (cell, *point) for cell in self.cells for point in zip(cell.point_ids, cell.member, cell.work, strict=True)
        ]
        return {
            "arm": [cell.arm for cell, *_ in rows],
            "repeat": [cell.repeat for cell, *_ in rows],
            "train_id": [int(point) for _, point, _, _ in rows],
            "member": [int(member) for _, _, member, _ in rows],
            "spec_id": [self.works[work].spec_id for _, _, _, work in rows],
        }


def arm_label(name: str, unit: str) -> str:
    """Return the label of an arm in a unit."""
    return f"{name}.{unit}" if unit else name


def group_key(label: str, repeat: int) -> str:
    """Return the key of the scoring group of an arm, given by its label, in a repeat."""
    return f"{label}.r{repeat}"


def level_text(value: Any) -> str:
    """Return a value of `over` as part of a label; characters other than ASCII letters, digits and _+- become -."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_+-") else "-" for c in str(value))
