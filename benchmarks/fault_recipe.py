"""Fine-tuning that keeps a diary of its attempts, and fails where it is told to: the retrains of benchmarks/faults.py."""

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

DIARY, POISON = "REFIT_FAULTS_DIARY", "REFIT_FAULTS_POISON"  # paths; without them this is plain fine-tuning


class Poisoned(Finetune):
    """Finetune; retrains named in the file POISON (`{key: raise | nan | hang}`) fail so, always."""

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
    """How a retrain is named in poison and diary: a recipe knows no spec ids."""
    return f"{edit.edit_id}-{seed}"


def read_poison() -> dict[str, str]:
    """Key -> how it fails."""
    path = os.environ.get(POISON)
    return json.loads(Path(path).read_text()) if path else {}


def note(event: str, key: str) -> None:
    """One line in the diary, whole or not at all: appends this short are atomic."""
    path = os.environ.get(DIARY)
    if path:
        line = json.dumps({"event": event, "key": key, "pid": os.getpid(), "time": time.time()}) + "\n"
        with open(path, "ab", buffering=0) as stream:
            stream.write(line.encode())
