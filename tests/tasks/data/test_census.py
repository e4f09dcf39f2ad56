"""What is counted of the data, and what is worth a warning before anything is trained."""

from __future__ import annotations

import numpy as np

from tasks.base import Split
from tasks.data.census import exact_overlap, take_census


def split(texts, labels=None, classes=("neg", "pos")):
    labels = [n % len(classes) for n in range(len(texts))] if labels is None else labels
    return Split(np.arange(len(texts)), np.asarray(labels, np.int64), classes, tuple(texts))


TRAIN = split(["a", "b", "a", " ", "", "c", "a"], [0, 1, 0, 0, 0, 1, 0])
TEST = split(["new", "b", "c", "a"])


def test_counts_of_every_split():
    train, test = take_census({"test": TEST, "train": TRAIN}, {"test": np.array([0, 1])})
    assert (train.split, train.n, train.n_measured) == ("train", 7, 0)
    assert train.classes == {"neg": 5, "pos": 2}
    assert (train.n_empty, train.n_duplicate, train.n_in_train) == (2, 2, None)
    assert (test.n_empty, test.n_duplicate, test.n_in_train, test.n_measured_in_train) == (0, 0, 3, 1)


def test_lines_and_warnings_say_what_was_counted():
    train, test = take_census({"test": TEST, "train": TRAIN}, {"test": np.array([0, 1])})
    assert train.line() == "7 rows; 'neg' 5, 'pos' 2; 2 empty texts; 2 duplicate texts"
    assert test.line() == (
        "4 rows (2 measured); 'neg' 2, 'pos' 2; 3 with a text that also occurs in train (1 of them measured)"
    )
    assert train.warnings() == ["train: 2 of 7 texts are empty"]
    assert test.warnings() == ["test: the exact text of 1 of 2 measured rows also occurs in train"]


def test_overlap_of_rows_is_exact():
    assert exact_overlap(TEST, TRAIN).tolist() == [1, 2, 3]
    assert exact_overlap(split(["A", "b "]), TRAIN).tolist() == []


def test_labels_that_differ_in_case_are_told_with_their_counts():
    (census,) = take_census({"train": split(["a", "b", "c"], [0, 1, 2], ("No", "no", "yes"))}, {})
    assert census.warnings() == [
        "train: the labels 'No' (1 row) and 'no' (1 row) differ only in upper and lower case and are separate classes"
    ]


def test_a_class_for_nearly_every_row_is_suspicious():
    classes = tuple(f"text number {n}" for n in range(60))
    (census,) = take_census({"train": split([f"t{n}" for n in range(60)], classes=classes)}, {})
    assert census.warnings() == ["train: 60 classes for 60 rows; is the label column the right one?"]
    assert "52 more classes" in census.line()


def test_splits_without_texts_or_classes_are_counted_too():
    points = Split(np.arange(3), np.zeros(3, np.int64), ("a", "b"), features=np.zeros((3, 2)))
    single = Split(np.arange(2), np.zeros(2, np.int64), ("",), ("x", "x"))
    train, words = take_census({"train": points, "words": single}, {})
    assert (train.n_empty, train.n_duplicate, train.line()) == (None, None, "3 rows; 'a' 3, 'b' 0")
    assert (words.classes, words.n_in_train) == ({}, 0)
