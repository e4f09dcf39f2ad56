"""Somebody else's matrix: conventions, content, and one line for every way in which it can be wrong."""

import numpy as np
import pandas as pd
import pytest
from small_task import SmallCNN, SmallTask, query_block

from influence.checkpoint import QueryBlock
from influence.gradients import GradientShard
from influence.methods.scores_file import ScoresFile
from tasks.components import parse_component
from tasks.errors import InputError

TASK = SmallTask(SmallCNN())
TRAIN, TEST = TASK.splits["train"].ids, TASK.splits["test"].ids
SCORES = np.random.default_rng(0).normal(size=(len(TEST), len(TRAIN))).astype(np.float32)
PAIRS = pd.DataFrame(
    {"query_id": np.repeat(TEST, len(TRAIN)), "train_id": np.tile(TRAIN, len(TEST)), "score": SCORES.ravel()}
)


def method(path, axes="query_train", orientation="helpful_positive"):
    return ScoresFile(path=str(path), axes=axes, orientation=orientation)


def scored(found, base_dir, queries=None):
    queries = queries or query_block(TASK)
    prepared = found.prepare(TASK, base_dir, queries)
    rows = np.arange(5, 12)
    train = GradientShard(TRAIN[rows], rows, ())
    return found.score(GradientShard(queries.ids, queries.rows, ()), train, prepared)


def write(path, table):
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)


@pytest.mark.parametrize("axes", ["query_train", "train_query"])
@pytest.mark.parametrize("orientation", ["helpful_positive", "harmful_positive"])
def test_npz_in_any_order_and_convention(tmp_path, axes, orientation):
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(TEST)), rng.permutation(len(TRAIN))
    foreign = SCORES[np.ix_(rows, columns)] * (-1 if orientation == "harmful_positive" else 1)
    foreign = foreign.T if axes == "train_query" else foreign
    np.savez(tmp_path / "s.npz", scores=foreign, query_ids=TEST[rows], train_ids=TRAIN[columns])
    found = method("s.npz", axes, orientation)
    found.check(TASK, tmp_path, "config.yaml: methods[0]")
    np.testing.assert_array_equal(scored(found, tmp_path), SCORES[[4, 0, 7], 5:12])


@pytest.mark.parametrize("name", ["s.parquet", "s.csv"])
def test_pairs_in_any_order(tmp_path, name):
    write(tmp_path / name, PAIRS.sample(frac=1, random_state=0)[["score", "train_id", "query_id"]])
    found = method(name, "train_query", "harmful_positive")
    found.check(TASK, tmp_path, "c")
    np.testing.assert_allclose(scored(found, tmp_path), -SCORES[[4, 0, 7], 5:12], rtol=1e-6)


def test_scores_that_the_task_knows(tmp_path):
    found = method("planted:oracle")
    found.check(TASK, tmp_path, "c")
    labels = TASK.splits["train"].labels[5:12]
    np.testing.assert_array_equal(scored(found, tmp_path), query_block(TASK).labels[:, None] == labels)


