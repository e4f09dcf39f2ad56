"""Campaign leave_one_out, end to end: what is measured is what leaving a point out does, however it is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from orchestrator import api
from orchestrator.campaigns.leave_one_out.campaign import LeaveOneOutPlan
from orchestrator.campaigns.leave_one_out.plan import arm_label
from orchestrator.campaigns.leave_one_out.results import Measured
from orchestrator.config.yaml_files import read_yaml
from orchestrator.inspection.verify import verify
from orchestrator.storage.tables import read_plan
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.training import deterministic
from tests.orchestrator.small_campaigns import LOO, small_loo, write_campaign
from tests.orchestrator.tiny_campaign import Finished, committed, pipeline_of, result_bytes, run_here

ROOT = Path(__file__).resolve().parents[2]
N_POINTS = 12
TABLES = ("agreement", "agreement_units", "agreement_classes", "agreement_contrasts", "points")


@pytest.fixture(scope="module")
def stacked(tmp_path_factory) -> Finished:
    """Run to the end, and not to be changed."""
    folder = tmp_path_factory.mktemp("stacked")
    config = small_loo(folder)
    return Finished(folder, config, run_here(config))


@pytest.fixture(scope="module")
def singly(tmp_path_factory) -> Finished:
    """The same, every point left out in a retrain of its own."""
    folder = tmp_path_factory.mktemp("singly")
    config = small_loo(folder, leave_one_out__stack=1)
    return Finished(folder, config, run_here(config))


@pytest.fixture
def spoilt(stacked, tmp_path) -> Finished:
    """A copy to be spoilt."""
    shutil.copytree(stacked.folder / "runs", tmp_path / "runs")
    config = small_loo(tmp_path)
    return Finished(tmp_path, config, run_here(config, until="score"))


def measured(run: Finished) -> dict[tuple[str, int], Measured]:
    """(arm, repeat) -> measured influence."""
    pipeline = run.pipeline
    plan: LeaveOneOutPlan = pipeline.planned
    return {(cell.arm, cell.repeat): Measured.of(pipeline.scored, plan, cell, pipeline.rows) for cell in plan.cells}


def parts_of(run: Finished) -> list[Path]:
    return sorted((run.folder / "runs" / "ledger").glob("*/part-*.parquet"))


# --- what is measured ----------------------------------------------------------------------------------------------


def test_a_stack_measures_what_single_retrains_measure(stacked, singly):
    one, other = measured(stacked), measured(singly)
    assert one.keys() == other.keys()
    for key, found in one.items():
        assert found.influence.shape == (N_POINTS, N_POINTS)
        assert np.abs(found.influence).max() > 1e-3, "leaving a point out must change something"
        np.testing.assert_allclose(found.influence, other[key].influence, rtol=0, atol=1e-5)


def test_a_stack_and_single_retrains_give_the_same_tables(stacked, singly):
    assert set(stacked.result.results.tables) == set(TABLES)
    for name in TABLES:
        pd.testing.assert_frame_equal(
            stacked.result.results.tables[name], singly.result.results.tables[name], rtol=0, atol=1e-4, obj=name
        )


@pytest.mark.parametrize("objective", ["nll", "dec"])
def test_measured_influence_is_that_of_a_retrain_without_the_point(stacked, objective):
    """f(q; all) - f(q; without i), from two trainings made here; the label is the cluster of the component's mean."""
    pipeline = stacked.pipeline
    arm = pipeline.experiment.arms[arm_label(objective, "1")]
    [seed], point = pipeline.experiment.seeds, 5
    deterministic(pipeline.numerics)

    def outputs(edit: Edit) -> dict[str, np.ndarray]:
        trained = arm.task.recipe.train(arm.task, Training(edit=edit, seed=seed, numerics=pipeline.numerics))
        return {split: arm.task.outputs(trained.network, split, rows) for split, rows in arm.task.measured.items()}

    whole, without = outputs(Edit()), outputs(Edit.removal([arm.train.ids[point]]))
    labels = whole["means"].argmax(1)[arm.train.labels]
    rows = np.arange(len(labels))
    by_hand = whole["train"][rows, labels].astype(np.float64) - without["train"][rows, labels]
    found = measured(stacked)[arm.label, 0].influence[:, point]
    np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-5)


def test_agreement_is_the_correlation_of_scores_with_measured_influence(stacked):
    """One query of one unit by hand, scores and truth from different arms."""
    pipeline = stacked.pipeline
    points = stacked.result.results.tables["points"]
    row = points[(points["scores"] == "dec") & (points["truth"] == "nll") & (points["unit"] == "1")].iloc[3]
    matrix = pipeline.all_matrices["dec.1.r0", "exact"]
    truth = measured(stacked)["nll.1", 0]
    position = list(truth.queries.ids).index(row["query_id"])
    r = np.corrcoef(matrix.row(int(row["query_id"])), truth.influence[position])[0, 1]
    assert row["r"] == pytest.approx(r, abs=1e-6)


