"""Ids of text stand as stable whole numbers; ids that are whole numbers stay what they are, however they are written."""

from __future__ import annotations

import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.ids import number_of, read_ids
from tasks.data.splits import class_order, to_split
from tasks.errors import InputError
from tests.tasks.data.split_files import read_split, refusal


def csv_of(ids):
    return "i,t,l\n" + "".join(f"{name},text {n},{'xy'[n % 2]}\n" for n, name in enumerate(ids))


def where(row):
    return f"row {row}"


@pytest.mark.parametrize("ids", [["12.0", "7.0"], ["12", "7.0"], [" 12", "7 "], ["0012", "07"]])
def test_whole_numbers_in_text_are_those_numbers(tmp_path, ids):
    records = read_split(tmp_path, csv_of(ids), id="i")
    assert records.ids.tolist() == [12, 7]
    assert records.given_ids is None


def test_floats_that_are_whole_numbers_are_those_numbers(tmp_path):
    pq.write_table(pa.table({"i": [12.0, -3.0], "t": ["a", "b"], "l": [1, 0]}), tmp_path / "data.parquet")
    assert read_split(tmp_path, name="data.parquet", id="i").ids.tolist() == [12, -3]
    assert read_split(tmp_path, '{"i": 5.0, "t": "a", "l": "x"}\n', "d.jsonl", id="i").ids.tolist() == [5]


def test_text_ids_are_kept_as_given_and_stand_as_numbers(tmp_path):
    given = ["doc-17", str(uuid.UUID(int=5)), "zwölf", "2"]
    records = read_split(tmp_path, csv_of(given), id="i")
    assert records.given_ids == tuple(given)
    assert records.ids.tolist() == [number_of(name) for name in given]
    assert (records.ids >= 0).all()


def test_a_text_id_has_the_same_number_in_every_file_order_and_limit(tmp_path):
    first = read_split(tmp_path, csv_of(["a", "b", "c"]), id="i")
    second = read_split(tmp_path, csv_of(["c", "x", "a"]), "other.csv", id="i", limit=1)
    assert second.ids[0] == first.ids[2]
    assert second.given_ids == ("c",)


def test_the_number_of_a_text_id_never_changes():
    # written down once: another value would orphan every ledger of a data set with such ids
    assert number_of("doc-17") == 118810201693887243


def test_uuids_of_parquet_are_text(tmp_path):
    ids = [uuid.UUID(int=n) for n in (1, 2)]
    assert read_ids(ids, where).given == tuple(map(str, ids))


def test_splits_show_ids_as_they_were_given(tmp_path):
    for ids, shown in ((["doc-1", "doc-2"], "doc-2"), (["1.0", "2.0"], "2")):
        records = read_split(tmp_path, csv_of(ids), id="i")
        split = to_split(records, {name: name for name in class_order(records.labels)}, "the classes")
        assert split.shown_id(split.ids[1]) == shown


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["a", ""], ["line 3: i", "no id", "text"]),
        (["a", "b", "a"], ["line 4: i", "id 'a' is also that of", "line 2", "unique"]),
        (["1", "2.5"], ["line 3: i", "'2.5' is not an id", "whole numbers"]),
        (["1", "1.0"], ["line 3: i", "id 1 is also"]),
    ],
)
def test_ids_that_cannot_be_used_are_named(tmp_path, ids, says):
    message = refusal(tmp_path, csv_of(ids), id="i")
    assert all(text in message for text in says), message


@pytest.mark.parametrize("value", [None, True, 1.5, float("nan"), float("inf"), 2.0**60, 2**63, [1], {"a": 1}, b"x"])
def test_values_that_are_no_ids(value):
    with pytest.raises(InputError, match="row 1: "):
        read_ids([1, value], where)


def test_numbers_and_texts_do_not_mix(tmp_path):
    lines = "".join(json.dumps({"i": i, "t": "a", "l": "x"}) + "\n" for i in ("doc-1", 2))
    message = refusal(tmp_path, lines, "d.jsonl", id="i")
    assert "line 2: i: 2 is a number, and other ids of this column are text" in message
