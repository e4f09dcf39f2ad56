"""Labels that would silently merge or split classes are refused with both spellings and their counts."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.labels import label_texts
from tasks.data.splits import class_order
from tests.tasks.data.split_files import read_split, refusal


def jsonl(*labels):
    return "".join(json.dumps({"t": f"text {n}", "l": label}) + "\n" for n, label in enumerate(labels))


@pytest.mark.parametrize("other", ["neg ", " neg", "neg\t", "neg\u00a0"])
def test_labels_that_differ_in_blanks_around_them(tmp_path, other):
    message = refusal(tmp_path, f"t,l\na,neg\nb,pos\nc,{other}\nd,neg\n")
    assert f"data.csv: l: the labels 'neg' (2 records) and {other!r} (1 record) differ only in the blanks" in message


def test_blanks_that_every_record_of_a_class_has_are_no_mistake(tmp_path):
    assert read_split(tmp_path, "t,l\na, neg\nb, pos\nc, neg\n").labels == (" neg", " pos", " neg")


@pytest.mark.parametrize("labels", [(True, 1), (1, "1"), ("1", True), ("a", "b", 1), (1.0, "1")])
def test_labels_of_several_kinds_are_refused_and_both_rows_named(tmp_path, labels):
    message = refusal(tmp_path, jsonl(*labels), "d.jsonl")
    assert f"d.jsonl: line {len(labels)}: l: the label {labels[-1]!r} is " in message
    assert "d.jsonl: line 1: l is " in message
    assert "of one kind" in message


def test_whole_numbers_may_be_floats(tmp_path):
    assert read_split(tmp_path, jsonl(1.0, 0.0, 2), "d.jsonl").labels == ("1", "0", "2")
    pq.write_table(pa.table({"t": ["a", "b"], "l": [1.0, 0.0]}), tmp_path / "d.parquet")
    assert read_split(tmp_path, name="d.parquet").labels == ("1", "0")
    assert label_texts([Decimal("3.00")], str) == ["3"]


def test_labels_that_could_be_read_before_are_the_same(tmp_path):
    assert read_split(tmp_path, jsonl(True, False), "d.jsonl").labels == ("True", "False")
    assert read_split(tmp_path, "t,l\na,1.0\nb,No\n").labels == ("1.0", "No")


@pytest.mark.parametrize("label", [0.5, float("inf"), [1], {"a": 1}])
def test_values_that_are_no_labels(tmp_path, label):
    assert "labels are text or whole numbers" in refusal(tmp_path, jsonl(label), "d.jsonl")


def test_a_long_list_of_classes_is_shortened(tmp_path):
    from tasks.data.splits import to_split
    from tasks.errors import InputError

    records = read_split(tmp_path, "t,l\na,label_99x\n")
    classes = {f"label_{n}": f"label_{n}" for n in range(300)}
    with pytest.raises(InputError) as caught:
        to_split(records, classes, "the classes")
    message = str(caught.value)
    assert "'label_11' and 288 more" in message
    assert "did you mean 'label_99'?" in message
    assert len(message) < 500


def test_labels_of_very_many_digits_do_not_break_the_order_of_classes():
    long = "1" * 5000
    assert class_order(["2", long]) == sorted(["2", long])


MNLI = {"0": "entailment", "1": "non-entailment", "2": "non-entailment"}


def test_several_labels_become_one_class(tmp_path):
    assert read_split(tmp_path, jsonl(0, 1, 2.0, 0), "d.jsonl", labels=MNLI).labels == (
        "entailment",
        "non-entailment",
        "non-entailment",
        "entailment",
    )
    flags = {"True": "yes", "False": "no"}
    assert read_split(tmp_path, jsonl(True, False), "d.jsonl", labels=flags).labels == ("yes", "no")


def test_a_label_that_is_not_named_is_refused_with_row_and_names(tmp_path):
    message = refusal(tmp_path, jsonl(0, 1, 2, 3), "d.jsonl", labels=MNLI)
    assert message.endswith("d.jsonl: line 4: l: label '3' is not named in task.data.train.labels: '0', '1', '2'")
    assert "did you mean 'neg'?" in refusal(tmp_path, "t,l\na,neg \nb,pos\n", labels={"neg": "a", "pos": "b"})


def test_labels_of_records_that_are_not_used_need_no_name_but_count_as_there(tmp_path):
    content = jsonl(0, 1, 2, -1)
    assert len(read_split(tmp_path, content, "d.jsonl", labels=MNLI, limit=2).labels) == 2
    assert "label '-1' is not named" in refusal(tmp_path, content, "d.jsonl", labels=MNLI, take=[0.5, 1.0])


def test_a_name_that_no_label_has_is_refused(tmp_path):
    message = refusal(tmp_path, jsonl("no", "yes"), "d.jsonl", labels={"no": "a", "yes": "b", "Yes": "b"})
    assert message == (
        "c.yaml: task.data.train.labels: no record has the label 'Yes'; labels: 'no', 'yes'; did you mean 'yes'?"
    )


def test_spellings_that_a_map_names_are_no_mistake(tmp_path):
    labels = {"neg": "negative", " neg": "negative", "pos": "positive"}
    assert read_split(tmp_path, "t,l\na,neg\nb, neg\nc,pos\n", labels=labels).labels == (
        "negative",
        "negative",
        "positive",
    )


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({}, "at least one label is needed"),
        ({"a": ""}, "label 'a' becomes ''; a class needs a name"),
        ({"a": "x", "b": "x "}, "the classes 'x' and 'x ' differ only in the blanks around them"),
        ({"a": 1}, "task.data.train.labels.a"),
    ],
)
def test_maps_that_are_none(tmp_path, labels, says):
    assert says in refusal(tmp_path, "t,l\na,a\nb,b\n", labels=labels)
