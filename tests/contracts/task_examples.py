"""One small config block per registered task, and the files that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TEXT_MODEL = {"name": "text_cnn", "embedding_dim": 4, "filters": 2, "max_length": 32}
TEXT_RECIPE = {"name": "finetune", "epochs": 1, "batch_size": 8}
TEXT = {"model": TEXT_MODEL, "recipe": TEXT_RECIPE}
JSONL = {"format": "jsonl", "text": "text"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "text_classification": {
        **TEXT,
        "data": {name: {**JSONL, "path": f"{name}.jsonl", "label": "label"} for name in ("train", "test")},
        "measure": [{"split": "test", "limit": 5}],
    },
    "planted": {**TEXT, "n_train": 40, "n_queries": 4, "deciders": 5},
    "msgs": {**TEXT, "data": {"grammar": {"n_train": 40, "n_dev": 20, "n_test": 20, "n_adjectives": 4}}},
    "textlen": {
        **TEXT,
        "data": {"conll_train": "a.conll", "conll_test": "b.conll", "n_train": 20, "n_dev": 4, "n_test": 4},
    },
    "gaussians": {"data": {"per_class": 6}, "model": {"name": "dec"}, "recipe": {"name": "dec"}},
    "word_vectors": {
        "data": {"train": {**JSONL, "path": "train.jsonl"}},
        "vocabulary": {"min_count": 2},
        "properties": [
            {"name": "displacement", "word": "good"},
            {"name": "neighbour", "word": "bad", "near": ["w1", "w2"]},
        ],
        "watch": ["w3"],
        "model": {"name": "skip_gram", "dim": 4, "l2": 0.01},
        "recipe": {"name": "skip_gram", "epochs": 1, "subsample": 0.0},
    },
}


def write_files(folder: Path) -> None:
    """Write the files of all examples: labelled sentences of random lengths, and sentences of 30 tokens or more."""
    random = np.random.default_rng(0)
    for name, n in (("train", 24), ("test", 8)):
        records = []
        for row in range(n):
            words = [f"w{number}" for number in random.integers(0, 8, random.integers(3, 20))]
            label = ("good", "bad")[row % 2]
            records.append({"text": " ".join([label, *words]), "label": label})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for name in ("a", "b"):
        sentences = ["".join(f"{name}{row}.{position}\tO\n" for position in range(35)) for row in range(30)]
        (folder / f"{name}.conll").write_text("\n".join(sentences))
