"""Fine-tuning that logs its attempts to a diary file and fails on request: the retrains of benchmarks/faults.py."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import ClassVar

from tasks.data.edits import Edit
from tasks.recipe import Trained, Training
from tasks.recipes.finetune import Finetune
from tasks.task import Task

DIARY, POISON = "REFIT_FAULTS_DIARY", "REFIT_FAULTS_POISON"  # paths; plain fine-tuning without them


class Poisoned(Finetune):
    """Finetune whose retrains fail if the file POISON (`{key: raise | nan | hang}`) names them."""

    name: ClassVar[str] = "poisoned"
    version: ClassVar[int] = 1

    def train(self, task: Task, training: Training) -> Trained:
        """Train, with a line in the diary before and after."""
        key = key_of(training.edit, training.seed)
        poison = read_poison().get(key)
        note("start", key)
        if poison == "raise":
            raise RuntimeError("poisoned")
        while poison == "hang":
            time.sleep(0.1)
        trained = super().train(task, training)
        if poison == "nan" and trained.network is not None:
            next(trained.network.parameters()).data.fill_(float("nan"))
        note("end", key)
        return trained


def key_of(edit: Edit, seed: int) -> str:
    """Return the name of a retrain in the poison file and the diary; a recipe does not know spec ids."""
    return f"{edit.edit_id}-{seed}"


def read_poison() -> dict[str, str]:
    """Return key -> kind of failure."""
    path = os.environ.get(POISON)
    return json.loads(Path(path).read_text()) if path else {}


def note(event: str, key: str) -> None:
    """Append one line to the diary; appends this short are atomic."""
    path = os.environ.get(DIARY)
    if path:
        line = json.dumps({"event": event, "key": key, "pid": os.getpid(), "time": time.time()}) + "\n"
        with open(path, "ab", buffering=0) as stream:
            stream.write(line.encode())
