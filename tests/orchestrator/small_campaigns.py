"""In-process campaigns leave_one_out and debias with some milliseconds per retrain, shared by their tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator import api
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import changed_task

LOO: dict[str, Any] = {
    "name": "small-loo",
    "campaign": "leave_one_out",
    "task": {
        "name": "gaussians",
        "data": {"seed": 0, "per_class": 4},
        "model": {"name": "dec", "hidden": 4},
        # float64, because ranks of influences must not depend on how a stack rounds
        "recipe": {"name": "dec", "objective": "nll", "learning_rate": 0.01, "steps": 3, "dtype": "float64"},
    },
    "queries": {"split": "train", "count": "all"},
    "measurement": "loss",
    "methods": [{"name": "cross_loss_influence", "as": "exact", "solver": {"name": "exact", "damping": 10.0}}],
    "leave_one_out": {
        "over": {"data.seed": [0, 1]},
        "arms": {"nll": {}, "twin": {}, "dec": {"recipe.objective": "dec"}},
        "comparisons": [
            {"method": "exact", "as": "matched", "scores": "nll", "truth": "nll"},
            {"method": "exact", "as": "twin", "scores": "twin", "truth": "twin"},
            {"method": "exact", "as": "cross", "scores": "dec", "truth": "nll", "paper": 0.5},
            {"method": "exact", "as": "cross", "scores": "dec", "truth": "dec"},
        ],
        "stack": 5,
    },
    "repeats": {"count": 1},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}

LISTS: dict[str, list[str]] = {
    "x": ["he", "his", "man", "boy"],
    "y": ["she", "her", "woman", "girl"],
    "a": ["office", "boss", "career", "salary"],
    "b": ["home", "family", "kitchen", "wedding"],
}
_WEAT: dict[str, Any] = {"name": "weat", "min_uses": 5, "min_words": 4, "min_words_half": 2, **LISTS}
DEBIAS: dict[str, Any] = {
    "name": "small-debias",
    "campaign": "debias",
    "task": {
        "name": "word_vectors",
        "data": {"train": {"path": "corpus.jsonl", "format": "jsonl", "text": "text"}},
        "vocabulary": {"min_count": 2},
        "properties": [
            {**_WEAT, "as": "gender"},
            {**_WEAT, "as": "gender_first", "half": "first"},
            {**_WEAT, "as": "gender_second", "half": "second"},
            {**_WEAT, "as": "reversed", "a": LISTS["b"], "b": LISTS["a"]},
            {**_WEAT, "as": "rare", "min_uses": 5000, "if_too_few": "skip"},
        ],
        "model": {"name": "skip_gram", "dim": 6},
        "recipe": {
            "name": "skip_gram",
            "epochs": 3,
            "window": 3,
            "negatives": 3,
            "max_uses": 32.0,
            "learning_rate": 0.05,
            "subsample": 0.0,
        },
    },
    "queries": {"split": "properties", "count": "all"},
    "measurement": "output",
    "methods": [
        {"name": "cross_loss_influence", "as": "influence", "solver": {"name": "exact", "damping": 0.1}},
        {"name": "random"},
    ],
    "debias": {
        "correct": ["gender", "reversed"],
        "halves": {"gender": ["gender_first", "gender_second"]},
        "actions": ["both", "amplify"],
        "sizes": [3, 400, 500],
        "passes": [1],
        "finetune": {"name": "reinforce", "learning_rate": 0.01, "batch_sentences": 16},
        "permutations": 20,
    },
    "repeats": {"seeds": [1, 2]},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}


def write_campaign(base: dict[str, Any], folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write a config with `changes`, {dotted key: value}, and its corpus; its store is `folder`/runs. Return its path."""
    folder.mkdir(exist_ok=True)
    config = changed_task(base, {"output": str(folder / "runs"), **(changes or {})}, "test")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    if base is DEBIAS:
        write_corpus(folder / "corpus.jsonl")
    return path


def small_loo(folder: Path, **changes: Any) -> LoadedConfig:
    """Return the leave-one-out campaign; `a__b=1` sets a.b."""
    return api.load_config(write_campaign(LOO, folder, {k.replace("__", "."): v for k, v in changes.items()}))


def small_debias(folder: Path, **changes: Any) -> LoadedConfig:
    """Return the debias campaign."""
    return api.load_config(write_campaign(DEBIAS, folder, {k.replace("__", "."): v for k, v in changes.items()}))


def write_corpus(path: Path, n_sentences: int = 160) -> None:
    """Write sentences in which he-words occur with office-words, and she-words with home-words, four times in five."""
    random, rows = np.random.default_rng(0), []
    neutral = [f"n{number}" for number in range(12)]
    for number in range(n_sentences):
        side = random.integers(2)
        other = side if random.random() < 0.8 else 1 - side
        words = [
            *random.choice(LISTS["xy"[side]], 2),
            *random.choice(LISTS["ab"[other]], 2),
            *random.choice(neutral, 3),
        ]
        if number % 5 == 0:
            words = [str(word) for word in random.choice(neutral, 6)]
        rows.append(json.dumps({"text": " ".join(random.permutation(words))}))
    path.write_text("\n".join(rows) + "\n")