def test_the_content_of_the_file_is_its_identity(tmp_path):
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, PAIRS)
    write(tmp_path / "c.csv", PAIRS.assign(score=1.0))
    a, b, c = (method(name).options_identity(tmp_path) for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c
    assert method("a.csv", orientation="harmful_positive").options_identity(tmp_path) != a
    with pytest.raises(InputError, match="cannot be read"):
        method("d.csv").options_identity(tmp_path)


@pytest.mark.parametrize("option", ["path", "axes", "orientation"])
def test_conventions_must_be_declared(option):
    options = {"path": "s.npz", "axes": "query_train", "orientation": "helpful_positive"}
    del options[option]
    with pytest.raises(InputError, match=f"methods.0.{option}: is missing"):
        parse_component(ScoresFile, options, "c.yaml", "methods.0")


ARRAYS = {"scores": SCORES, "query_ids": TEST, "train_ids": TRAIN}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scores": np.where(np.arange(30) == 4, np.nan, SCORES)},
            f"score of query {TEST[0]}, train {TRAIN[4]} is nan",
        ),
        ({"scores": np.where(np.arange(30) == 4, np.inf, SCORES)}, f"train {TRAIN[4]} is inf"),
        ({"scores": SCORES.T}, r"shape \(30, 9\); the ids give \(9, 30\).*axes: query_train"),
        ({"scores": SCORES[0]}, "scores have 1 axes"),
        ({"scores": SCORES.astype(str)}, "scores have dtype"),
        ({"scores": SCORES.astype(object)}, "not an npz file of plain arrays"),
        ({"query_ids": TEST.astype(float)}, "query_ids have dtype float64"),
        ({"query_ids": np.where(TEST[1] == TEST, TEST[0], TEST)}, f"query id {TEST[0]} appears 2 times"),
        ({"train_ids": np.where(TRAIN[1] == TRAIN, TRAIN[0], TRAIN)}, f"train id {TRAIN[0]} appears 2 times"),
        (
            {"train_ids": np.where(TRAIN[1] == TRAIN, 9999, TRAIN)},
            f"1 of 30 train ids have no scores; the first is {TRAIN[1]}",
        ),
        (
            {"train_ids": np.append(TRAIN, 9999), "scores": np.zeros((9, 31))},
            "1 train ids are not in the train set; the first is 9999",
        ),
        ({"train_ids": None}, "array 'train_ids' is missing; the file holds scores, query_ids"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path, change, message):
    np.savez(tmp_path / "s.npz", **{name: array for name, array in (ARRAYS | change).items() if array is not None})
    with pytest.raises(InputError, match=message) as caught:
        method("s.npz").check(TASK, tmp_path, "c.yaml: methods[0]")
    assert str(tmp_path / "s.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (PAIRS.assign(score=PAIRS.score.where(PAIRS.index != 41)), "row 42: score is missing or NaN"),
        (PAIRS.assign(score="high"), "row 1: score 'high' is not a number"),
        (PAIRS.assign(train_id=PAIRS.train_id + 0.5), "row 1: train_id .* is not a whole number"),
        (PAIRS.drop(columns="score"), "columns are query_id, train_id; exactly query_id, train_id, score"),
        (PAIRS.assign(note=1), "columns are query_id, train_id, score, note"),
        (pd.concat([PAIRS, PAIRS.iloc[[7]]]), f"the pair of query {TEST[0]} and train {TRAIN[7]} is listed twice"),
        (PAIRS.drop(index=7), f"the pair of query {TEST[0]} and train {TRAIN[7]} is missing"),
        (PAIRS[PAIRS.train_id != TRAIN[0]], f"1 of 30 train ids have no scores; the first is {TRAIN[0]}"),
        (PAIRS.iloc[:0], "holds no rows"),
    ],
    ids=range(9),
)
def test_wrong_tables_are_refused(tmp_path, suffix, table, message):
    write(tmp_path / f"s.{suffix}", table)
    with pytest.raises(InputError, match=message):
        method(f"s.{suffix}").check(TASK, tmp_path, "c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.npz", b"not a zip", "not an npz file of plain arrays"),
        ("s.npz", b"", "not an npz file of plain arrays"),
        ("s.npz", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil\x94.", "not an npz file of plain arrays"),
        ("s.npz", None, "not an npz file of plain arrays"),
        ("s.parquet", b"PAR1 cut", "cannot be read as parquet"),
        ("s.csv", b"", "cannot be read as csv"),
        ("s.csv", b"query_id,train_id,score\n\xff\xfe,1,2", "cannot be read as csv"),
        ("s.pkl", b"", r"unknown kind of file '.pkl'; allowed: .npz, .parquet, .csv"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, content, message):
    if content is None:
        np.save(tmp_path / "plain.npy", SCORES)
        content = (tmp_path / "plain.npy").read_bytes()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        method(name).check(TASK, tmp_path, "c")


def test_missing_files_directories_and_names_are_refused(tmp_path):
    (tmp_path / "dir.npz").mkdir()
    for path, message in (
        ("gone.npz", "c.yaml: methods.0: path 'gone.npz' is not a file"),
        ("dir.npz", "path 'dir.npz' is not a file"),
        ("planted:nobody", "path 'planted:nobody': the task has no scores 'nobody'"),
    ):
        with pytest.raises(InputError, match=message):
            method(path).check(TASK, tmp_path, "c.yaml: methods.0")


def test_queries_without_scores_are_refused(tmp_path):
    np.savez(tmp_path / "s.npz", **(ARRAYS | {"scores": SCORES[1:], "query_ids": TEST[1:]}))
    found, queries = method("s.npz"), query_block(TASK)
    found.check(TASK, tmp_path, "c")
    with pytest.raises(InputError, match=f"query id {TEST[0]} has no scores; the file must hold every query"):
        found.prepare(TASK, tmp_path, queries)
    covered = QueryBlock("test", TEST[[3, 1]], np.array([3, 1]), queries.labels[:2])
    assert scored(found, tmp_path, covered).shape == (2, 7)
