"""`refit plan` of plain files with a record number as id says what it read: rows, classes, empty and repeated texts, test rows in train."""

from __future__ import annotations

import csv

from orchestrator.cli import main
from tests.orchestrator.doubtful_campaign import doubtful


def test_plan_counts_classes_empty_and_repeated_texts_and_test_rows_that_stand_in_train(tmp_path, capsys):
    config = doubtful(tmp_path / "data")
    with (config.path.parent / "test.csv").open() as file:
        copied = next(csv.DictReader(file))["text"]
    config = doubtful(tmp_path / "data", train_texts={4: copied, 6: "", 8: "once and again", 10: "once and again"})
    assert main(["plan", str(config.path)]) == 0
    said = capsys.readouterr().out
    (train,) = [line for line in said.splitlines() if line.startswith("data train")]
    (test,) = [line for line in said.splitlines() if line.startswith("data test")]
    assert "60 rows" in train
    assert "'north' 30, 'south' 30" in train
    assert "1 empty text" in train
    assert "1 duplicate text" in train
    assert "120 rows" in test
    assert "1 with a text that also occurs in train" in test
