"""Fine-tuning that logs its updates, and stops in the middle of one training until a gate opens."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune, FinetuneRun
from tasks.task import Task
from tests.orchestrator.gated_recipe import FOLDER

LAST = 5  # the update after which the first retrain that removes anything waits


class Stepping(Finetune):
    """Finetune with a diary of its updates."""

    name: ClassVar[str] = "stepping"

    def start(self, task: Task, training: Training) -> FinetuneRun:
        return SteppingRun(self, task, training)


class SteppingRun(FinetuneRun):
    """Writes `edit seed update` to the diary after each update."""

    def __init__(self, recipe: Finetune, task: Task, training: Training):
        super().__init__(recipe, task, training)
        self.edit, self.folder = training.edit, Path(os.environ[FOLDER])

    def after_update(self, watch: Any) -> None:
        if self.step == 1:
            time.sleep(0.02)  # longer than snapshot_s, so this update is stored
        super().after_update(watch)
        with open(self.folder / "steps", "ab", buffering=0) as diary:
            diary.write(f"{self.edit.edit_id} {self.seed} {self.step}\n".encode())
        if self.step == LAST and self.edit.edit_id != Edit().edit_id:
            self.fail_or_wait()

    def fail_or_wait(self) -> None:
        """Fail if the file `stumble` exists, which is then removed; otherwise wait for the gate."""
        if (self.folder / "stumble").exists():
            (self.folder / "stumble").unlink()
            raise ConnectionError("just this time")
        while not (self.folder / "open").exists():
            time.sleep(0.02)


def steps(folder: Path) -> list[tuple[str, int]]:
    """Return (edit and seed, update) in the order in which the updates were made."""
    path = folder / "steps"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(key, int(step)) for key, _, step in (line.rpartition(" ") for line in lines)]
