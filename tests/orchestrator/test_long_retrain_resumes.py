"""A long retrain whose driver is killed goes on from where it was stored, on another machine, to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import ROOT, kill, start, wait_until
from orchestrator.cli import main
from orchestrator.experiment.run_dir import existing
from orchestrator.stages.pipeline import Pipeline
from tasks.data.edits import Edit
from tasks.recipe import Snapshot
from tests.orchestrator.gated_recipe import FOLDER
from tests.orchestrator.stepping_recipe import LAST, steps
from tests.orchestrator.tiny_campaign import pipeline_of, result_bytes, run_here, small_config
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
RECIPE = {
    "name": "tests.orchestrator.stepping_recipe:Stepping",
    "epochs": 2,
    "batch_size": 10,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "warmup_frac": 0.3,
    "schedule": "linear",
    "learning_rate": 0.05,
}
CHANGES = {
    "plugins": ["tests.orchestrator.stepping_recipe"],
    "task__recipe": RECIPE,
    "methods": [{"name": "tracin_last"}, {"name": "random"}],
    "repeats": {"count": 1},
}
N_STEPS = 8
PATIENCE_S = 120


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Iterator[str]:
    """A store that two machines share; this is the first of them."""
    server = S3Server().start()
    for name, value in (server.environment | {"PYTHONPATH": str(ROOT), FOLDER: str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    yield f"s3://{server.make_bucket()}"
    server.stop()


def stored(pipeline: Pipeline) -> set[str]:
    """Specs that have a snapshot."""
    keys = [key for key in pipeline.store.blobs.list("checkpoints/") if key.endswith("/resume.safetensors")]
    return {key.split("/")[1] for key in keys}


def waiting(folder: Path) -> list[str]:
    """Retrains that remove something, and have come to the gate."""
    return [key for key, step in steps(folder) if step == LAST and not key.startswith(Edit().edit_id)]


def quiet_tables(folder: Path) -> dict[str, bytes]:
    """Of the same campaign in a local store, never stored on the way."""
    folder.mkdir()
    (folder.parent / "open").touch()
    config = small_config(folder, **CHANGES, compute={"workers": 1, "snapshot_s": None})
    tables = result_bytes(run_here(config).run_dir)
    for name in ("open", "steps"):
        (folder.parent / name).unlink()
    return tables


def test_a_retrain_goes_on_from_its_last_snapshot_when_the_driver_was_killed(bucket, tmp_path, monkeypatch):
    quiet = quiet_tables(tmp_path / "quiet")
    compute = {"workers": 1, "snapshot_s": 0.01}
    config = small_config(tmp_path, **CHANGES, output=bucket, compute=compute)
    command, log = ["run", str(config.path), "--yes", "--address", "local"], tmp_path / "first.log"
    first = start(*command, log=log)
    wait_until(lambda: bool(waiting(tmp_path)) and len(stored(pipeline_of(config))) == 1, PATIENCE_S, first)
    assert first.poll() is None, log.read_text()
    kill(first.pid)
    first.wait()
    [interrupted], before = waiting(tmp_path), steps(tmp_path)
    (tmp_path / "open").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    assert main(command) == 0
    pipeline = pipeline_of(config)
    assert result_bytes(existing(f"{bucket}/{pipeline.experiment.run_name}").path) == quiet
    again = [step for key, step in steps(tmp_path)[len(before) :] if key == interrupted]
    assert again[0] > 1, "the first update was stored"
    assert again == list(range(again[0], N_STEPS + 1))
    assert stored(pipeline) == set()


def test_a_retrain_that_fails_half_way_goes_on_from_its_snapshot_in_the_same_session(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    for name in ("open", "stumble"):
        (tmp_path / name).touch()
    config = small_config(tmp_path, **CHANGES, compute={"workers": 1, "retries": 1, "snapshot_s": 0.01})
    assert run_here(config).exit_code == 0
    stumbled = waiting(tmp_path)[0]
    made = [step for key, step in steps(tmp_path) if key == stumbled]
    again = made[LAST:]
    assert made[:LAST] == list(range(1, LAST + 1))
    assert again == list(range(again[0], N_STEPS + 1))
    assert again[0] > 1
    assert stored(pipeline_of(config)) == set()


def test_no_snapshot_outlives_its_retrain(tmp_path, monkeypatch):
    """One that another session left, of a retrain that is short; and one of a retrain whose row was written just before a crash."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (tmp_path / "open").touch()
    config = small_config(tmp_path, **CHANGES)
    run_here(config, until="plan")
    pipeline = pipeline_of(config)
    scoring, short = pipeline.scoring[0].work.spec_id, pipeline.planned.works[1].spec_id
    left = Snapshot({}, {"asked": {}, "seconds": 1.0, "training": {}})
    for spec_id in (scoring, short):
        pipeline.store.checkpoints.progress(spec_id).save(left)
    stranger = "0" * 32  # of another campaign: it may be in use
    pipeline.store.checkpoints.progress(stranger).save(left)
    assert stored(pipeline) == {scoring, short, stranger}
    assert run_here(config).exit_code == 0
    assert stored(pipeline) == {stranger}
