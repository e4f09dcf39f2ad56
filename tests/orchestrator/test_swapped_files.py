"""Content says what it is: two stored files of one kind whose contents are swapped never change a result."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load

from orchestrator import api
from orchestrator.cli import main
from orchestrator.inspection.status import status
from orchestrator.inspection.verify import verify
from orchestrator.spending.book import SessionSpend, SpendBook
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointError
from orchestrator.storage.lease import Lease, LeaseHeld
from orchestrator.storage.sealed import sealed_metadata
from orchestrator.storage.snapshots import StoredSnapshot
from tasks.recipe import Snapshot
from tests.orchestrator.small_campaigns import small_loo
from tests.orchestrator.tiny_campaign import Finished, result_bytes, run_here, small_config

_DIGEST = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="session")
def two_tasks(tmp_path_factory) -> Path:
    """A store of two campaigns of one kind whose ledgers differ, and of one that has two scoring models."""
    folder = tmp_path_factory.mktemp("two")
    run_here(small_config(folder, scores__models=2))
    run_here(small_config(folder, name="other", task__n_queries=7))
    return folder


@pytest.fixture
def spoilt(two_tasks, tmp_path) -> Finished:
    """A copy to be spoilt."""
    shutil.copytree(two_tasks / "runs", tmp_path / "runs")
    config = small_config(tmp_path, scores__models=2)
    return Finished(tmp_path, config, run_here(config, until="score"))


def swap(one: Path, other: Path) -> None:
    """Exchange two files; a digest in their names is made to fit, as somebody who renames files by hand would have it."""
    contents = one.read_bytes(), other.read_bytes()
    assert contents[0] != contents[1]
    for path, content in ((one, contents[1]), (other, contents[0])):
        path.unlink()
        fitting = _DIGEST.sub(hashlib.sha256(content).hexdigest(), path.name)
        path.with_name(fitting).write_bytes(content)


def shards_of_two_methods(runs: Path) -> tuple[Path, Path]:
    first, second = (sorted(folder.glob("shard-*"))[0] for folder in sorted((runs / "scores").iterdir())[:2])
    assert first.parent != second.parent
    return first, second


def shards_of_two_ranges(runs: Path) -> tuple[Path, Path]:
    first, second, *_ = sorted(sorted((runs / "scores").iterdir())[0].glob("shard-*"))
    return first, second


def parts_of_two_ledgers(runs: Path) -> tuple[Path, Path]:
    first, second = (sorted(folder.glob("part-*"))[0] for folder in sorted((runs / "ledger").iterdir()))
    return first, second


def checkpoints_of_two_models(runs: Path) -> tuple[Path, Path]:
    first, second, *_ = sorted((runs / "checkpoints").iterdir())
    return first / "4.safetensors", second / "4.safetensors"


def checkpoints_of_two_steps(runs: Path) -> tuple[Path, Path]:
    first, second = sorted(sorted((runs / "checkpoints").iterdir())[0].glob("*.safetensors"))
    return first, second


def run_tables(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def of(runs: Path) -> tuple[Path, Path]:
        return next(runs.glob("small-*")) / name, next(runs.glob("other-*")) / name

    return of


def score_tables_of_two_methods(runs: Path) -> tuple[Path, Path]:
    run = next(runs.glob("small-*"))
    return run / "scores" / "tracin_last.parquet", run / "scores" / "with_bias.parquet"


def records_of_two_ledgers(runs: Path) -> tuple[Path, Path]:
    first, second = sorted((runs / "ledger").glob("*/task.json"))
    return first, second


def spends_of_two_runs(runs: Path) -> tuple[Path, Path]:
    first, second = (sorted(next((runs / "spend").glob(f"{name}-*")).iterdir())[0] for name in ("small", "other"))
    return first, second


KINDS: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    "score shards of two methods": shards_of_two_methods,
    "score shards of two ranges": shards_of_two_ranges,
    "parts of two ledgers": parts_of_two_ledgers,
    "records of two ledgers": records_of_two_ledgers,
    "checkpoints of two models": checkpoints_of_two_models,
    "checkpoints of two steps": checkpoints_of_two_steps,
    "score tables of two methods": score_tables_of_two_methods,
    "score tables of two runs": run_tables("scores/tracin_last.parquet"),
    "plans of two runs": run_tables("plan.parquet"),
    "spend records of two runs": spends_of_two_runs,
}


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_files_are_found_by_verify_and_made_good_by_run(kind, spoilt, capsys):
    before, runs = result_bytes(spoilt.run_dir), spoilt.folder / "runs"
    assert before
    assert main(["verify", str(spoilt.run_dir)]) == 0
    swap(*KINDS[kind](runs))
    assert main(["verify", str(spoilt.run_dir)]) == 1
    assert "MISMATCH" in capsys.readouterr().out
    if "checkpoints" in kind:  # weights are asked for only where scores are missing
        shutil.rmtree(runs / "scores")
    again = run_here(spoilt.config)
    assert again.exit_code == 0
    assert result_bytes(spoilt.run_dir) == before
    if "spend" not in kind:  # what was spent cannot be computed again
        assert verify(api.open_run(spoilt.run_dir).pipeline(), rerun=2).problems == []


def test_a_swapped_shard_changes_no_ranking_even_before_it_is_verified(spoilt):
    """The plan is made from what is left, not from what lies under a wrong name."""
    swap(*shards_of_two_methods(spoilt.folder / "runs"))
    assert api.plan(spoilt.config).missing_scores != ()


def test_weights_of_another_step_are_never_loaded(spoilt):
    first, second = checkpoints_of_two_steps(spoilt.folder / "runs")
    spec_id, steps = first.parent.name, (int(first.stem), int(second.stem))
    swap(first, second)
    with pytest.raises(CheckpointError, match=rf"holds the weights of {spec_id} at step {steps[1]}"):
        spoilt.pipeline.store.checkpoints.load(spec_id, steps[0])


def test_status_counts_nothing_by_the_plan_of_another_run(spoilt, capsys):
    swap(*KINDS["plans of two runs"](spoilt.folder / "runs"))
    assert main(["status", str(spoilt.run_dir)]) == 2
    assert "plan.parquet: belongs to run 'other-" in capsys.readouterr().err


def test_scores_of_another_method_are_not_shown_as_its_own(spoilt):
    swap(*score_tables_of_two_methods(spoilt.folder / "runs"))
    with pytest.raises(Exception, match="belongs to label 'with_bias', not 'tracin_last'"):
        api.open_run(spoilt.run_dir).scores("tracin_last")


def test_what_a_method_said_of_its_work_is_not_taken_for_anothers(tmp_path):
    config = small_loo(tmp_path)
    run_here(config)
    first, second, *_ = sorted((tmp_path / "runs" / "scores").glob("*/diagnostics.json"))
    swap(first, second)
    pipeline = api.open_run(next((tmp_path / "runs").glob("small-loo-*"))).pipeline()
    assert [problem for problem in verify(pipeline).problems if "diagnostics.json" in problem]
    assert pipeline.store.scores.diagnostics(first.parent.name) == {}


def test_a_snapshot_of_another_retrain_is_not_gone_on_from(tmp_path):
    blobs = LocalBlobs(tmp_path)
    for number, spec_id in enumerate(("a" * 32, "b" * 32)):
        StoredSnapshot(blobs, spec_id).save(Snapshot({"x": np.array([number])}, {"step": number}))
    swap(*sorted(tmp_path.glob("checkpoints/*/resume.safetensors")))
    assert StoredSnapshot(blobs, "a" * 32).load() is None


def test_the_lease_of_another_ledger_keeps_nobody_out(tmp_path):
    blobs = LocalBlobs(tmp_path)
    for task_id in ("a" * 32, "b" * 32):
        Lease(blobs, task_id).acquire(1e9)
    with pytest.raises(LeaseHeld):
        Lease(blobs, "a" * 32).acquire(1e9)
    swap(*sorted(tmp_path.glob("ledger/*/lease.json")))
    Lease(blobs, "a" * 32).acquire(1e9)


def test_what_another_session_spent_is_in_no_sum(tmp_path):
    book = SpendBook(LocalBlobs(tmp_path), "run")
    for name, gpu_hours in (("one", 1.0), ("two", 2.0)):
        book.write(name, SessionSpend(started="", updated="", gpu_hours=gpu_hours, node_hours={}))
    assert book.read().gpu_hours == 3.0
    swap(*sorted(tmp_path.glob("spend/run/*.json")))
    assert (book.read().gpu_hours, len(book.read().unknown)) == (0.0, 2)


# --- scoring again ----------------------------------------------------------------------------------------------------


def test_scores_that_were_altered_and_named_anew_are_found_by_scoring_again(spoilt):
    """Everything agrees with everything else: only to compute them again tells."""
    pipeline = spoilt.pipeline
    stage = pipeline.scores
    for label, method in pipeline.experiment.scored.items():
        for shard in pipeline.store.scores.load(stage.score_id(method)):
            path = next((spoilt.folder / "runs" / "scores" / stage.score_id(method)).glob(f"shard-{shard.start:09d}-*"))
            path.unlink()
            stage.keep(label, shard.start, shard.stop, shard.scores * np.float32(1.001))  # the order stays
    spoilt.pipeline.models.write_tables(spoilt.pipeline.run_dir)
    assert verify(spoilt.pipeline).problems == []
    found = verify(spoilt.pipeline, rerun=2).problems
    assert len(found) == 2
    assert all("differ from those in the store when done again" in problem for problem in found)


def test_verify_says_how_many_shards_it_scored_again(finished):
    checked = verify(finished.pipeline, rerun=3).checked
    assert "3 score shards done again, compared byte by byte" in checked


# --- stores of before -------------------------------------------------------------------------------------------------


def without_labels(path: Path) -> None:
    """Write a parquet file as the version before labels did."""
    table = pq.read_table(path)
    kept = (
        {b"query_ids": table.schema.metadata[b"query_ids"]} if b"query_ids" in (table.schema.metadata or {}) else None
    )
    pq.write_table(table.replace_schema_metadata(kept), path)
    path.rename(path.with_name(_DIGEST.sub(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)))


def unseal(path: Path) -> None:
    """Write a checkpoint as the version before labels did."""
    from safetensors.numpy import save

    from orchestrator.storage.sealed import SEAL, UNSEALED, seal

    path.write_bytes(seal(save(load(path.read_bytes()), {SEAL: UNSEALED})))


def test_a_store_of_before_resumes_without_a_retrain(spoilt):
    """Parts and weights count as they are, shards that do not say what they are are scored again."""
    before, runs = result_bytes(spoilt.run_dir), spoilt.folder / "runs"
    shards = sorted(runs.glob("scores/*/shard-*.parquet"))
    for path in (*shards, *runs.glob("ledger/*/part-*.parquet"), *runs.glob("small-*/*.parquet")):
        without_labels(path)
    for path in runs.glob("checkpoints/*/*.safetensors"):
        unseal(path)
    for path in runs.glob("spend/*/*.json"):
        stored: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in stored.items() if key not in ("run", "session")}))
    problems = verify(spoilt.pipeline).problems
    assert len(problems) == 2, "one for each method"
    assert all(
        "written by an older version, without their ids and ranges; refit run computes them again" in problem
        for problem in problems
    )
    assert status(spoilt.run_dir).complete
    again = run_here(spoilt.config)
    assert again.report.retrained == 0
    assert result_bytes(spoilt.run_dir) == before
    assert verify(spoilt.pipeline, rerun=2).problems == []


def test_what_is_stored_says_what_it_is(spoilt):
    runs = spoilt.folder / "runs"
    for path in runs.glob("scores/*/shard-*.parquet"):
        assert pq.read_schema(path).metadata[b"score_id"].decode() == path.parent.name
    for path in runs.glob("ledger/*/part-*.parquet"):
        assert pq.read_schema(path).metadata[b"task_id"].decode() == path.parent.name
    for path in runs.glob("checkpoints/*/*.safetensors"):
        said = sealed_metadata(path.read_bytes())
        assert said is not None
        assert (said["spec_id"], said["step"]) == (path.parent.name, path.stem)
