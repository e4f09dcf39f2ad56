"""What `refit run` says beside a verdict: reasons to doubt it, and whether a method found examples or only their label."""

from __future__ import annotations

import csv
import html
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cli import main
from tests.orchestrator.doubtful_campaign import UNTRAINED, doubtful

QUERIES = list(range(6))


def ran(folder: Path, changes: dict[str, Any], capsys) -> tuple[str, str]:
    """What the terminal and the report of a campaign that ends with exit code 0 say, in one line each."""
    config = doubtful(folder, changes)
    assert main(["run", str(config.path), "--yes", "--address", "local"]) == 0, capsys.readouterr().err
    (page,) = (folder / "runs").glob("*/report.html")
    return " ".join(capsys.readouterr().out.split()), " ".join(html.unescape(page.read_text()).split())


def label_alone(folder: Path) -> dict[str, Any]:
    """The method of a file of scores that hold the query's label and nothing else: equal labels above, others below."""
    folder.mkdir()
    doubtful(folder)
    labels = {}
    for name in ("train", "test"):
        with (folder / f"{name}.csv").open() as file:
            labels[name] = np.array([row["label"] for row in csv.DictReader(file)])
    order = np.random.default_rng(3).random(len(labels["train"]))
    scores = np.where(labels["test"][QUERIES][:, None] == labels["train"], 1 + order, -1 - order)
    ids = {"query_ids": np.array(QUERIES), "train_ids": np.arange(len(labels["train"]))}
    np.savez(folder / "label.npz", scores=scores.astype(np.float32), **ids)
    axes = {"axes": "query_train", "orientation": "helpful_positive"}
    return {"name": "scores_file", "path": "label.npz", "as": "label", **axes}


def test_a_verdict_on_models_at_chance_is_printed_and_reported_with_the_reasons_to_doubt_it(tmp_path, capsys):
    for said in ran(tmp_path / "chance", UNTRAINED, capsys):
        assert "tracin_last" in said
        assert "random" in said
        assert "Not to be relied on: accuracy" in said
        assert "There are 3 queries, fewer than 5" in said
        assert "There are 2 repeats, fewer than 5" in said
        assert "There is one scoring model" in said


def test_a_copy_of_a_query_in_the_train_set_is_printed_and_reported(tmp_path, capsys):
    folder = tmp_path / "leaked"
    doubtful(folder)
    with (folder / "test.csv").open() as file:
        text = next(csv.DictReader(file))["text"]
    config = doubtful(folder, {}, train_texts={4: text})
    assert main(["run", str(config.path), "--yes", "--address", "local"]) == 0
    (page,) = (folder / "runs").glob("*/report.html")
    for said in (capsys.readouterr().out, page.read_text()):
        assert "1 of 3 queries stand in the train set" in " ".join(html.unescape(said).split())


@pytest.mark.slow
def test_wrong_and_saturated_queries_and_removals_that_break_the_model_are_printed_and_reported(tmp_path, capsys):
    """A model that knows the telling words by heart is sure of its mistakes where the label contradicts them."""
    folder = tmp_path / "wrong"
    certain = {"task.recipe.epochs": 25, "task.recipe.learning_rate": 0.1, "deletion.k": [2, 50]}
    config = doubtful(folder, certain | {"queries.ids": [0, 1, 2, 3]})
    lines = (folder / "test.csv").read_text().splitlines()
    swapped = [line.replace("north", "x").replace("south", "north").replace("x", "south") for line in lines[1:4]]
    (folder / "test.csv").write_text("\n".join([lines[0], *swapped, *lines[4:]]) + "\n")
    assert main(["run", str(config.path), "--yes", "--address", "local"]) == 0
    (page,) = (folder / "runs").glob("*/report.html")
    for text in (capsys.readouterr().out, html.unescape(page.read_text())):
        said = " ".join(text.split())
        assert "The reference models answer 3 of 4 queries wrongly" in said
        assert "below 0.001 (3)" in said
        assert "Some removals break the model" in said


def test_a_method_that_knows_the_label_alone_is_said_to_have_found_the_label(tmp_path, capsys):
    folder = tmp_path / "label"
    changes = {
        "methods": [label_alone(folder), {"name": "random"}, {"name": "random_same_label"}],
        "queries": {"split": "test", "ids": QUERIES},
        "deletion": {"k": [15], "groups": ["proponents"]},
        "repeats.count": 6,
        "task.recipe.epochs": 3,
        "task.recipe.learning_rate": 0.005,
    }
    for said in ran(folder, changes, capsys):
        assert "Removing the proponents of label lowers the probability of the gold label more than" in said
        assert "It does not do more than random examples of the label that is asked about" in said
        assert "A control moves the measurement by itself (random_same_label, proponents" in said
