"""Campaign recipe_grid, end to end: tables come from what trainings recorded, however and how often it is run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator import api
from orchestrator.config.load import dump_config
from orchestrator.inspection.verify import verify
from orchestrator.stages.retraining import Stopped
from orchestrator.storage.tables import read_plan
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.training import deterministic
from tests.orchestrator.msgs_grid import MSGS_GRID, SEEDS, msgs_grid
from tests.orchestrator.tiny_campaign import Finished, committed, pipeline_of, result_bytes, run_here

LONG = MSGS_GRID["recipe_grid"]["arms"][1]
SETTINGS = ["finetuning.0", "finetuning.1", "long.0", "long.1", "long.2", "long.3", "untrained"]
N_PROBES, N_SHOWN = 6, 2


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Finished:
    """Run to the end, and not to be changed."""
    folder = tmp_path_factory.mktemp("grid")
    config = msgs_grid(folder)
    return Finished(folder, config, run_here(config))


@pytest.fixture
def spoilt(done, tmp_path) -> Finished:
    """A copy to be spoilt."""
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    config = msgs_grid(tmp_path)
    return Finished(tmp_path, config, run_here(config, until="plan"))


def table(run: Finished, name: str) -> pd.DataFrame:
    assert run.result.results is not None
    return run.result.results.tables[name]


# --- what is in the tables -----------------------------------------------------------------------------------------


def test_every_setting_is_trained_under_every_seed_and_nothing_else(done):
    assert done.result.report.retrained == len(SETTINGS) * len(SEEDS)
    assert done.pipeline.scoring == []
    trials = table(done, "trials")
    assert list(zip(trials["setting"], trials["seed"], strict=True)) == [(s, seed) for s in SETTINGS for seed in SEEDS]
    plan = read_plan(done.run_dir / "plan.parquet")
    assert list(plan) == ["arm", "setting", "repeat", "spec_id"]
    assert plan["setting"][: len(SETTINGS)].tolist() == SETTINGS


def test_accuracies_are_those_of_a_training_made_here(done):
    pipeline = done.pipeline
    arm, seed = pipeline.experiment.arms["long.2"], SEEDS[1]
    arm.task.prepare()
    deterministic(pipeline.numerics)
    trained = arm.task.recipe.train(arm.task, Training(edit=Edit(), seed=seed, numerics=pipeline.numerics))
    trials = table(done, "trials").set_index(["setting", "seed"])
    assert arm.recipe_identity["learning_rate"] == 0.05
    for name, split in arm.task.splits.items():
        outputs = arm.task.outputs(trained.network, name, np.arange(len(split)))
        assert trials.loc[("long.2", seed), name] == (outputs.argmax(1) == split.labels).mean()


def test_trials_that_did_not_fit_their_training_set_failed_and_are_shown(done):
    trials = table(done, "trials")
    failed = trials["train"] < 0.7
    assert trials.loc[failed, "setting"].unique().tolist() == ["untrained"]
    assert failed.sum() == len(SEEDS)
    assert (trials.loc[failed, "status"] == "failed").all()
    assert (trials.loc[~failed, "status"] == "ok").all()
    row = table(done, "accuracy").set_index("arm").loc["untrained"]
    assert (row["n_trials"], row["n_failed"]) == (3, 3)
    assert np.isnan([row["test"], row["diff"], row["p_holm"]]).all()
    assert row["test_all"] == pytest.approx(trials.loc[failed, "test"].mean())
    results = done.result.results
    assert results.n_excluded == 3
    assert "Of 21 trials 3 failed, 0 diverged and 0 were quarantined" in results.notes[0]
    assert "No setting of untrained has 3 trials" in " ".join(results.notes)


def test_the_setting_that_dev_chose_is_reported_on_test(done):
    trials, accuracy = table(done, "trials"), table(done, "accuracy").set_index("arm")
    settings = table(done, "settings")
    assert settings["setting"].tolist() == SETTINGS
    for arm in ("finetuning", "long"):
        ours = trials.loc[trials["arm"] == arm]
        dev = ours.groupby("setting")["dev"].mean()  # no trial of these arms failed
        chosen = accuracy.loc[arm, "setting"]
        assert dev[chosen] == pytest.approx(dev.max())
        assert settings.loc[settings["chosen"] & (settings["arm"] == arm), "setting"].tolist() == [chosen]
        assert accuracy.loc[arm, "test"] == pytest.approx(ours.loc[ours["setting"] == chosen, "test"].mean())
    base, long = (
        trials.loc[trials["setting"] == accuracy.loc[arm, "setting"], "test"].to_numpy()
        for arm in ("finetuning", "long")
    )
    assert accuracy.loc["long", "diff"] == pytest.approx((long - base).mean())
    assert accuracy.loc["long", "p"] == pytest.approx(stats.ttest_rel(long, base).pvalue)
    assert json.loads(accuracy.loc["long", "options"]).keys() == {"recipe.learning_rate", "recipe.batch_size"}
    assert accuracy.loc["finetuning", "paper"] == 0.76
    assert accuracy["level"].isna().all()
    assert len(done.result.results.verdicts) == 3


def test_the_influence_difference_is_that_of_the_recorded_moments(done):
    chosen = table(done, "accuracy").set_index("arm").loc["long", "setting"]
    pipeline, cid = done.pipeline, table(done, "cid")
    arm = pipeline.experiment.arms[chosen]
    rows = cid.loc[cid["arm"] == "long"]
    last = arm.task.recipe.checkpoint_step(len(arm.train), float(arm.task.recipe.epochs))
    assert rows["step"].tolist() == [*range(12, last, 12), last]
    assert set(rows["stage"]) == {"update"}
    works = [work for work in pipeline.planned.works if work.arm == chosen]
    outputs = [pipeline.rows[work.spec_id].outcome.outputs for work in works]
    moments = [one[f"confound_influence_difference/moments@{last}"].astype(float) for one in outputs]
    by_seed = [(one[:, 1] - one[:, 4]).mean() for one in moments]
    final = rows.iloc[-1]
    assert (final["cid"], final["se"]) == pytest.approx((np.mean(by_seed), stats.sem(by_seed)))
    assert (final["n_seeds"], final["n_probes"]) == (3, N_PROBES)
    probes = table(done, "cid_probes")
    ours = probes.loc[(probes["arm"] == "long") & (probes["seed"] == SEEDS[2])]
    welch = stats.ttest_ind_from_stats(*moments[2].T[[1, 2, 0, 4, 5, 3]], equal_var=False)
    np.testing.assert_allclose(ours["cid"], moments[2][:, 1] - moments[2][:, 4])
    np.testing.assert_allclose(ours[["t", "p"]], np.transpose([welch.statistic, welch.pvalue]), rtol=1e-6)
    assert set(ours["probe_id"]) <= set(arm.train.ids.tolist())
    assert "untrained" not in set(cid["arm"]) | set(probes["arm"]), "failed trials are in no mean"


def test_distributions_are_of_the_first_trial_that_did_not_fail(done):
    view = done.result.results.view
    probes = table(done, "cid_probes").set_index(["arm", "seed", "probe_id"])
    found = [(one.arm, one.seed) for one in view.distributions]
    assert found == [(arm, SEEDS[0]) for arm in ("finetuning", "long") for _ in range(N_SHOWN)]
    task = done.pipeline.experiment.task
    for one in view.distributions:
        [row] = task.splits["train"].rows_of([one.probe_id])
        alike = task.splits["train"].labels == task.splits["train"].labels[row]
        same = alike & (task.splits["train"].confounds == task.splits["train"].confounds[row])
        assert (len(one.same), len(one.other)) == (same.sum() - 1, alike.sum() - same.sum())
        difference = one.same.mean() - one.other.mean()
        assert difference == pytest.approx(probes.loc[(one.arm, one.seed, one.probe_id), "cid"], abs=1e-6)


def test_without_the_observer_there_are_no_tables_of_it(tmp_path):
    config = msgs_grid(tmp_path, observe=[], recipe_grid__arms=[{"name": "finetuning"}], recipe_grid__grid={})
    results = run_here(config).results
    assert list(results.tables) == ["accuracy", "settings", "trials"]
    assert results.view.distributions == ()
    assert results.view.chosen == {("finetuning", np.nan): "finetuning"}


def test_levels_of_the_ablated_key_are_chosen_one_by_one(spoilt):
    """The same trainings, asked about in another way."""
    arms = [{"name": "finetuning"}, {**LONG, "paper": {"12": 0.9}}]
    block = {"arms": arms, "grid": {"recipe.learning_rate": [0.02, 0.05]}, "ablate": "recipe.batch_size"}
    run = run_here(msgs_grid(spoilt.folder, recipe_grid=block))
    results, chosen = run.results, dict(run.results.view.chosen)
    assert run.report.retrained == 0
    accuracy = results.tables["accuracy"]
    assert accuracy["arm"].tolist() == ["finetuning", "long", "long"]
    assert np.array_equal(accuracy["level"], [np.nan, 8, 12], equal_nan=True)
    assert np.array_equal(accuracy["paper"], [np.nan, np.nan, 0.9], equal_nan=True)
    assert results.labels == ("arm", "level")
    assert chosen.keys() == {("finetuning", np.nan), ("long", 8.0), ("long", 12.0)}
    settings = results.tables["settings"]
    for level in (8, 12):
        ours = settings.loc[settings["level"] == level].set_index("setting")
        assert len(ours) == 2
        assert chosen["long", level] == ours["dev"].idxmax()


# --- however it is run ---------------------------------------------------------------------------------------------


def test_the_plan_is_known_before_anything_is_trained(tmp_path):
    estimate = api.plan(msgs_grid(tmp_path))
    assert (estimate.cells, estimate.distinct, estimate.to_do) == (21, 21, 21)


def test_a_driver_that_stops_between_trials_goes_on_to_the_same_bytes(done, tmp_path):
    config = msgs_grid(tmp_path)
    pipeline = pipeline_of(config)
    say = pipeline.progress.update

    def stop_after_five(n_done: int, *more: object) -> None:
        if n_done >= 5:
            pipeline.stop.request("test")
        say(n_done, *more)

    pipeline.progress.update = stop_after_five
    with pytest.raises(Stopped, match="of 21 done and kept"):
        pipeline.run()
    finished = committed(config)
    assert 5 <= len(finished) < 21
    assert pipeline_of(config).run().retrained == 21 - len(finished)
    assert result_bytes(pipeline_of(config).run_dir.path) == result_bytes(done.run_dir)


def test_the_same_command_again_trains_nothing_and_more_arms_only_what_is_new(spoilt):
    assert run_here(spoilt.config).report.retrained == 0
    arms = [{"name": "finetuning"}, {"name": "larger", "set": {"recipe.batch_size": 24}}]
    wider = msgs_grid(spoilt.folder, recipe_grid__arms=arms)
    assert run_here(wider).report.retrained == 2 * len(SEEDS)


def test_verify_finds_nothing_and_trials_done_again_give_the_same_bytes(done):
    found = verify(done.pipeline, rerun=2)
    assert found.problems == []
    assert found.checked[-1].startswith("2 retrains done again")


# --- what an arm changes -------------------------------------------------------------------------------------------


def test_arms_that_change_optimizer_recipe_or_model_come_back_from_the_run_directory(tmp_path):
    arms = [
        {"name": "adam"},
        {"name": "bert", "set": {"recipe.optimizer": "bert_adam"}},
        {"name": "tuned", "set": {"recipe.name": "embedding_tuning", "recipe.interval": 4}},
        {"name": "other", "set": {"model": {"name": "transformer", "hidden": 8, "heads": 2, "layers": 1}}},
    ]
    config = msgs_grid(tmp_path, recipe_grid__arms=arms, recipe_grid__grid={})
    pipeline = pipeline_of(config)
    copy = tmp_path / "dumped.yaml"
    copy.write_text(dump_config(config, pipeline.experiment.task))
    again = pipeline_of(api.load_config(copy)).experiment
    assert again.run_hex == pipeline.experiment.run_hex
    for label, arm in pipeline.experiment.arms.items():
        assert again.arms[label].recipe_identity == arm.recipe_identity


def test_the_papers_figures_are_no_part_of_what_is_asked(tmp_path):
    arms = [{"name": "adam", "paper": figure} for figure in (0.5, 0.6)]
    found = [
        pipeline_of(msgs_grid(tmp_path / str(n), recipe_grid__arms=[arm])).experiment for n, arm in enumerate(arms)
    ]
    assert found[0].run_hex == found[1].run_hex


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {
                "recipe_grid__arms": [
                    {"name": "a", "set": {"recipe": {"name": "influence_tuning", "parameters": ["nope*"]}}}
                ]
            },
            r"\(arm a\.0\): task\.recipe\.parameters: 'nope\*' matches no layer",
        ),
        (
            {"observe": [{"name": "confound_influence_difference", "probes": 4, "layers": "ninth"}]},
            r"observe\.0\.layers: 'ninth'",
        ),
    ],
)
def test_layers_that_a_network_has_not_are_refused_before_a_worker_starts(tmp_path, changes, says):
    pipeline = pipeline_of(msgs_grid(tmp_path, **changes))
    with pytest.raises(InputError, match=says):
        pipeline.context()
