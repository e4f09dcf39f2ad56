"""Ids of text in score files: each column is read by the ids of its own split, and equal ids are looked up once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_task import SmallCNN, SmallTask

from influence.base import QueryBlock
from influence.methods.scores_file import ScoresFile
from tasks.base import Split
from tasks.data.ids import number_of
from tasks.errors import InputError


def named(split: Split, names: list[str]) -> Split:
    return replace(split, ids=np.array([number_of(name) for name in names]), given_ids=tuple(names))


def task_of(text: str, measured: tuple[str, ...]) -> SmallTask:
    """Train or test ids are text; the first of them looks like a number that is an id of the other split."""
    task = SmallTask(SmallCNN(), n_train=6, n_test=3)
    for split, n in (("train", 6), ("test", 3)):
        numbers, names = np.arange(1, n + 1), ["1", *(f"{split}-{i}" for i in range(1, n))]
        found = task.splits[split]
        task.splits[split] = named(found, names) if split == text else replace(found, ids=numbers)
    task.measured = {name: np.arange(len(task.splits[name])) for name in measured}
    return task


def write(path, task):
    train, test = ([task.splits[s].shown_id(i) for i in task.splits[s].ids] for s in ("train", "test"))
    scores = np.arange(len(train) * len(test), dtype=np.float32)
    table = pd.DataFrame({"query_id": np.repeat(test, len(train)), "train_id": train * len(test), "score": scores})
    for split, column in (("train", "train_id"), ("test", "query_id")):
        if task.splits[split].given_ids is None:
            table[column] = table[column].astype(int)
    if path.suffix == ".npz":
        ids = {
            s: table[c].drop_duplicates().to_numpy() for s, c in (("query_ids", "query_id"), ("train_ids", "train_id"))
        }
        ids = {name: np.array(values.tolist()) for name, values in ids.items()}
        np.savez(path, scores=scores.reshape(len(test), -1), **ids)
    else:
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return scores.reshape(len(test), -1)


@pytest.mark.parametrize("name", ["s.npz", "s.csv", "s.parquet"])
@pytest.mark.parametrize("text", ["train", "test"])
@pytest.mark.parametrize("measured", [("test",), ("test", "train")])
def test_a_query_id_is_looked_up_among_the_queries_of_its_split_only(tmp_path, name, text, measured):
    task, method = task_of(text, measured), ScoresFile(path=name, axes="query_train", orientation="helpful_positive")
    scores = write(tmp_path / name, task)
    method.check(task, tmp_path, "c")
    test = task.splits["test"]
    found = method.prepare(task, tmp_path, QueryBlock("test", test.ids, np.arange(3), test.labels))
    np.testing.assert_array_equal(found.scores, scores)


def test_a_missing_train_id_is_told_as_given_where_queries_are_numbers(tmp_path):
    task = task_of("train", ("test",))
    write(tmp_path / "s.csv", task)
    table = pd.read_csv(tmp_path / "s.csv", dtype={"train_id": str})
    table[table.train_id != "train-3"].to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(InputError, match="the first is 'train-3'"):
        ScoresFile(path="s.csv", axes="query_train", orientation="helpful_positive").check(task, tmp_path, "c")
