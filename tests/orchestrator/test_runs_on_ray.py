"""Whole runs with two Ray workers that share a fake GPU: a bucket as the store, a budget of GPU-hours, a device that is too small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.harness import wait_until
from orchestrator.cli import main
from orchestrator.experiment.run_dir import existing
from orchestrator.inspection.status import status
from tests.orchestrator.counted_influence import FOLDER as DIARY
from tests.orchestrator.counted_influence import SHARED, solved, workers
from tests.orchestrator.gated_campaign import GATED, N_TRAININGS, RECIPE, HourEach, open_gate, quiet_tables, repeated
from tests.orchestrator.gated_recipe import FOLDER, FREE, trainings
from tests.orchestrator.hungry_recipe import attempts
from tests.orchestrator.runtime.ray_fixtures import ray_of_our_own
from tests.orchestrator.tiny_campaign import pipeline_of, result_bytes, run_here, small_config
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
TWO_ON_A_GPU = {"workers": 2, "gpus_per_worker": 0.5, "device": "cpu", "retries": 2}
PATIENCE_S = 120


@dataclass(frozen=True)
class Place:
    """What this process and Ray's workers share."""

    folder: Path
    server: S3Server


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder, server = tmp_path_factory.mktemp("shared"), S3Server().start()
    quiet_tables()  # in an environment of its own
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.environment, FOLDER: str(folder), DIARY: str(folder)}.items():
            patch.setenv(name, value)
        with ray_of_our_own(2, num_gpus=1):
            yield Place(folder, server)
    server.stop()


@pytest.fixture(autouse=True)
def _new_diary(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    for path in place.folder.iterdir():
        path.unlink()


def run(path: Path, *limits: str) -> int:
    return main(["run", str(path), "--yes", *limits])


def test_two_workers_bring_the_tables_of_a_quiet_run_into_a_bucket(place, tmp_path):
    open_gate(place.folder)
    output = f"s3://{place.server.make_bucket()}/campaigns"
    config = small_config(tmp_path, **GATED, compute=TWO_ON_A_GPU, output=output)
    assert run(config.path) == 0
    uri = f"{output}/{pipeline_of(config).experiment.run_name}"
    assert result_bytes(existing(uri).path) == quiet_tables()
    assert len(trainings(place.folder)) == N_TRAININGS
    assert main(["verify", uri]) == 0


def test_two_workers_share_the_queries_through_the_bucket_and_score_as_one_process_does(place, tmp_path):
    here = small_config(tmp_path, **SHARED)
    run_here(here, until="score")
    (place.folder / "diary").unlink()
    (place.folder / "wait").touch()
    output = f"s3://{place.server.make_bucket()}/campaigns"
    there = small_config(tmp_path, **SHARED, compute=TWO_ON_A_GPU, output=output)
    assert run(there.path, "--until", "score") == 0
    assert solved(place.folder) == dict.fromkeys(range(5), 1)
    assert len(workers(place.folder)) == 2
    names = [pipeline_of(config).store.blobs.list("scores/") for config in (here, there)]
    assert names[0] == names[1], "the names hold score ids and digests of the scores"
    told = [pipeline_of(config).scores.diagnostics() for config in (here, there)]
    assert told[0] == told[1]


def test_a_budget_of_gpu_hours_is_overrun_by_at_most_one_retrain_per_worker(place, tmp_path, monkeypatch, capsys):
    """It is used up by the sixth retrain; those that run then are asked for, and are given back or finished."""
    monkeypatch.setattr("orchestrator.spending.meter.SystemClock", lambda: HourEach(place.folder))
    config = small_config(tmp_path, **GATED, compute=TWO_ON_A_GPU)
    log = pipeline_of(config).run_dir.path / "refit.log"

    def opens_when_they_are_asked_for() -> None:
        wait_until(lambda: log.exists() and "must give retrain" in log.read_text(), PATIENCE_S)
        open_gate(place.folder)

    thread = Thread(target=opens_when_they_are_asked_for)
    thread.start()
    assert run(config.path, "--max-gpu-hours", f"{FREE + 0.5}") == 3
    thread.join()
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"refit: retrains: stopped (the budget of {FREE + 0.5} GPU-hours is used up (" in last
    begun = len(trainings(place.folder))
    assert FREE < begun <= FREE + 2
    assert run(config.path, "--max-gpu-hours", f"{FREE + 0.5}") == 3
    assert len(trainings(place.folder)) == begun
    assert run(config.path, "--max-gpu-hours", "1000") == 0
    assert result_bytes(log.parent) == quiet_tables()
    assert sum(repeated(place.folder).values()) <= 2 * 2, "what was given back was begun twice, nothing else"
    assert not [key for key in pipeline_of(config).store.blobs.list("checkpoints/") if "resume" in key]


def test_what_is_out_of_memory_runs_again_alone_and_is_given_up_if_that_does_not_help(place, tmp_path, capsys):
    recipe: dict[str, Any] = {**RECIPE, "name": "tests.orchestrator.hungry_recipe:Hungry"}
    changes = {**GATED, "plugins": ["tests.orchestrator.hungry_recipe"], "task.recipe": recipe}
    config = small_config(tmp_path, **changes, compute=TWO_ON_A_GPU)
    assert run(config.path) == 4
    done = attempts(place.folder)
    by_role = {role: [one for one in done if one.role == role] for role in ("", "hungry", "hopeless")}
    assert [len(by_role[role]) for role in ("hungry", "hopeless")] == [2, 2], "two retries were allowed; one is of use"
    for alone in (by_role["hungry"][1], by_role["hopeless"][1]):
        beside = [
            one for one in done if one != alone and one.began_ns < alone.ended_ns and alone.began_ns < one.ended_ns
        ]
        assert not beside
    pipeline = pipeline_of(config)
    rows = pipeline.ledger_rows(work.spec_id for work in pipeline.planned.works)
    found = {f"{w.edit.edit_id}-{w.spec.seed}": rows[w.spec_id] for w in pipeline.planned.works}
    hungry, hopeless = (found[os.readlink(place.folder / role)] for role in ("hungry", "hopeless"))
    assert (hungry.outcome.status, hungry.attempts) == ("ok", 2)
    assert (hopeless.outcome.status, hopeless.attempts) == ("quarantined", 2)
    assert hopeless.outcome.error.startswith("OutOfMemoryError: CUDA out of memory.")
    assert {row.outcome.status for key, row in found.items() if row is not hopeless} == {"ok"}
    now = status(pipeline.run_dir.path)
    assert (now.quarantined, now.failures) == (1, {"OutOfMemoryError": 1})
    assert hopeless.outcome.spec_id in capsys.readouterr().err.splitlines()[-1]
