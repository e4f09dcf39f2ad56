"""The control."""

from __future__ import annotations

from typing import ClassVar

from influence.base import Method


class RandomControl(Method):
    """No scores: per repeat the planner draws one permutation of the train ids, shared by all queries.

    Its first k ids are the proponents row, its last k the opponents row.
    """

    name: ClassVar[str] = "random"
    is_control: ClassVar[bool] = True
    uses_checkpoints: ClassVar[bool] = False
