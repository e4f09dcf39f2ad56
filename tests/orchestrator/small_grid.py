"""A recipe grid over a few texts, some milliseconds per retrain, and an observer from a user's module."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator import api
from orchestrator.config.schema import LoadedConfig

GRID: dict[str, Any] = {
    "name": "small-grid",
    "campaign": "recipe_grid",
    "task": {
        "name": "text_classification",
        "data": {
            split: {"path": f"{split}.csv", "format": "csv", "text": "text", "label": "label"}
            for split in ("train", "dev", "test")
        },
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 4, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 2, "batch_size": 10, "optimizer": "adam", "learning_rate": 0.05},
        "measure": [{"split": split} for split in ("train", "dev", "test")],
    },
    "recipe_grid": {
        "arms": [{"name": "short"}, {"name": "long", "set": {"recipe.epochs": 3}}],
        "grid": {"recipe.learning_rate": [0.02, 0.05]},
        "min_trials": 1,
    },
    "repeats": {"seeds": [1, 2]},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}
N_ROWS = {"train": 40, "dev": 12, "test": 14}

WATCHER = '''
from typing import ClassVar
import numpy as np
from tasks.base import Component
from tasks.errors import InputError
from tasks.observer import ObserverConfig

class Norms(ObserverConfig):
    """Norm of every parameter, before the first update and after each `every`-th."""
    name: ClassVar[str] = "norms"
    every: int = 2
    refuse: str = ""

    def check_task(self, task, where):
        if self.refuse:
            raise InputError(where, f"{self.refuse} of {len(task.splits['train'])}")

    def start(self, task, device="cpu"):
        return Watching(self.every, len(task.splits["train"]), device)

class Watching:
    name = "norms"

    def __init__(self, every, n_train, device):
        self.every, self.n_train, self.device, self.n_steps = every, n_train, device, None

    def begin(self, n_steps):
        assert self.n_steps is None, "begun once"
        self.n_steps = n_steps

    def at(self, step, network):
        if step % self.every:
            return {}
        norms = [float(p.detach().norm()) for p in network.parameters()]
        return {"parameters": np.array(norms), "of": np.array([step, self.n_steps, self.n_train])}

class Other(Norms):
    name: ClassVar[str] = "other"

class Nothing(Component):
    name: ClassVar[str] = "nothing"
'''


def write_texts(folder: Path, n_train: int = N_ROWS["train"]) -> None:
    """Write sentences of neutral words whose last word shows the class."""
    random = np.random.default_rng(0)
    for split, n in {**N_ROWS, "train": n_train}.items():
        lines = ["text,label"]
        for row in range(n):
            words = [f"n{word}" for word in random.integers(0, 12, 6)]
            lines.append(f"{' '.join(words)} {('bad', 'good')[row % 2]},{('neg', 'pos')[row % 2]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_grid(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write data and config, with `changes` of top-level keys (None removes a key); the store is `folder`/runs. Return the path."""
    folder.mkdir(exist_ok=True)
    write_texts(folder)
    config = {**copy.deepcopy(GRID), "output": str(folder / "runs"), **(changes or {})}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def small_grid(folder: Path, **changes: Any) -> LoadedConfig:
    """Return the grid, written and loaded."""
    return api.load_config(write_grid(folder, changes))
