"""The same things from Python: load_config, plan, run, open_run."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import orchestrator
from orchestrator.runtime import worker
from orchestrator.storage.lease import Lease, LeaseHeld
from tasks.errors import InputError
from tests.orchestrator.tiny_campaign import (
    CONFIG,
    committed,
    pipeline_of,
    result_bytes,
    run_here,
    small_config,
    write_config,
)

ROOT = Path(orchestrator.__file__).resolve().parents[1]
CURVES = ["method", "group", "k", "delta", "se", "ci_low", "ci_high", "se_fixed", "ci_fixed_low", "ci_fixed_high"]
COUNTS = ["n_queries", "n_repeats", "n_excluded"]
ACCURACY = ["accuracy", "accuracy_delta"]
ACCURACY += [f"accuracy_{ci}_{end}" for ci in ("ci", "ci_fixed") for end in ("low", "high")]


def test_the_package_offers_the_four_names_and_no_others():
    assert sorted(orchestrator.__all__) == ["load_config", "open_run", "plan", "run"]
    assert all(callable(getattr(orchestrator, name)) for name in orchestrator.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = orchestrator.nonsense


def test_load_config_takes_a_path_and_overrides(tmp_path):
    path = write_config(tmp_path)
    assert orchestrator.load_config(str(path)).campaign.k == (2, 5)
    assert orchestrator.load_config(path, ["deletion.k=[3]"]).campaign.k == (3,)


def test_a_run_says_how_it_ended(finished):
    result = finished.result
    assert (result.exit_code, result.report.stage, result.report.quarantined) == (0, "analyse", ())
    assert result.report.retrained == result.report.attempts > 1
    assert result.run_dir.name == orchestrator.plan(finished.config).run


def test_the_tables_of_a_run_are_data_frames(finished):
    view = orchestrator.open_run(finished.run_dir)
    curves = view.curves()
    assert list(curves.columns) == CURVES + COUNTS + ACCURACY
    assert len(curves) == 3 * 2 * 2
    assert set(curves["method"]) == {"tracin_last", "with_bias", "random"}
    assert len(view.query_curves()) == 3 * len(curves)
    assert list(view.summary().columns)[:3] == ["method", "group", "auc_del"]
    means = curves.groupby(["method", "group"])["delta"].mean()
    aucs = view.summary().set_index(["method", "group"])["auc_del"]
    assert means.to_dict() == pytest.approx(aucs.to_dict(), abs=1e-12)
    assert {"baseline", "diff", "p_holm"} <= set(view.contrasts().columns)


def test_scores_are_a_frame_by_query_and_train_id(finished):
    scores = orchestrator.open_run(finished.run_dir).scores("tracin_last")
    assert scores.shape == (3, 40)
    assert scores.index.tolist() == finished.pipeline.queries.ids.tolist()
    assert scores.columns.tolist() == list(range(1000, 1040))
    assert np.isfinite(scores.to_numpy()).all()


def test_what_is_not_there_is_refused_by_name(finished, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such run directory"):
        orchestrator.open_run(tmp_path / "nowhere")
    half = run_here(small_config(tmp_path), until="plan")
    with pytest.raises(InputError, match=r"curves\.csv: no results yet"):
        orchestrator.open_run(half.run_dir).curves()


def test_the_same_call_resumes_and_ends_as_a_quiet_run(finished, tmp_path):
    config = small_config(tmp_path)
    assert run_here(config, until="train").report.retrained == 1
    assert run_here(config, until="score").report.retrained == 0
    assert run_here(config, until="retrain").report.retrained == finished.result.report.retrained - 1
    rows = committed(config)
    last = run_here(config)
    assert (last.exit_code, last.report.retrained) == (0, 0)
    assert committed(config) == rows
    assert result_bytes(last.run_dir) == result_bytes(finished.run_dir)


def test_every_stage_leaves_what_the_next_one_reads(tmp_path):
    config = small_config(tmp_path)
    run_dir = run_here(config, until="train").run_dir
    assert {"config.yaml", "provenance.json"} <= {path.name for path in run_dir.iterdir()}
    assert not (run_dir / "scores").exists()
    run_here(config, until="score")
    assert sorted(path.stem for path in (run_dir / "scores").iterdir()) == ["tracin_last", "with_bias"]
    assert not (run_dir / "plan.parquet").exists()
    run_here(config, until="plan")
    assert (run_dir / "plan.parquet").exists()
    assert not (run_dir / "results").exists()


def test_another_run_directory_shares_the_store(own_copy, tmp_path):
    elsewhere = tmp_path / "a" / "run"
    found = orchestrator.run(own_copy.config, run_dir=elsewhere, address="local")
    assert (found.run_dir, found.report.retrained) == (elsewhere, 0)
    assert result_bytes(elsewhere) == result_bytes(own_copy.run_dir)
    assert orchestrator.open_run(elsewhere).pipeline().run_dir.path == elsewhere
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        orchestrator.run(own_copy.config, run_dir=tmp_path / "file", address="local")


def test_equal_sets_of_another_method_train_nothing(own_copy):
    """A method under another label, or a renamed campaign, asks for sets that are there."""
    twin = [*CONFIG["methods"][:2], {"name": "tracin_last", "as": "twin"}, CONFIG["methods"][2]]
    found = run_here(small_config(own_copy.folder, methods=twin, name="renamed"), until="retrain")
    assert found.report.retrained == 0
    assert found.run_dir != own_copy.run_dir


def test_a_ledger_in_use_is_left_alone(own_copy):
    pipeline = own_copy.pipeline
    other = Lease(pipeline.store.blobs, pipeline.experiment.task_id)
    other.acquire(time.time())
    try:
        with pytest.raises(LeaseHeld, match="in use by process"):
            run_here(own_copy.config)
    finally:
        other.release()
    assert run_here(own_copy.config, until="plan").exit_code == 0


def test_workers_are_told_where_to_see_that_the_store_is_the_drivers(finished, tmp_path):
    context = finished.pipeline.workforce.context()
    assert finished.pipeline.store.blobs.exists(context.landmark)
    worker.configure(context)
    assert pipeline_of(small_config(tmp_path)).workforce.context().landmark == "", "nothing is there yet"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this code is not in a git checkout")
def test_a_run_records_the_commit_of_its_code(tmp_path):
    run_dir = run_here(small_config(tmp_path), until="train").run_dir
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    recorded = json.loads((run_dir / "provenance.json").read_text())
    assert recorded["git_commit"] == commit.stdout.strip()
    assert recorded["code_version"].endswith(f"+{recorded['git_commit'][:12]}")
