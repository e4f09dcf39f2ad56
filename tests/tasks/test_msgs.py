"""The task msgs: three kinds of data, one task."""

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest

GRAMMAR = {"n_train": 400, "n_dev": 60, "n_test": 200, "n_adjectives": 4}
OPTIONS = {
    "name": "msgs",
    "data": {"grammar": GRAMMAR},
    "model": {"name": "text_cnn", "embedding_dim": 16, "filters": 16, "kernel": 1, "max_length": 32},
    "recipe": {"name": "finetune", "epochs": 6, "batch_size": 32, "learning_rate": 0.01},
}


def open_task(base_dir=Path(), **options):
    return parse_named(TASKS, {**OPTIONS, **options}, "c.yaml", "task").open(OpenRequest(base_dir, where="c.yaml"))


@pytest.fixture(scope="module")
def task():
    task = open_task()
    task.prepare()
    return task


def test_label_is_the_adjective_and_confound_the_order_of_the_articles(task):
    assert task.classes == ("absent", "present")
    for split in task.splits.values():
        assert split.confound_names == ("a first", "the first")
        assert (split.labels.dtype, split.confounds.dtype) == (np.int64, np.int64)


def test_every_split_is_measured_unless_asked_otherwise(task):
    assert {name: len(rows) for name, rows in task.measured.items()} == {"train": 400, "dev": 60, "test": 200}
    some = open_task(measure=[{"split": "test", "limit": 5}])
    assert {name: len(rows) for name, rows in some.measured.items()} == {"test": 5}


def test_the_confound_alone_tells_the_label_in_train_and_not_in_test(task):
    agreement = {name: (split.labels == split.confounds).mean() for name, split in task.splits.items()}
    assert agreement == {"train": 399 / 400, "dev": 40 / 60, "test": 133 / 200}


def test_a_model_that_sees_no_order_learns_the_core_attribute(task):
    trained = task.recipe.train(task, Training(edit=Edit(), seed=3, numerics=Numerics()))
    outputs = task.outputs(trained.network, "test", task.measured["test"])
    assert (outputs.argmax(1) == task.splits["test"].labels).mean() > 0.9


def test_same_options_same_identity_and_other_sentences_another(task):
    assert open_task().train_identity() == task.train_identity()
    assert open_task(data={"grammar": {**GRAMMAR, "seed": 1}}).train_identity() != task.train_identity()
    assert open_task(data={"grammar": {**GRAMMAR, "inoculation": 0.1}}).train_identity() != task.train_identity()


def test_defaults_of_the_grammar_need_no_options():
    splits = open_task(data={"grammar": {}}).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 5000, "dev": 1000, "test": 1000}


@pytest.mark.parametrize("data", [{"published": "a"}, {"source": "a", "seed": 3}, {"grammar": GRAMMAR}])
def test_the_block_is_written_and_read_back_as_it_was(data):
    config = parse_named(TASKS, {**OPTIONS, "data": data}, "c.yaml", "task")
    again = parse_named(TASKS, {"name": "msgs", **config.model_dump(mode="json")}, "c.yaml", "task")
    assert again == config
    assert type(again.data) is type(config.data)


def test_task_survives_pickling(task):
    assert pickle.loads(pickle.dumps(task)).train_identity() == task.train_identity()


def rows_of(split):
    values = (split.texts, split.labels.tolist(), split.labels.tolist(), split.confounds.tolist())
    return list(zip(*values, strict=True))


def test_published_files_are_found_beside_the_config(task, tmp_path):
    (tmp_path / "msgs").mkdir()
    for name, split in task.splits.items():
        columns = dict(zip(("text", "label", "linguistic", "surface"), zip(*rows_of(split), strict=True), strict=True))
        pq.write_table(pa.table(columns), tmp_path / "msgs" / f"{name}.parquet")
    read = open_task(tmp_path, data={"published": "msgs"})
    assert read.train_identity() == task.train_identity()
    assert read.record_identity() == task.record_identity()


def test_original_files_are_mixed_as_published(task, tmp_path):
    columns = ("sentence", "linguistic_feature_label", "surface_feature_label")
    for name, part in (("train", "train"), ("inoculating", "train"), ("test", "test")):
        rows = [(text, core, surface) for text, core, _, surface in rows_of(task.splits[part])]
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    read = open_task(tmp_path, data={"source": ".", "rows": "all"})
    expected = list(task.splits["test"].texts[:100])
    random.Random(2023).shuffle(expected)
    assert read.splits["dev"].texts == tuple(expected)
    assert len(read.splits["train"]) == 400


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {}}, "c.yaml: task.data: {}: exactly one of published, source, grammar is needed"),
        ({"data": {"published": "a", "grammar": {}}}, "exactly one of published, source, grammar is needed"),
        ({"data": ["train"]}, "c.yaml: task.data: ['train']: exactly one of published, source, grammar is needed"),
        ({"data": {"published": 3}}, "c.yaml: task.data.published: 3: "),
        ({"data": {"published": "a", "seed": 1}}, "c.yaml: task.data.seed: unknown key 'seed'"),
        ({"data": {"source": "a", "inoculation": 0.7}}, "c.yaml: task.data.inoculation: 0.7: "),
        ({"data": {"source": "a", "rows": "half"}}, "c.yaml: task.data.rows: 'half': "),
        ({"data": {"grammar": {"n_train": "10"}}}, "c.yaml: task.data.grammar.n_train: '10': "),
        ({"data": {"grammar": {"n_tset": 10}}}, "c.yaml: task.data.grammar.n_tset: unknown key 'n_tset'; allowed: "),
        ({"data": {"grammar": None}}, "c.yaml: task.data.grammar: None: "),
        ({"data": {"published": "nowhere"}}, "c.yaml: task.data.published: 'nowhere' does not exist"),
        ({"data": {"source": "nowhere"}}, "c.yaml: task.data.source: 'nowhere' does not exist"),
        ({"measure": [{"split": "valid"}]}, "c.yaml: task.measure.0.split: no split 'valid'; splits: train, dev, test"),
        ({"model": {"name": "text_cnn", "filters": "10"}}, "c.yaml: task.model.filters: '10': "),
        ({"model": {"name": "dec"}}, "c.yaml: task.model"),
    ],
)
def test_bad_options_are_named(change, says):
    with pytest.raises(InputError) as caught:
        open_task(**change)
    assert str(caught.value).startswith("c.yaml: task.")
    assert says in str(caught.value)


def test_opening_imports_no_torch():
    code = f"""
import sys
from pathlib import Path
from tasks.components import parse_named
from tasks.registry import TASKS
from tasks.task import OpenRequest
parse_named(TASKS, {OPTIONS!r}, "c.yaml", "task").open(OpenRequest(Path())).train_identity()
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("False\n", 0), ran.stderr
