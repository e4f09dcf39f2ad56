"""A recipe grid over generated sentences with a confound, some milliseconds per training, shared by the tests of recipe_grid."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from orchestrator import api
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import changed_task

SEEDS = [2021, 2022, 2023]
MSGS_GRID: dict[str, Any] = {
    "name": "msgs-grid",
    "campaign": "recipe_grid",
    "task": {
        "name": "msgs",
        "data": {"grammar": {"n_train": 48, "n_dev": 24, "n_test": 24, "inoculation": 0.2}},
        "model": {"name": "text_cnn", "embedding_dim": 8, "filters": 4, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 4, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.02},
    },
    "observe": [{"name": "confound_influence_difference", "probes": 6, "every": 12, "show": 2}],
    "recipe_grid": {
        "arms": [
            {"name": "finetuning", "paper": 0.76},
            {"name": "long", "set": {"recipe.epochs": 5}, "grid": {"recipe.batch_size": [8, 12]}},
            {"name": "untrained", "grid": {"recipe.learning_rate": [1.0e-7]}},
        ],
        "grid": {"recipe.learning_rate": [0.02, 0.05]},
        "failed": {"train_accuracy_below": 0.7},
    },
    "repeats": {"seeds": SEEDS},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}


def write_grid(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the config with `changes`, {dotted key: value}; its store is `folder`/runs. Return its path."""
    folder.mkdir(exist_ok=True)
    config = changed_task(copy.deepcopy(MSGS_GRID), {"output": str(folder / "runs"), **(changes or {})}, "test")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def msgs_grid(folder: Path, **changes: Any) -> LoadedConfig:
    """Return the campaign, written and loaded; `a__b=1` sets a.b."""
    return api.load_config(write_grid(folder, {key.replace("__", "."): value for key, value in changes.items()}))