def test_figures_of_the_paper_stand_beside_ours(stacked):
    table = stacked.result.results.tables["agreement"].set_index(["label", "scores", "truth"])
    assert table.loc[("cross", "dec", "nll"), "paper"] == 0.5
    assert table["paper"].notna().sum() == 1


def test_units_are_the_values_of_over(stacked):
    table = stacked.result.results.tables["agreement_units"]
    assert list(dict.fromkeys(table["unit"].astype(str))) == ["0", "1"]


def test_without_over_units_are_the_repeats(tmp_path):
    solver = {"name": "exact", "damping": 100.0}
    config = small_loo(
        tmp_path,
        leave_one_out={"arms": {"nll": {}}},
        repeats={"count": 3},
        methods=[{**LOO["methods"][0], "solver": solver}],
    )
    pipeline = pipeline_of(config)
    pipeline.run()
    assert list(dict.fromkeys(pipeline.results.tables["agreement_units"]["unit"].astype(str))) == ["0", "1", "2"]
    assert {cell.repeat for cell in pipeline.planned.cells} == {0, 1, 2}


# --- what is trained -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "per_cell"), [("stacked", 1 + 3), ("singly", 1 + N_POINTS)])
def test_arms_that_train_the_same_share_their_retrains(run, per_cell, request):
    """nll and twin are one training; a reference is the scoring model; stacks of 5 over 12 points are three."""
    found: Finished = request.getfixturevalue(run)
    estimate = api.plan(found.config)
    plan = found.pipeline.planned
    assert estimate.cells == plan.n_requested == 2 * 3 * N_POINTS
    assert (estimate.distinct, estimate.to_do) == (2 * 2 * per_cell, 0)
    assert len({work.spec_id for work in plan.works}) == len(plan.works) == estimate.distinct
    assert found.result.report.retrained == estimate.distinct
    cells = {cell.arm: cell for cell in plan.cells}
    for unit in ("0", "1"):
        assert cells[f"nll.{unit}"].reference == cells[f"twin.{unit}"].reference
        assert np.array_equal(cells[f"nll.{unit}"].work, cells[f"twin.{unit}"].work)
        assert cells[f"nll.{unit}"].reference != cells[f"dec.{unit}"].reference


def test_the_plan_names_the_retrain_of_every_point(stacked):
    columns = read_plan(stacked.run_dir / "plan.parquet")
    assert list(columns) == ["arm", "repeat", "train_id", "member", "spec_id"]
    works = {work.spec_id: work for work in stacked.pipeline.planned.works}
    rows = list(zip(*columns.values(), strict=True))
    assert len(rows) == 2 * 3 * N_POINTS
    for arm, repeat, train_id, member, spec_id in rows:
        assert (repeat, works[spec_id].edit.mode) == (0, "each")
        assert works[spec_id].edit.ids[member] == train_id, arm


def test_single_retrains_are_removals_of_one_point(singly):
    columns = read_plan(singly.run_dir / "plan.parquet")
    works = {work.spec_id: work for work in singly.pipeline.planned.works}
    assert set(columns["member"]) == {-1}
    for train_id, spec_id in zip(columns["train_id"], columns["spec_id"], strict=True):
        assert works[spec_id].edit == Edit.removal([train_id])


def test_fewer_points_are_the_same_ones_in_every_arm(tmp_path, stacked):
    config = small_loo(tmp_path, leave_one_out__points=6, output=str(stacked.folder / "runs"))
    plan = pipeline_of(config).planned
    first = plan.cells[0].point_ids
    assert len(first) == 6
    assert np.isin(first, stacked.pipeline.experiment.train.ids).all()
    assert all(np.array_equal(cell.point_ids, first) for cell in plan.cells)
    other = small_loo(tmp_path, leave_one_out__points=6, leave_one_out__point_seed=1, output=config.settings.output)
    assert not np.array_equal(pipeline_of(other).planned.cells[0].point_ids, first)


def test_fits_that_depend_on_each_other_are_one_stack(stacked, tmp_path, monkeypatch):
    """Where Adam's state leaks from fit to fit, half a stack is another experiment: `stack` must not cut it."""
    from tasks.recipes.dec import DecTraining

    monkeypatch.setattr(DecTraining, "whole_stack", True, raising=False)
    works = pipeline_of(small_loo(tmp_path, output=str(stacked.folder / "runs"))).planned.works
    assert {len(work.edit.ids) for work in works} == {0, N_POINTS}


# --- however it is run ---------------------------------------------------------------------------------------------


