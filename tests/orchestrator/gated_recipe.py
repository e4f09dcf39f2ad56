"""Fine-tuning that stops before its n-th training until a gate opens, and logs its trainings: for tests that interrupt a run half-way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

from tasks.recipe import Trained, Training
from tasks.recipes.finetune import Finetune
from tasks.task import Task

FOLDER = "REFIT_TEST_GATE"  # holds the diary, and the file `open` once trainings may continue
FREE = 5  # trainings that need no gate


class Gated(Finetune):
    """Finetune behind a gate."""

    name: ClassVar[str] = "gated"

    def train(self, task: Task, training: Training) -> Trained:
        """Wait for the gate, log the training in the diary, and train."""
        folder = Path(os.environ[FOLDER])
        with open(folder / "diary", "ab", buffering=0) as diary:
            diary.write(f"{training.edit.edit_id} {training.seed}\n".encode())
        while len(trainings(folder)) > FREE and not (folder / "open").exists():
            time.sleep(0.02)
        return super().train(task, training)


def trainings(folder: Path) -> list[str]:
    """Return the started trainings as edit and seed."""
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []
