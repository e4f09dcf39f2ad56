"""A method whose scores are of no use says so on the terminal and in the report; the same command ends in the same way again."""

from __future__ import annotations

import numpy as np
import pytest

from influence.matrix import ScoreMatrix
from orchestrator.cli import main
from orchestrator.stages.score_warnings import score_warnings
from tasks.base import Split
from tests.orchestrator.small_campaigns import LOO, write_campaign
from tests.orchestrator.tiny_campaign import write_config

PLUGIN = "tests.orchestrator.hollow_methods"


def lost(n: int) -> dict:
    return {"name": f"{PLUGIN}:Lost", "as": "lost", "n": n}


def flat(n: int) -> dict:
    return {"name": f"{PLUGIN}:Flat", "as": "flat", "n": n}


def campaign(folder, *methods) -> list[str]:
    changes = {"plugins": [PLUGIN], "methods": [{"name": "random"}, *methods], "repeats.count": 2}
    return ["run", str(write_config(folder, changes)), "--yes", "--address", "local"]


def ended(command, capsys) -> tuple[int, list[str]]:
    code = main(command)
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("n", [1, 3])
def test_queries_without_scores_are_named_each_time_and_refused_by_the_plan(n, tmp_path, capsys):
    command = campaign(tmp_path, lost(n))
    said = f"warning: methods[1] (lost) diverged for {n} of 3 queries and ranks nothing for them"
    for _ in range(2):
        code, err = ended([*command, "--until", "score"], capsys)
        assert code == 0
        assert sum(line.startswith(said) for line in err) == 1, err
    refusal = f"refit: {command[1]}: methods[1]: lost diverged for {n} of 3 queries"
    for stage in ("plan", "retrain", "analyse"):
        for _ in range(2):
            code, err = ended([*command, "--until", stage], capsys)
            assert code == 2
            assert err[-1].startswith(refusal)
    code, err = ended(["plan", command[1]], capsys)
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(refusal)


def test_the_first_run_to_the_end_warns_and_ends_as_every_later_one(tmp_path, capsys):
    command = campaign(tmp_path, lost(2))
    first, second = ended(command, capsys), ended(command, capsys)
    assert first[0] == second[0] == 2
    assert first[1][-1] == second[1][-1]
    assert "methods[1]: lost diverged for 2 of 3 queries" in second[1][-1]


@pytest.mark.parametrize("n", [1, 3])
def test_equal_scores_are_named_on_the_terminal_and_in_the_report(n, tmp_path, capsys):
    command = campaign(tmp_path, flat(n))
    for _ in range(2):
        code, err = ended(command, capsys)
        assert code == 0
        said = f"methods[1] (flat) gives every training example the same score for {n} of 3 queries"
        assert sum(line.startswith(f"warning: {said}") for line in err) == 1, err
    [report] = tmp_path.glob("runs/*/report.html")
    assert said[1:] in report.read_text()


def test_a_campaign_that_can_do_without_some_queries_says_which(tmp_path, capsys):
    """leave_one_out needs no ranking: the queries are left out of the table, and the terminal and the report say so."""
    changes = {"plugins": [PLUGIN], "methods": [lost(2), *LOO["methods"]], "leave_one_out.over": {}}
    path = write_campaign(LOO, tmp_path, changes)
    code, err = ended(["run", str(path), "--yes", "--address", "local"], capsys)
    assert code == 0, err
    said = "diverged for 2 of 12 queries and ranks nothing for them"
    assert any(line.startswith("warning: methods[0] (lost on ") and said in line for line in err)
    [report] = tmp_path.glob("runs/*/report.html")
    assert said in report.read_text()


def test_queries_are_named_as_the_data_gives_them():
    """The split of the queries has ids of text: the numbers that stand for them are in no warning."""
    ids = np.array([2**62, 2**62 + 1])
    split = Split(ids, np.zeros(2, np.int64), ("one",), ("a", "b"), given_ids=("test-1", "test-2"))
    scores = np.array([[np.nan, np.nan], [0, 0]], np.float32)
    diverged, equal = score_warnings({("", "a"): ScoreMatrix(ids, np.arange(2), scores)}, ["a"], split)
    assert "(test-1)" in diverged
    assert "(test-2)" in equal


def test_scores_that_say_something_are_not_warned_of():
    scores = np.array([[1, 2, 3], [0, 0, 1e-30]], np.float32)
    matrix = ScoreMatrix(np.arange(2), np.arange(3), scores)
    alone = ScoreMatrix(np.arange(2), np.arange(1), scores[:, :1])
    assert score_warnings({("", "a"): matrix, ("", "b"): alone}, ["a", "b"]) == []
