"""The plan of a leave-one-out campaign: which points are left out of which arm, over which distinct retrains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from orchestrator.records import Work


@dataclass(frozen=True, eq=False)
class Cell:
    """Leave-one-out retrains of one arm under one seed.

    `reference` and `work` int64 [n_points] index the plan's works; `member` int64 [n_points] is the point's place in a stack, -1 for a
    retrain of its own.
    """

    arm: str
    repeat: int
    reference: int
    point_ids: np.ndarray
    work: np.ndarray
    member: np.ndarray


@dataclass(frozen=True)
class LeaveOneOutPlan:
    """All cells of a campaign over their distinct works."""

    works: tuple[Work, ...]
    cells: tuple[Cell, ...]

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """Points left out, over arms and repeats."""
        return sum(len(cell.point_ids) for cell in self.cells)

    def references(self) -> list[str]:
        """Spec ids of the references."""
        return [self.works[cell.reference].spec_id for cell in self.cells]

    def columns(self) -> dict[str, list]:
        """arm, repeat, train_id (the point left out), member of a stack, spec_id."""
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
    """The label of an arm in a unit."""
    return f"{name}.{unit}" if unit else name


def group_key(label: str, repeat: int) -> str:
    """The scoring group of an arm (by its label) under a repeat."""
    return f"{label}.r{repeat}"


def level_text(value: Any) -> str:
    """A value of `over` as part of a label: what is not a letter, a digit or one of _+- becomes -."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_+-") else "-" for c in str(value))
