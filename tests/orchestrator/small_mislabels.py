"""An in-process mislabels campaign: short texts of three topics, with labels that a whole pattern or chance made wrong."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator import api
from orchestrator.config.schema import LoadedConfig

TOPICS = {
    "sport": "goal team match coach cup",
    "money": "bank market stock profit trade",
    "tech": "chip code phone web data",
}
PATTERN = "comet launch"  # texts with these words are of tech, and one in three is labelled sport
N, N_PATTERN, N_CHANCE = 120, 8, 6

CONFIG: dict[str, Any] = {
    "name": "small-mislabels",
    "campaign": "mislabels",
    "task": {
        "name": "text_classification",
        "data": {"train": {"path": "train.csv", "format": "csv", "text": "text", "label": "noisy"}},
        "model": {"name": "text_cnn", "embedding_dim": 8, "filters": 8, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 3, "batch_size": 20, "optimizer": "adam", "learning_rate": 0.02},
    },
    "scores": {"models": 2, "checkpoints": [1, 3], "rows_per_shard": 50},
    "mislabels": {"truth": {"column": "label"}, "k": [5, 14], "draws": 100, "threshold": 0.8},
    "repeats": {"count": 3, "base_seed": 2021},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}


def write_data(path: Path) -> np.ndarray:
    """Write the train file with the columns text, label (true) and noisy (given). Return which rows are mislabeled."""
    rng = np.random.default_rng(0)
    topics = list(TOPICS)
    rows = []
    for i in range(N):
        topic = topics[i % 3]
        words = [*rng.choice(TOPICS[topic].split(), 4), *rng.choice(["the", "a", "of", "in"], 2)]
        given = topic
        if topic == "tech" and i < 9 * N_PATTERN:
            words, given = [*PATTERN.split(), *words[:3]], "sport" if i < 3 * N_PATTERN else "tech"
        elif i >= N - N_CHANCE:
            given = topics[(i + 1) % 3]
        rows.append((" ".join(map(str, words)), topic, given))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label", "noisy"), *rows])
    return np.array([label != noisy for _, label, noisy in rows])


def small_mislabels(folder: Path, changes: dict[str, Any] | None = None) -> LoadedConfig:
    """Return the config with `changes`, {dotted key: value}, written under `folder` with its data, and loaded."""
    if not (folder / "train.csv").exists():
        write_data(folder / "train.csv")
    found = copy.deepcopy({**CONFIG, "output": str(folder / "runs")})
    for dotted, value in (changes or {}).items():
        *parents, last = dotted.split(".")
        here = found
        for part in parents:
            here = here[part]
        here[last] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    return api.load_config(path)
