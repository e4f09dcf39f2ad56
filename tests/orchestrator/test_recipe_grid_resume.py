"""A grid of all recipes against a confound, however it is run and whenever its driver dies: the same bytes, nothing trained twice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.harness import kill, ledger_rows, parts, refit, start, wait_until
from tests.orchestrator.msgs_grid import write_grid

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEEDS, RATES, INTERVAL = [2021, 2022], [0.5, 1.0], 3
ROUNDS = {"interval": INTERVAL, "round_epochs": 2, "round_batch_size": 4, "probes": 6, "group_size": 2}
TUNED = ("influence_tuning", "embedding_tuning")


def tuned(name: str) -> dict[str, Any]:
    """An arm with rounds, at each access rate."""
    options = {f"recipe.{key}": value for key, value in ROUNDS.items()}
    return {"name": name, "set": {"recipe.name": name, **options}, "grid": {"recipe.access_rate": RATES}}


GRID = {
    "task": {
        "name": "msgs",
        "data": {"grammar": {"n_train": 48, "n_dev": 24, "n_test": 24, "inoculation": 0.25}},
        "model": {"name": "transformer", "layers": 1, "hidden": 32, "heads": 2, "max_length": 16},
        "recipe": {"name": "finetune", "epochs": 2, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.003},
    },
    "observe": [
        {"name": "confound_influence_difference", "probes": 4, "examples": 4, "every": INTERVAL, "show": 1},
    ],
    "recipe_grid": {
        "arms": [
            {"name": "finetuning"},
            {"name": "adversarial", "set": {"recipe.name": "adversarial"}},
            *map(tuned, TUNED),
        ],
        "ablate": "recipe.access_rate",
        "failed": {"train_accuracy_below": 0.0},  # nobody learns much in two epochs: all count, all are compared
        "min_trials": len(SEEDS),
    },
    "repeats": {"seeds": SEEDS},
}
N_TRIALS = (2 + len(TUNED) * len(RATES)) * len(SEEDS)
IN_PROCESS, TWO_WORKERS = ("--address", "local"), ("--set", "compute.workers=2")


def command(folder: Path, address: tuple[str, ...]) -> tuple[object, ...]:
    return ("run", write_grid(folder, GRID), "--yes", *address)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    """The folder of a grid that ran to its end in one process."""
    folder = tmp_path_factory.mktemp("quiet")
    refit(*command(folder, IN_PROCESS))
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """Every file under results/ of the folder's only run."""
    (found,) = folder.glob("runs/*/results")
    return {path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Ledger rows by spec id, none of which is there twice."""
    found = ledger_rows(folder / "runs")
    assert len({row["spec_id"] for row in found}) == len(found), "a trial was trained twice"
    return {row["spec_id"]: row for row in found}


def test_the_grid_has_every_table_and_its_rounds_took_place(quiet):
    assert sorted(results(quiet)) == [
        f"{name}.csv" for name in ("accuracy", "checks", "cid", "cid_probes", "settings", "trials")
    ]
    assert len(rows(quiet)) == N_TRIALS
    metrics = [
        m for part in parts(quiet / "runs") for m in pq.read_table(part, columns=["metrics"])["metrics"].to_pylist()
    ]
    n_rounds = [dict(one)["n_rounds"] for one in metrics if "n_rounds" in dict(one)]
    assert n_rounds == [3.0] * (len(TUNED) * len(RATES) * len(SEEDS))  # after updates 3, 6 and 9 of 12
    (run,) = quiet.glob("runs/*/results")
    cid = pd.read_csv(run / "cid.csv")
    after_rounds = cid.loc[cid["stage"] == "round"]
    assert set(after_rounds["arm"]) == set(TUNED)
    assert set(after_rounds["step"]) == {3, 6, 9}
    assert set(after_rounds["level"]) == set(RATES)


@pytest.mark.parametrize(
    ("first", "then"),
    [(IN_PROCESS, TWO_WORKERS), (TWO_WORKERS, IN_PROCESS)],
    ids=["in-process-then-ray", "ray-then-in-process"],
)
def test_a_grid_whose_driver_is_killed_goes_on_elsewhere_to_the_same_bytes_and_trains_nothing_again(
    quiet, tmp_path, first, then
):
    log = tmp_path / "log"
    process = start(*command(tmp_path, first), log=log)
    assert wait_until(lambda: len(parts(tmp_path / "runs")) >= 2, 120, process), log.read_text()
    kill(process.pid)
    assert process.wait() == -signal.SIGKILL, log.read_text()
    finished = rows(tmp_path)
    assert 2 <= len(finished) < N_TRIALS, "killed in the middle"
    assert not list(tmp_path.glob("runs/*/results/*"))
    assert f"retrained {N_TRIALS - len(finished)} " in refit(*command(tmp_path, then)).stdout
    assert results(tmp_path) == results(quiet)
    after = rows(tmp_path)
    assert after.keys() == rows(quiet).keys()
    assert {spec_id: after[spec_id] for spec_id in finished} == finished
