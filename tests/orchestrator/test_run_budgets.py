"""Budgets of whole runs, by the command line: they end in time, say which limit it was, and go on later to the same tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from orchestrator import api
from orchestrator.cli import main
from orchestrator.inspection.status import status
from tests.orchestrator.gated_campaign import GATED, HourEach, open_gate, quiet_tables, repeated
from tests.orchestrator.gated_recipe import FOLDER, FREE, trainings
from tests.orchestrator.tiny_campaign import committed, result_bytes, write_config

pytestmark = pytest.mark.slow
PRICES = {"date": "2026-11-01", "currency": "EUR", "per_hour": {"default": 1.0}}
HALF = 8.5  # hours, of a campaign that takes more than twice as many


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Of diary, gate and store."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def hour_each(folder, monkeypatch) -> Path:
    monkeypatch.setattr("orchestrator.spending.meter.SystemClock", lambda: HourEach(folder))
    open_gate(folder)
    return folder


def command(folder: Path, *limits: str, **changes: object) -> list[str]:
    path = write_config(folder, {**GATED, **changes})
    return ["run", str(path), "--yes", "--address", "local", *limits]


def run_dir(folder: Path) -> Path:
    [path] = (folder / "runs").glob("small-*")
    return path


@pytest.mark.parametrize(
    ("flag", "limit", "more", "reason"),
    [
        ("--max-cost", f"{HALF}", "1000", "the budget of 8.5 EUR is used up (9.00 spent)"),
        ("--deadline", "8h30m", "1000h", "the deadline 20"),
    ],
)
def test_a_run_ends_at_its_limit_and_goes_on_under_a_larger_one(hour_each, capsys, flag, limit, more, reason):
    assert main(command(hour_each, flag, limit, prices=PRICES)) == 3
    assert f"refit: retrains: stopped ({reason}" in capsys.readouterr().err.splitlines()[-1]
    assert len(trainings(hour_each)) == 9, "the ninth was begun within the limit, none after it"
    rows = committed(api.load_config(hour_each / "config.yaml"))
    assert len(rows) == 9, "what fits is finished"
    if flag == "--max-cost":
        assert main(command(hour_each, flag, limit, prices=PRICES)) == 3
        assert len(trainings(hour_each)) == 9, "the sessions of a run share one budget"
    assert main(command(hour_each, flag, more, prices=PRICES)) == 0
    assert result_bytes(run_dir(hour_each)) == quiet_tables()
    assert not repeated(hour_each)
    spent = status(run_dir(hour_each)).spent
    assert spent is not None
    assert spent["cost"] == pytest.approx(len(trainings(hour_each)))
    assert (spent["currency"], spent["sessions"], spent["unknown_sessions"]) == ("EUR", 2, 0)


def test_a_price_that_the_first_moment_uses_up_trains_nothing_more_than_one(folder, capsys):
    open_gate(folder)
    prices = {**PRICES, "per_hour": {"local": 1e12}}
    assert main(command(folder, "--max-cost", "1", prices=prices)) == 3
    assert "stopped (the budget of 1 EUR is used up (" in capsys.readouterr().err.splitlines()[-1]
    assert len(trainings(folder)) <= 1


def test_a_deadline_by_the_clock_on_the_wall(folder, capsys):
    """It passes while a retrain waits at the gate: that one is finished, and no other begun."""
    until = time.monotonic() + 3.5

    def opens_after_the_deadline() -> None:
        while time.monotonic() < until:
            time.sleep(0.05)
        open_gate(folder)

    thread = Thread(target=opens_after_the_deadline)
    thread.start()
    assert main(command(folder, "--deadline", "3s")) == 3
    thread.join()
    assert "stopped (the deadline 20" in capsys.readouterr().err.splitlines()[-1]
    assert len(trainings(folder)) <= FREE + 1
    assert main(command(folder)) == 0
    assert result_bytes(run_dir(folder)) == quiet_tables()
    assert not repeated(folder)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (("--max-cost", "10"), "--max-cost: a cost limit of 10 needs prices; give prices: {date: ..."),
        (("--deadline", "yesterday"), "--deadline: 'yesterday' is not a valid deadline; allowed: a time such as "),
        (("--max-gpu-hours", "0"), "--max-gpu-hours: 0 is not a valid limit; allowed: a number above 0"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_limit_that_is_none_is_refused_before_anything_else_is_said(folder, capsys, limits, problem, verb):
    path = write_config(folder)
    more = ("--yes",) if verb == "run" else ("--pilot",)
    assert main([verb, str(path), "--address", "local", *more, *limits]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"refit: {problem}")
    assert not list(folder.glob("runs/*/refit.log"))


def planned(arguments: list[str], read: Callable[[], str]) -> dict:
    assert main(["plan", "--json", *arguments]) == 0
    return json.loads(read())


def test_a_pilot_is_kept_and_tells_a_range_and_the_run_does_the_rest(folder, capsys):
    open_gate(folder)
    run = command(folder, prices=PRICES)
    path, said = run[1], lambda: capsys.readouterr().out
    before = planned([path], said)
    assert (before["scores"], before["time_s"], before["cost"]) == ("missing", "unknown", "unknown")
    found = planned([path, "--pilot", "2", "--address", "local"], said)
    assert (found["scores"], found["in_ledger"], found["scoring_models_to_do"]) == ("complete", 2, 0)
    assert found["to_do"] == found["distinct"] - 2 > 0
    assert 0 <= found["time_low_s"] < found["time_s"] < found["time_high_s"]
    assert 0 <= found["cost_low"] < found["cost"] < found["cost_high"]
    assert len(committed(api.load_config(folder / "config.yaml"))) == 3
    assert planned([path, "--pilot", "2", "--address", "local"], said) == found, "done once"
    assert main(run) == 0
    assert result_bytes(run_dir(folder)) == quiet_tables()
    assert not repeated(folder)
