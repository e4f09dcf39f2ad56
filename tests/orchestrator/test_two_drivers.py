"""Two drivers on one ledger: one works; the other says who, and exits 3 or waits and takes over. Nothing finished is computed twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from gated_recipe import FOLDER, FREE, trainings
from tiny_campaign import write_config

from benchmarks.harness import ROOT, kill, ledger_rows, parts, refit, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
RECIPE = {"name": "tests.orchestrator.gated_recipe:Gated", "epochs": 1, "batch_size": 10, "learning_rate": 0.05}
GATED = {"plugins": ["tests.orchestrator.gated_recipe"], "task.recipe": RECIPE, "scores.checkpoints": [1]}
PATIENCE_S = 120


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Path:
    """The folder of diary and gate."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def command(folder: Path, name: str = "one", **changes: object) -> tuple[object, ...]:
    (folder / name).mkdir(exist_ok=True)
    config = write_config(folder / name, {**GATED, "output": str(folder / "runs"), "name": name, **changes})
    return ("run", config, "--yes", "--address", "local")


def at_the_gate(folder: Path, *arguments: object):
    """A driver that has finished something and waits at the gate."""
    process = start(*arguments, log=folder / "first.log")
    wait_until(lambda: len(trainings(folder)) > FREE and bool(parts(folder / "runs")), PATIENCE_S, process)
    assert process.poll() is None, (folder / "first.log").read_text()
    return process


@pytest.mark.parametrize("other", ["one", "two"])
def test_a_second_run_on_the_ledger_exits_3_naming_the_first_which_is_not_disturbed(gate, other):
    """`one` again is the same campaign; `two` another one on the same ledger."""
    first = at_the_gate(gate, *command(gate))
    changes = {} if other == "one" else {"deletion.k": [3, 6]}
    second = refit(*command(gate, other, **changes), check=False)
    assert second.returncode == 3
    assert f"is in use by process {first.pid} on host " in second.stderr
    assert second.stderr.splitlines()[-1].startswith("refit: ledger ")
    (gate / "open").touch()
    assert first.wait(PATIENCE_S) == 0
    assert set(Counter(trainings(gate)).values()) == {1}


@pytest.mark.parametrize("other", ["one", "two"])
def test_a_run_that_waits_takes_over_when_the_first_is_killed_and_repeats_only_what_was_in_flight(gate, other):
    first = at_the_gate(gate, *command(gate))
    changes = {} if other == "one" else {"deletion.k": [3, 6]}
    second = start(*command(gate, other, **changes), "--wait", log=gate / "second.log")
    wait_until(lambda: f"process {first.pid}" in (gate / "second.log").read_text(), PATIENCE_S, second)
    assert second.poll() is None
    begun, finished = set(trainings(gate)), {row["spec_id"] for row in ledger_rows(gate / "runs")}
    kill(first.pid)
    first.wait()
    (gate / "open").touch()
    assert second.wait(PATIENCE_S) == 0, (gate / "second.log").read_text()
    twice = [key for key, count in Counter(trainings(gate)).items() if count > 1]
    assert len(twice) <= len(begun) - len(finished)
    rows = [row["spec_id"] for row in ledger_rows(gate / "runs")]
    assert finished < set(rows)
    assert len(rows) == len(set(rows))
