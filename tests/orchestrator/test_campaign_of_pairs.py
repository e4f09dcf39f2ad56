"""A campaign on pairs of texts, from files with other labels for the same classes to the report; in-process."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main

WORDS = {0: ("calm", "river", "stone"), 1: ("gear", "noise", "engine"), 2: ("gear", "engine", "smoke")}
READ = {"format": "jsonl", "text": "premise", "text_pair": "hypothesis", "label": "gold"}
CONFIG: dict[str, Any] = {
    "name": "pairs",
    "campaign": "deletion",
    "task": {
        "name": "text_classification",
        "classes": ["entailment", "non-entailment"],
        "data": {
            "train": {
                "path": "train.jsonl",
                **READ,
                "labels": {"0": "entailment", "1": "non-entailment", "2": "non-entailment"},
            },
            "test": {"path": "test.jsonl", **READ, "labels": {"no": "non-entailment", "yes": "entailment"}},
        },
        "model": {"name": "text_cnn", "embedding_dim": 4, "filters": 4, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 2, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.02},
    },
    "queries": {"split": "test", "ids": [0, 1]},
    "scores": {"models": 1},
    "methods": [{"name": "tracin_we"}, {"name": "tracin_last"}, {"name": "tfidf"}, {"name": "random"}],
    "deletion": {"k": [3], "groups": ["proponents", "opponents"]},
    "repeats": {"count": 2},
    "compute": {"workers": 1},
    "tracking": None,
    "output": "runs",
}


def pair(kind: str, row: int, label: int) -> dict[str, Any]:
    return {"premise": f"{kind}{row} the <b>claim</b>", "hypothesis": " ".join(WORDS[label]), "gold": label}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    train = [pair("train", row, row % 3) for row in range(24)]
    test = [pair("test", row, row % 2) for row in range(4)]
    test[1] = {**test[1], "premise": train[4]["premise"].upper()}  # query 1 is training example 4 in other letters
    test[0] = {**test[0], "premise": train[1]["premise"]}  # query 0 shares only its premise with example 1
    for record in test:
        record["gold"] = "no" if record["gold"] else "yes"
    for name, records in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "output": str(folder / "runs")}))
    done = api.run(api.load_config(path), address="local")
    return path, done


def test_the_plan_counts_classes_not_labels(run, capsys):
    assert main(["plan", str(run[0]), "--json"]) == 0
    splits = {split["split"]: split for split in json.loads(capsys.readouterr().out)["data"]}
    assert splits["train"]["classes"] == {"entailment": 8, "non-entailment": 16}
    assert splits["test"]["classes"] == {"entailment": 2, "non-entailment": 2}


def test_every_method_has_a_curve_and_retrains_give_the_same_bytes(run):
    run_dir = run[1].run_dir
    curves = pd.read_csv(run_dir / "results" / "curves.csv")
    assert set(curves["method"]) == {"tracin_we", "tracin_last", "tfidf", "random"}
    assert np.isfinite(curves["delta"]).all()
    assert main(["verify", str(run_dir), "--rerun", "2"]) == 0


def test_a_query_is_leaked_if_both_of_its_texts_are(run):
    checks = pd.read_csv(run[1].run_dir / "results" / "checks.csv")
    (leaked,) = checks.loc[checks["name"] == "leaked_queries", "sentence"]
    assert "1 of 2 queries" in leaked
    assert "in each of the two texts" in leaked


def test_the_report_shows_both_texts_with_the_words_of_both_marked(run):
    page = (run[1].run_dir / "report.html").read_text()
    assert "<b>claim</b>" not in page, "text of the user is escaped"
    plain = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", page)))
    assert "train1 the <b>claim</b> | calm river stone" in plain
    marked = {unescape(word) for word in re.findall(r'<mark class="[hx]\d" title="[^"]*">([^<]+)</mark>', page)}
    assert marked & {"the", "b", "claim", "<", ">"}, "a word of the first text"
    assert marked & {word for words in WORDS.values() for word in words}, "a word of the second text"
