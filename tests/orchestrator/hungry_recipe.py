"""Fine-tuning that runs out of memory: one retrain in company, another one always. It logs when each attempt started and ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

from tasks.data.edits import Edit
from tasks.recipe import Trained, Training
from tasks.recipes.finetune import Finetune
from tasks.task import Task
from tests.orchestrator.gated_recipe import FOLDER

ROLES = ("hungry", "hopeless")  # given to the first two retrains that remove anything


class Attempt(NamedTuple):
    """One attempt: its role, or "", and when it started and ended, by the clock that all processes of a machine share."""

    key: str
    role: str
    began_ns: int
    ended_ns: int


class Hungry(Finetune):
    """Finetune on a device that is too small."""

    name: ClassVar[str] = "hungry"

    def train(self, task: Task, training: Training) -> Trained:
        key, folder = f"{training.edit.edit_id}-{training.seed}", Path(os.environ[FOLDER])
        began_ns = time.monotonic_ns()
        role, is_first = ("", False) if key.startswith(Edit().edit_id) else role_of(key, folder)
        try:
            if role == "hopeless" or (role == "hungry" and is_first):
                fill_up()
            return super().train(task, training)
        finally:
            line = f"{key} {role or '-'} {began_ns} {time.monotonic_ns()}\n"
            with open(folder / "attempts", "ab", buffering=0) as diary:
                diary.write(line.encode())


def fill_up() -> None:
    """Raise what torch raises when a GPU is full."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def role_of(key: str, folder: Path) -> tuple[str, bool]:
    """Return the role of a retrain, and whether this call assigned it."""
    for role in ROLES:
        try:
            os.symlink(key, folder / role)  # the first retrain that creates the link gets the role
        except FileExistsError:
            if os.readlink(folder / role) == key:
                return role, False
        else:
            return role, True
    return "", False


def attempts(folder: Path) -> list[Attempt]:
    """Return the logged attempts."""
    lines = [line.split() for line in (folder / "attempts").read_text().splitlines()]
    return [Attempt(key, role.strip("-"), int(began), int(ended)) for key, role, began, ended in lines]
