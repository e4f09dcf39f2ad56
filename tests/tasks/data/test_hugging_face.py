"""Subsets and splits of local Hugging Face datasets; the tests that read one are skipped without the package `datasets`."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.tasks.data.split_files import read_split, refusal

HF = {"path": "nli", "format": "hf", "text": "premise", "text_pair": "hypothesis", "label": "label"}
CARD = """---
configs:
- config_name: mnli
  data_files:
  - {split: train, path: mnli/train.jsonl}
  - {split: validation_matched, path: mnli/dev.jsonl}
- config_name: rte
  data_files:
  - {split: train, path: rte/train.jsonl}
---
"""


@pytest.fixture
def folder(tmp_path):
    """A dataset folder with two subsets, described by its card as on the hub."""
    (tmp_path / "nli").mkdir()
    (tmp_path / "nli" / "README.md").write_text(CARD)
    for name, labels in (("mnli/train", (0, 1, 2)), ("mnli/dev", (2, 0)), ("rte/train", (1, 0))):
        path = tmp_path / "nli" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        rows = [{"premise": f"{name} {i}", "hypothesis": f"h{i}", "label": label} for i, label in enumerate(labels)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    """The package, which keeps what it prepares in the test's own folder."""
    found = pytest.importorskip("datasets")
    monkeypatch.setattr(found.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return found


def test_options_that_fit_no_dataset_are_refused_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "task.data.train.config" in refusal(tmp_path, **{**HF, "config": ""})
    assert "config is an option of format hf" in refusal(tmp_path, **{**HF, "format": "jsonl", "config": "mnli"})
    assert "pip install 'refit[hf]'" in refusal(tmp_path, **{**HF, "config": "mnli"})


def test_a_subset_and_a_split_are_chosen_by_name(datasets, folder):
    labels = {"0": "entailment", "1": "non-entailment", "2": "non-entailment"}
    train = read_split(folder, **HF, config="mnli", labels=labels)
    assert train.labels == ("entailment", "non-entailment", "non-entailment")
    assert train.texts[0] == "mnli/train 0 | h0"
    assert read_split(folder, **HF, config="mnli", split="validation_matched").labels == ("2", "0")
    assert read_split(folder, **HF, config="rte").labels == ("1", "0")


def test_a_subset_that_is_missing_or_unknown_is_refused_with_those_that_exist(datasets, folder):
    for options in ({}, {"config": "mnly"}):
        message = refusal(folder, **HF, **options)
        assert message.startswith("c.yaml: task.data.train.path: cannot read the dataset 'nli'")
        assert re.search(r"'mnli'.*'rte'", message)
    assert "no split 'dev'; splits: 'train', 'validation_matched'" in refusal(folder, **HF, config="mnli", split="dev")


def test_a_saved_dataset_has_no_subsets(datasets, tmp_path):
    made = datasets.Dataset.from_dict({"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": ["x", "y"]})
    made.save_to_disk(str(tmp_path / "nli"))
    assert read_split(tmp_path, **HF).texts == ("a | c", "b | d")
    assert "was written by save_to_disk and has no config 'mnli'" in refusal(tmp_path, **HF, config="mnli")
