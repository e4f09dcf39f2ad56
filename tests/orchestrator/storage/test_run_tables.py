import numpy as np
import pandas as pd
import pytest

from orchestrator.storage.parquet import DamagedError
from orchestrator.storage.tables import read_plan, read_scores_table, write_plan, write_scores_table

PLAN = {
    "method": ["tracin", "tracin", "random"],
    "query_id": np.array([5, 5, -2]),
    "group": ["proponents", "opponents", "proponents"],
    "k": np.array([10, 2**40, 1]),
    "repeat": np.array([0, 1, 2]),
    "spec_id": ["a" * 32, "b" * 32, "a" * 32],
}


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (1, 5), (5, 1), (2, 0), (0, 2), (0, 0)])
def test_scores_come_back_as_a_matrix(tmp_path, shape):
    queries, trains = np.arange(shape[0])[::-1] * 7, np.arange(shape[1]) + 100
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_scores_table(tmp_path / "scores" / "m.parquet", queries, trains, scores)
    read = read_scores_table(tmp_path / "scores" / "m.parquet")
    if scores.size:
        for found, written in zip(read, (queries, trains, scores), strict=True):
            np.testing.assert_array_equal(found, written, strict=True)
    else:
        assert [len(part) for part in read] == [0, 0, 0]


def test_scores_are_one_row_per_query_and_training_example_for_others(tmp_path):
    scores = np.array([[1, 2], [3, 4]], np.float32)
    write_scores_table(tmp_path / "m.parquet", np.array([8, 9]), np.array([1, 2]), scores)
    frame = pd.read_parquet(tmp_path / "m.parquet")
    assert frame.dtypes.astype(str).to_dict() == {"query_id": "int64", "train_id": "int64", "score": "float32"}
    assert frame.values.tolist() == [[8, 1, 1], [8, 2, 2], [9, 1, 3], [9, 2, 4]]


def test_scores_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        write_scores_table(tmp_path / "m.parquet", np.arange(2), np.arange(3), np.zeros((3, 2), np.float32))
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1, 3], [0, 1, 2, 2], [0, 1, 0, 1], [3, 1, 2, 0]])
def test_a_scores_table_with_holes_is_refused_by_name(tmp_path, order):
    path = tmp_path / "m.parquet"
    write_scores_table(path, np.array([8, 9]), np.array([1, 2]), np.arange(4, dtype=np.float32).reshape(2, 2))
    frame = pd.read_parquet(path)
    frame.iloc[order].to_parquet(path, index=False)
    with pytest.raises(DamagedError, match=r"m\.parquet"):
        read_scores_table(path)


def test_the_plan_comes_back(tmp_path):
    write_plan(tmp_path / "plan.parquet", PLAN)
    read = read_plan(tmp_path / "plan.parquet")
    assert list(read) == ["method", "query_id", "group", "k", "repeat", "spec_id"]
    assert {name: column.tolist() for name, column in read.items()} == {name: list(c) for name, c in PLAN.items()}
    assert [str(column.dtype) for column in read.values()] == ["object", "int64", "object", "int64", "int32", "object"]
    assert pd.read_parquet(tmp_path / "plan.parquet").method.tolist() == PLAN["method"]


def test_a_plan_may_be_empty_and_given_as_arrays(tmp_path):
    write_plan(tmp_path / "plan.parquet", {name: np.asarray(column)[:0] for name, column in PLAN.items()})
    assert {len(column) for column in read_plan(tmp_path / "plan.parquet").values()} == {0}
    write_plan(tmp_path / "plan.parquet", {name: np.asarray(column) for name, column in PLAN.items()})
    assert read_plan(tmp_path / "plan.parquet")["spec_id"].tolist() == PLAN["spec_id"]


def test_a_plan_of_another_campaign_comes_back(tmp_path):
    other = {"arm": ["a", "b"], "train_id": [7, 8], "spec_id": ["x", "y"]}
    write_plan(tmp_path / "plan.parquet", other)
    assert {name: column.tolist() for name, column in read_plan(tmp_path / "plan.parquet").items()} == other


def test_a_plan_without_spec_ids_or_of_unequal_lengths_is_refused(tmp_path):
    for wrong in ({"method": ["a"]}, {**PLAN, "k": [1]}):
        with pytest.raises(ValueError, match=r"spec_id|length"):
            write_plan(tmp_path / "plan.parquet", wrong)


def test_the_same_tables_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_plan(tmp_path / name, PLAN)
        write_scores_table(tmp_path / (name + "s"), np.arange(3), np.arange(2), np.ones((3, 2), np.float32))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "as").read_bytes() == (tmp_path / "bs").read_bytes()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b"", lambda b: b"PAR1" * 9, lambda b: b[:40] + bytes([b[40] ^ 4]) + b[41:]]
)
def test_a_damaged_table_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "plan.parquet"
    write_plan(path, PLAN)
    path.write_bytes(damage(path.read_bytes()))
    for read in (read_plan, read_scores_table):
        with pytest.raises(DamagedError, match=r"plan\.parquet: "):
            read(path)
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "none.parquet")
