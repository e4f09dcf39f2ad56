"""Several runs that make the same SQLite file at the same time: one makes it, the others wait for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
N_RUNS = 4

# Everything slow is imported first, so that all processes come to the file together.
SYNC = """
import pathlib, sys, time, warnings
from dataclasses import replace
warnings.simplefilter("ignore", DeprecationWarning)
import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store
from track_records import make_record
from orchestrator.tracking.mlflow_tracker import sync

number, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
own = folder / str(number)
own.mkdir()
record = replace(make_record(own), run=f"{number:016x}")
(folder / f"ready-{number}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
result = sync(record, f"sqlite:///{folder}/runs/mlflow.db")
print(result.created, result.updated)
"""


@pytest.mark.slow
def test_runs_that_create_the_file_together_are_all_in_it(tmp_path):
    path = os.pathsep.join([str(HERE), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SYNC, str(number), str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(N_RUNS)
    ]  # fmt: skip
    try:
        while len(list(tmp_path.glob("ready-*"))) < N_RUNS:
            assert all(process.poll() is None for process in processes), "a process ended before it began"
            time.sleep(0.05)
        (tmp_path / "go").touch()
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [(output, process.returncode) for (output, _), process in zip(ended, processes, strict=True)] == (
        [("7 0\n", 0)] * N_RUNS
    ), [errors for _, errors in ended]
