"""A small text campaign whose data a test chooses: labels that the words predict, or labels that nothing predicts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator import api
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import changed_task

WORDS = {"north": ["ice", "snow", "frost", "fjord"], "south": ["sand", "palm", "heat", "reef"]}
FILLER = [f"word{number}" for number in range(60)]

CONFIG: dict[str, Any] = {
    "name": "doubtful",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "data": {
            name: {"path": f"{name}.csv", "format": "csv", "text": "text", "label": "label"}
            for name in ("train", "test")
        },
        "model": {"name": "text_cnn", "embedding_dim": 8, "filters": 8, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 4, "batch_size": 12, "optimizer": "adam", "learning_rate": 0.02},
        "measure": [{"split": "test"}],
    },
    "queries": {"split": "test", "ids": [0, 1, 2]},
    "measurement": "gold_probability",
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "deletion": {"k": [3], "groups": ["proponents", "opponents"]},
    "repeats": {"count": 2},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}
UNTRAINED = {"task.recipe.learning_rate": 1e-7}  # a model that has learnt nothing


def write_texts(path: Path, n: int, seed: int, texts: dict[int, str] | None = None) -> list[str]:
    """Write a CSV file of `n` texts, half of each class, in random order; `texts` replaces some of them. Return the texts."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(n):
        label = list(WORDS)[number % 2]
        words = [*rng.choice(WORDS[label], 3), *rng.choice(FILLER, 7)]
        rows.append([" ".join(rng.permutation(words)), label])
    for row, text in (texts or {}).items():
        rows[row][0] = text
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *rows])
    return [text for text, _ in rows]


def doubtful(
    folder: Path, changes: dict[str, Any] | None = None, train_texts: dict[int, str] | None = None
) -> LoadedConfig:
    """Return a campaign on 60 train texts and 120 test texts under `folder`, with `changes`, {dotted key: value}."""
    import yaml

    folder.mkdir(exist_ok=True)
    write_texts(folder / "train.csv", 60, 1, train_texts)
    write_texts(folder / "test.csv", 120, 2)
    config = changed_task(CONFIG, {"output": str(folder / "runs"), **(changes or {})}, "test")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return api.load_config(path)
