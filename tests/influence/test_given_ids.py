"""Ids of text in score files: each column is read by the ids of its own split, and equal ids are looked up once."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from small_task import SmallCNN, SmallTask

from influence.checkpoint import QueryBlock
from influence.given_ids import GivenIds
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


GIVEN = GivenIds(query={"a": 11, "b": 12, "1": 13, "1.0": 14, "True": 15, "nan": 16, "None": 17})


@pytest.mark.parametrize(
    "values",
    [
        np.array(["b", "a", " a ", "7", "b", "other"], object),
        np.array(["b", "a", "7", "b"]),
        np.array([1, 7, 1, -3]),
        np.array([1.0, 7.0, np.nan, 1.0, -0.0, 0.0]),
        np.array([1, 1.0, True, "1", "1.0", "True", Decimal("1.0"), None, float("nan"), 1], object),
        np.array([], object),
        np.array([["a", "b"], ["b", "7"]], object),
    ],
    ids=range(7),
)
def test_numbers_are_those_of_each_value_alone(values):
    """However the ids are held: text, numbers, or values that are equal and are written differently."""
    found = GIVEN.numbers(values, "query_id", "f")
    alone = [int(GIVEN.numbers(np.array([str(v)]), "query_id", "f")[0]) for v in values.ravel().tolist()]
    assert found.dtype == np.int64
    assert found.shape == values.shape
    assert found.ravel().tolist() == alone


def test_the_first_unknown_train_id_is_named_in_the_order_of_the_text():
    with pytest.raises(InputError, match="train_id 'strange' is not in the train set"):
        GivenIds(train={"a": 11}).numbers(np.array(["a", "unknown", "strange"], object), "train_id", "f")


def test_ids_of_many_pairs_take_no_text_per_pair():
    """Text of fixed width takes 4 bytes per character and pair: 160 MB here, where codes take 0.8 MB."""
    import tracemalloc

    names = [f"{'x' * 396}{i:04d}" for i in range(100)]
    values = np.array(names, object)[np.arange(100_000) % 100]
    given = GivenIds(query=dict(zip(names, range(100), strict=True)))
    given.numbers(values[:200], "query_id", "f")
    tracemalloc.start()
    try:
        found = given.numbers(values, "query_id", "f")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.tolist() == (np.arange(100_000) % 100).tolist()
    assert peak < 20_000_000
