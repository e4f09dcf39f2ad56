"""Known truth: copies of every query stand in the train set, five under its own label and five under the other one.

The copies decide the query, and its label alone does not. A method that finds them beats both controls. The dot product of
last-layer gradients prefers examples with large activations to examples that are like the query, and finds few of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from orchestrator import api

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FINDERS = ("tracin_we", "tracin_we_topk", "tracin", "gradient_cosine")
BLIND = "tracin_last"
N_QUERIES, COPIES = 8, 5
CLASSES = ("a", "b")

CALM = {"learning_rate": 0.01, "schedule": "linear", "warmup_frac": 0.1}  # seeds differ less than with a constant rate

CONFIG = {
    "name": "copies",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "data": {
            name: {"path": f"{name}.jsonl", "format": "jsonl", "text": "text", "label": "label"}
            for name in ("train", "test")
        },
        "model": {"name": "text_cnn", "embedding_dim": 16, "filters": 16, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 6, "batch_size": 32, "optimizer": "adam", **CALM},
        "measure": [{"split": "test"}],
    },
    "queries": {"split": "test", "ids": list(range(N_QUERIES))},
    "measurement": "gold_probability",
    "scores": {"checkpoints": [2, 4, 6]},
    "methods": [{"name": name} for name in (*FINDERS, BLIND, "random", "random_same_label")],
    "deletion": {"k": [COPIES], "groups": ["proponents", "opponents"]},
    "repeats": {"count": 4},
    "compute": {"workers": 1, "retries": 0},
    "tracking": None,
    "output": "runs",
}


def texts(rng: np.random.Generator) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(text, label) of train and test: words of the class among words that say nothing."""
    words = [f"{first}{second}" for first in ("da", "le", "mo", "ri", "su") for second in map(str, range(40))]
    words = rng.permutation(words).tolist()
    telling, rest = {"a": words[:15], "b": words[15:30]}, words[30:]

    def text(label: str, n_telling: int) -> str:
        chosen = [*rng.choice(telling[label], n_telling, replace=False), *rng.choice(rest, 12 - n_telling)]
        return " ".join(rng.permutation(chosen))

    labels = [CLASSES[number % 2] for number in range(160)]
    queries = [(text(label, 1), label) for label in labels[:N_QUERIES]]
    train = [(text(label, 3), label) for label in labels]
    for query, label in queries:
        other = CLASSES[1 - CLASSES.index(label)]
        train += [(query, label)] * COPIES + [(query, other)] * COPIES
    return [train[row] for row in rng.permutation(len(train))], queries + [(text(c, 3), c) for c in labels[:40]]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """The train and test rows, and the finished campaign."""
    folder: Path = tmp_path_factory.mktemp("copies")
    train, test = texts(np.random.default_rng(0))
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "output": str(folder / "runs")}, sort_keys=False))
    return train, test, api.run(api.load_config(path), address="local")


def n_found(campaign, method: str) -> int:
    """Copies among the COPIES highest (right label) and lowest (wrong label) scores, over all queries."""
    train, test, result = campaign
    scores, found = api.open_run(result.run_dir).scores(method), 0
    for query in range(N_QUERIES):
        text, label = test[query]
        order = scores.columns.to_numpy()[np.argsort(-scores.loc[query].to_numpy(), kind="stable")]
        right = {row for row, one in enumerate(train) if one == (text, label)}
        wrong = {row for row, one in enumerate(train) if one[0] == text} - right
        found += len(right & set(order[:COPIES])) + len(wrong & set(order[-COPIES:]))
    return found


@pytest.mark.parametrize("method", FINDERS)
def test_methods_that_see_the_input_find_every_copy_and_beat_both_controls(campaign, method):
    assert n_found(campaign, method) == 2 * N_QUERIES * COPIES
    verdicts = campaign[2].results.verdicts
    for group in ("proponents", "opponents"):
        start = f"For {group}, {method} beats both controls, so it found examples that matter beyond their label."
        assert any(verdict.startswith(start) for verdict in verdicts), verdicts


def test_the_last_layer_alone_finds_few_copies_and_no_verdict_says_that_it_did(campaign):
    assert n_found(campaign, BLIND) < N_QUERIES * COPIES
    verdicts = campaign[2].results.verdicts
    assert not [verdict for verdict in verdicts if f"{BLIND} beats" in verdict]


def test_the_checks_say_that_every_query_stands_in_the_train_set(campaign):
    (leaked,) = [check for check in campaign[2].results.checks if check.name == "leaked_queries"]
    assert (leaked.status, leaked.numbers["n_leaked"]) == ("caution", N_QUERIES)
    assert all(len(rows) == 2 * COPIES for rows in leaked.numbers["copies"].values())