def test_stage_by_stage_ends_in_the_same_bytes(stacked, tmp_path):
    config = small_loo(tmp_path)
    for stage in ("train", "score", "plan", "retrain", "analyse"):
        pipeline_of(config).run(stage)
    assert result_bytes(pipeline_of(config).run_dir.path) == result_bytes(stacked.run_dir)


def test_a_ledger_that_lost_parts_is_completed_to_the_same_bytes(spoilt, stacked):
    before = committed(spoilt.config)
    for part in parts_of(spoilt)[::2]:
        part.unlink()
    kept = committed(spoilt.config)
    assert 0 < len(kept) < len(before)
    (spoilt.run_dir / "results" / "agreement.csv").unlink()
    again = pipeline_of(spoilt.config).run()
    assert again.retrained == len(before) - len(kept)
    assert kept.items() <= committed(spoilt.config).items(), "nothing finished is done again"
    assert result_bytes(spoilt.run_dir) == result_bytes(stacked.run_dir)


def test_the_same_command_again_trains_nothing(spoilt):
    assert run_here(spoilt.config).report.retrained == 0


def test_verify_finds_nothing_and_retrains_give_the_same_bytes(stacked, singly):
    for run in (stacked, singly):
        found = verify(run.pipeline, rerun=2)
        assert found.problems == []
        assert found.checked[-1].startswith("2 retrains done again")


def flip_a_byte(run: Finished, *, scoring: bool) -> str:
    """Damage a part that holds a scoring model, or none; its name."""
    models = {model.work.spec_id for model in run.pipeline.scoring}
    holds = {part: not models.isdisjoint(pq.read_table(part)["spec_id"].to_pylist()) for part in parts_of(run)}
    part = next(part for part, held in holds.items() if held == scoring)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 2
    part.write_bytes(data)
    return part.name


def test_verify_names_a_flipped_byte(spoilt):
    assert flip_a_byte(spoilt, scoring=False) in verify(spoilt.pipeline).problems[0]


def test_verify_names_a_flipped_byte_in_the_row_of_a_scoring_model(spoilt):
    assert flip_a_byte(spoilt, scoring=True) in verify(spoilt.pipeline).problems[0]


RAY_RUN = """
import sys
from ray_fixtures import ray_of_our_own
from orchestrator import api
if __name__ == "__main__":
    with ray_of_our_own(num_cpus=2):
        api.run(api.load_config(sys.argv[1]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_in_process_run(stacked, tmp_path):
    path = write_campaign(LOO, tmp_path)
    script = tmp_path / "ray_run.py"
    script.write_text(RAY_RUN)
    places = f"{ROOT}:{ROOT / 'tests' / 'orchestrator' / 'runtime'}"
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert result_bytes(pipeline_of(api.load_config(path)).run_dir.path) == result_bytes(stacked.run_dir)


# --- other tasks ---------------------------------------------------------------------------------------------------


def test_text_is_left_out_one_by_one_for_gradient_methods(tmp_path):
    """configs/tiny.yaml: a recipe without stacks, gold labels, methods that use several checkpoints."""
    base = read_yaml(ROOT / "configs" / "tiny.yaml")
    del base["deletion"]
    methods = [{"name": "tracin_we"}, {"name": "tracin_last"}, {"name": "random"}]
    changes = {"campaign": "leave_one_out", "leave_one_out": {"points": 6}, "methods": methods}
    pipeline = pipeline_of(api.load_config(write_campaign(base, tmp_path, changes)))
    pipeline.run()
    works = pipeline.planned.works
    assert [(work.edit.mode, len(work.edit.ids)) for work in works] == 2 * ([("mask", 0)] + 6 * [("mask", 1)])
    table = pipeline.results.tables["points"]
    assert sorted(table["label"].unique()) == ["tracin_last", "tracin_we"]
    assert set(table["n_points"]) == {6}
    assert table["r"].between(-1, 1).all()
    assert verify(pipeline, rerun=2).problems == []


def test_queries_that_each_model_chooses_are_its_own(tmp_path):
    """Repeats judge their own queries; scores and truth of one repeat are about the same ones."""
    methods = [{**LOO["methods"][0], "solver": {"name": "exact", "damping": 100.0}}]
    pipeline = pipeline_of(
        small_loo(
            tmp_path,
            queries={"split": "train", "where": {"correct": True}},
            leave_one_out={"arms": {"nll": {}}, "stack": 4},
            repeats={"count": 2},
            methods=methods,
        )
    )
    pipeline.run()
    asked = [stage.queries.ids.tolist() for stage in pipeline.stages.values()]
    table = pipeline.results.tables["points"]
    assert [table.loc[table["unit"].astype(str) == unit, "query_id"].tolist() for unit in ("0", "1")] == asked
