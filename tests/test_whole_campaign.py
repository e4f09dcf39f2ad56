"""One campaign, however it is run and whatever dies meanwhile: the same bytes, nothing lost, nothing repeated."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks.harness import descendants, kill, ledger_rows, parts, ray_workers, refit, start, tables, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TINY = "configs/tiny.yaml"


def run_tiny(output: Path, *more: object, config: str | Path = TINY) -> str:
    return refit("run", config, "--yes", "--set", f"output={output}", *more, timeout=240).stdout


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """The store of a campaign that ran in-process; tests only copy it."""
    output = tmp_path_factory.mktemp("untouched")
    run_tiny(output, "--address", "local")
    return output


@pytest.fixture(scope="module")
def quiet(untouched, tmp_path_factory) -> Path:
    """A copy of that store, on which tests also run commands."""
    output = tmp_path_factory.mktemp("quiet")
    shutil.copytree(untouched, output, dirs_exist_ok=True)
    return output


def distinct(output: Path) -> set[str]:
    return {row["spec_id"] for row in ledger_rows(output)}


def run_dir(output: Path) -> Path:
    return next(path.parent for path in output.glob("*/results"))


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_bytes_of_the_in_process_run(quiet, tmp_path, workers):
    run_tiny(tmp_path, "--set", f"compute.workers={workers}")
    assert tables(tmp_path) == tables(quiet)
    assert len(ledger_rows(tmp_path)) == len(distinct(quiet))


def test_killing_the_driver_loses_nothing_finished(quiet, tmp_path):
    process = start("run", TINY, "--yes", "--set", f"output={tmp_path}", log=tmp_path / "log")
    assert wait_until(lambda: len(parts(tmp_path)) >= 3, 120, process), (tmp_path / "log").read_text()
    kill(process.pid)
    process.wait()
    finished = distinct(tmp_path)
    run_tiny(tmp_path)
    assert tables(tmp_path) == tables(quiet)
    rows = ledger_rows(tmp_path)
    assert finished <= {row["spec_id"] for row in rows}
    assert len(rows) == len(distinct(quiet)), "something finished was trained again"


def test_killing_a_worker_loses_nothing(quiet, tmp_path):
    process = start("run", TINY, "--yes", "--set", f"output={tmp_path}", log=tmp_path / "log")
    assert wait_until(lambda: len(parts(tmp_path)) >= 2 and bool(ray_workers(process.pid)), 120, process), (
        tmp_path / "log"
    ).read_text()
    kill(ray_workers(process.pid)[0])
    assert process.wait(timeout=200) == 0, (tmp_path / "log").read_text()
    assert tables(tmp_path) == tables(quiet)
    assert len(ledger_rows(tmp_path)) == len(distinct(quiet))


@pytest.mark.parametrize("address", [("--address", "local"), ()])
def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(quiet, tmp_path, address):
    command = ("run", TINY, "--yes", "--set", f"output={tmp_path}", *address)
    process = start(*command, log=tmp_path / "log")
    assert wait_until(lambda: len(parts(tmp_path)) >= 3, 120, process), (tmp_path / "log").read_text()
    below = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 3, (tmp_path / "log").read_text()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid, _ in below), 30)
    refit(*command, timeout=240)
    assert tables(tmp_path) == tables(quiet)
    assert len(ledger_rows(tmp_path)) == len(distinct(quiet))


def test_a_finished_campaign_trains_nothing_and_starts_nothing(quiet):
    before = ledger_rows(quiet)
    out = run_tiny(quiet)
    assert "retrained 0" in out
    assert sorted(map(str, ledger_rows(quiet))) == sorted(map(str, before))  # small parts may have been merged


def test_adding_a_method_plans_only_sets_that_are_new(quiet, tmp_path):
    add = (
        "--set",
        "methods=[{name: tracin_we}, {name: tracin_last}, {name: random}, {name: tracin_last, as: twin}, {name: tfidf}]",
    )
    output = ("--set", f"output={quiet}")
    refit("run", TINY, "--yes", "--until", "plan", "--address", "local", *output, *add)
    plan = json.loads(refit("plan", TINY, "--json", *output, *add).stdout)
    assert plan["scores"] == "complete"
    assert plan["in_ledger"] == len(distinct(quiet)) - 1  # the scoring model is no removal set
    assert 0 < plan["to_do"] <= 3 * 2 * 2 * 2
    assert plan["distinct"] == plan["in_ledger"] + plan["to_do"]


def test_verify_holds_and_retrains_give_the_same_bytes(quiet):
    out = refit("verify", run_dir(quiet), "--rerun", 2).stdout
    assert "MISMATCH" not in out
    assert "2 retrains done again" in out


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_part_is_named_set_aside_and_trained_again(untouched, quiet, tmp_path, damage):
    shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
    part = parts(tmp_path)[len(parts(tmp_path)) // 2]
    data = bytearray(part.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    part.write_bytes(data if damage == "flip" else data[:-7])
    lost = len(distinct(quiet)) - len({row["spec_id"] for p in parts(tmp_path) if p != part for row in rows_of(p)})
    found = refit("verify", run_dir(tmp_path), check=False)
    assert found.returncode == 1
    assert part.name in found.stdout
    again = run_tiny(tmp_path, "--address", "local")
    assert f"retrained {lost}" in again
    assert part.name not in [p.name for p in parts(tmp_path)] or part.read_bytes() != bytes(data)
    assert tables(tmp_path) == tables(quiet)
    assert refit("verify", run_dir(tmp_path)).returncode == 0


def rows_of(part: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(part, columns=["spec_id"]).to_pylist()


def test_a_changed_table_is_a_mismatch(untouched, tmp_path):
    shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
    table = run_dir(tmp_path) / "results" / "summary.csv"
    header, first, *rest = table.read_text().splitlines(keepends=True)
    table.write_text("".join([header, first.replace("0", "9", 1), *rest]))
    found = refit("verify", run_dir(tmp_path), check=False)
    assert found.returncode == 1
    assert "summary.csv" in found.stdout


def test_status_and_report_from_the_ledger_alone(quiet):
    status = json.loads(refit("status", run_dir(quiet), "--json").stdout)
    assert status["complete"]
    assert status["finished"] == status["planned"] > 0
    assert status["quarantined"] == 0
    table = run_dir(quiet) / "results" / "curves.csv"
    kept = table.read_bytes()
    table.unlink()
    refit("report", run_dir(quiet))
    assert table.read_bytes() == kept


def test_other_numerics_are_refused_by_name(quiet):
    found = refit(
        "run",
        TINY,
        "--yes",
        "--address",
        "local",
        "--set",
        f"output={quiet}",
        "--set",
        "compute.cpus_per_worker=2",
        check=False,
    )
    assert found.returncode == 2
    assert "threads was 1 and is 2" in found.stderr


def test_a_second_driver_is_kept_out(tmp_path):
    process = start("run", TINY, "--yes", "--address", "local", "--set", f"output={tmp_path}", log=tmp_path / "log")
    assert wait_until(lambda: len(parts(tmp_path)) >= 1, 60, process)
    process.send_signal(signal.SIGSTOP)
    try:
        second = refit("run", TINY, "--yes", "--address", "local", "--set", f"output={tmp_path}", check=False)
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 3
    assert str(process.pid) in second.stderr
    assert process.wait(timeout=120) == 0
