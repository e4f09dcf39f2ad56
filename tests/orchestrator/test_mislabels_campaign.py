"""The mislabels campaign: which examples are difficult, their influence, clusters and retrieval, resuming, and refused options."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator import api
from orchestrator.campaigns.mislabels.difficult import RepeatedOutputs
from orchestrator.cli import main
from orchestrator.experiment.checks import checked_experiment
from orchestrator.inspection.verify import verify
from orchestrator.records import Outcome
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tests.orchestrator.small_mislabels import PATTERN, N, small_mislabels, write_data
from tests.orchestrator.tiny_campaign import CONFIG as SMALL
from tests.orchestrator.tiny_campaign import Finished, committed, pipeline_of, result_bytes, run_here, small_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("mislabels")
    config = small_mislabels(folder)
    return Finished(folder, config, run_here(config))


def table(done: Finished, name: str) -> pd.DataFrame:
    return pd.read_csv(done.run_dir / "results" / f"{name}.csv")


# --- what is found ---------------------------------------------------------------------------------------------------


def test_difficult_examples_are_those_that_the_repeats_misclassify(done):
    pipeline = done.pipeline
    rows = [pipeline.rows[work.spec_id].outcome for work in pipeline.planned.works]
    labels = pipeline.experiment.train.labels
    wrong = np.mean([row.outputs["train"].argmax(axis=1) != labels for row in rows], axis=0)
    expected = pipeline.experiment.train.ids[wrong >= 0.4]
    assert sorted(table(done, "mislabels")["train_id"]) == sorted(expected)
    assert pipeline.queries.ids.tolist() == sorted(expected)
    assert 5 < len(expected) < N / 2


def test_self_influence_is_the_diagonal_of_the_pairwise_influence(done):
    pipeline = done.pipeline
    for group in pipeline.groups:
        pairs = pipeline.all_matrices[group.key, "tracin_we"]
        itself = pipeline.all_matrices[group.key, "self influence"]
        ids = pairs.query_ids
        np.testing.assert_allclose(
            np.diagonal(pairs.reordered(ids, ids).scores), itself.reordered(ids[:1], ids).scores[0], rtol=1e-4
        )
        assert (itself.scores == itself.scores[0]).all()
        assert (itself.scores > 0).all()


def test_distances_are_symmetric_zero_on_the_diagonal_and_between_0_and_2(done):
    distance = done.pipeline.results.view.clusters.distance
    assert (distance == distance.T).all()
    assert (np.diagonal(distance) == 0).all()
    assert 0 <= distance.min() <= distance.max() <= 2


def test_the_planted_pattern_is_a_cluster(done):
    texts = done.pipeline.experiment.train.texts
    suspects = table(done, "mislabels")
    is_pattern = np.array([PATTERN in texts[i] for i in suspects["train_id"]])
    assert is_pattern.sum() >= 3
    assert suspects.loc[is_pattern, "cluster"].nunique() == 1
    assert suspects.loc[is_pattern, "is_mislabeled"].all()
    page = (done.run_dir / "report.html").read_text(encoding="utf-8")
    assert "Clusters of difficult examples" in page
    assert all(f">{word}</mark>" in page for word in PATTERN.split())  # a common word of the cluster


def test_retrieval_is_that_of_the_true_labels(done):
    folder = done.folder
    with (folder / "train.csv").open() as file:
        truth = np.array([row["label"] != row["noisy"] for row in csv.DictReader(file)])
    retrieval = table(done, "retrieval").set_index("ranking")
    at_k = table(done, "retrieval_at_k").set_index(["ranking", "k"])
    losses = done.pipeline.results.view.repeated.losses.mean(axis=0)
    best = np.argsort(-losses)
    assert (retrieval["n_mislabeled"] == truth.sum()).all()
    assert at_k.loc[("loss", 5), "precision"] == pytest.approx(truth[best[:5]].mean())
    assert at_k.loc[("loss", 14), "recall"] == pytest.approx(truth[best[:14]].sum() / truth.sum())
    assert retrieval.loc["loss", "average_precision"] > retrieval.loc["random", "average_precision"]
    assert (retrieval["ci_low"] <= retrieval["average_precision"]).all()
    assert (retrieval["ci_high"] >= retrieval["average_precision"]).all()
    assert retrieval.loc["random", "ci_fixed_high"] > retrieval.loc["random", "ci_fixed_low"]
    assert retrieval["n_models"].to_dict() == {"self_influence": 2, "clusters": 2, "loss": 3, "random": 3}


def test_the_headline_covers_all_four_rankings_and_the_notes_say_what_intervals_cover(done):
    results = done.pipeline.results
    assert results.tables["retrieval"]["ranking"].tolist() == ["self_influence", "clusters", "loss", "random"]
    assert len(results.verdicts) == 6
    assert any("other examples and other models" in note for note in results.notes)


def test_without_truth_there_are_clusters_and_no_retrieval(done, tmp_path):
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    shutil.copy(done.folder / "train.csv", tmp_path)
    result = run_here(small_mislabels(tmp_path, {"mislabels": {}}))
    assert result.report.retrained == 0
    assert {path.stem for path in (result.run_dir / "results").iterdir()} == {
        "mislabels",
        "clusters",
        "linkages",
        "checks",
    }
    assert "is_mislabeled" not in pd.read_csv(result.run_dir / "results" / "mislabels.csv").columns


# --- nothing is trained twice ----------------------------------------------------------------------------------------


def test_the_repeats_are_references_of_other_campaigns(done):
    pipeline = done.pipeline
    wanted = [pipeline.experiment.spec(pipeline.numerics, Edit(), seed).spec_id for seed in pipeline.experiment.seeds]
    assert [work.spec_id for work in pipeline.planned.works] == wanted
    assert len(pipeline.ledger.index().rows) == 3 + 2


def test_a_run_that_stops_after_every_stage_ends_with_the_same_tables(done, tmp_path):
    shutil.copy(done.folder / "train.csv", tmp_path)
    config = small_mislabels(tmp_path)
    for stage in ("train", "score", "plan", "retrain", "analyse"):
        result = run_here(config, stage)
        assert result.report.retrained == (5 if stage == "train" else 0)
    assert result_bytes(result.run_dir) == result_bytes(done.run_dir)
    before = committed(config)
    assert run_here(config).report.retrained == 0
    assert committed(config) == before


def test_one_more_repeat_is_all_that_is_planned_while_the_queries_wait_for_it(done, tmp_path):
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    shutil.copy(done.folder / "train.csv", tmp_path)
    config = small_mislabels(tmp_path, {"repeats.count": 4})
    estimate = api.plan(config)
    assert (estimate.distinct, estimate.in_ledger, estimate.to_do, estimate.scoring_models_to_do) == (4, 3, 1, 0)
    assert estimate.scores == "missing"
    assert run_here(config).report.retrained == 1


def test_verify_finds_nothing_and_repeats_retrains_and_shards(done):
    found = verify(done.pipeline, rerun=2)
    assert not found.problems
    assert any("shards done again" in line for line in found.checked)


def test_another_linkage_trains_and_scores_nothing(done, tmp_path):
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    shutil.copy(done.folder / "train.csv", tmp_path)
    config = small_mislabels(tmp_path, {"mislabels.linkage": "complete"})
    result = run_here(config)
    assert (result.report.retrained, result.report.score_seconds) == (0, 0)
    linkages = pd.read_csv(result.run_dir / "results" / "linkages.csv").set_index("linkage")
    assert linkages["chosen"].to_dict() == {"average": False, "complete": True, "single": False}
    assert linkages.loc["complete", "agreement"] == 1


def test_failed_repeats_are_left_out():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]], np.float32)
    outcomes = [
        Outcome(spec_id="a", status="ok", outputs={"train": logits}),
        Outcome(spec_id="b", status="quarantined", error="x"),
        Outcome(spec_id="c", status="ok", outputs={"train": logits[::-1].copy()}),
    ]
    found = RepeatedOutputs.of(outcomes, np.array([0, 0]))
    assert found.n_models == 2
    assert found.wrong_frac.tolist() == [0.5, 0.5]
    assert found.difficult(0.5).tolist() == [0, 1]
    assert found.difficult(0.51).tolist() == []
    np.testing.assert_allclose(found.losses[0], [np.log1p(np.exp(-2)), np.log1p(np.exp(2))])
    assert RepeatedOutputs.of(outcomes[1:2], np.array([0, 0])).n_models == 0


FLAKY = """
'''Finetune, on a machine that cannot train some seeds.'''
from tasks.recipes.finetune import Finetune

broken = set()

class Flaky(Finetune):
    name = "flaky"

    def train(self, task, training):
        if training.seed in broken:
            raise ArithmeticError("this seed cannot be trained")
        return super().train(task, training)
"""


def test_a_repeat_that_fails_is_left_out_until_it_is_retried(tmp_path, monkeypatch):
    (tmp_path / "flaky_seeds.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = {"name": "flaky_seeds:Flaky", "epochs": 2, "batch_size": 20, "learning_rate": 0.02}
    config = small_mislabels(
        tmp_path, {"task.recipe": recipe, "plugins": ["flaky_seeds"], "scores": {"models": 1, "checkpoints": [2]}}
    )
    broken = importlib.import_module("flaky_seeds").broken
    broken.add(checked_experiment(config, None).seeds[1])
    result = run_here(config)
    assert result.exit_code == api.EXIT_QUARANTINED
    models = pd.read_csv(result.run_dir / "results" / "retrieval.csv").set_index("ranking")["n_models"]
    assert models.to_dict() == {"self_influence": 1, "clusters": 1, "loss": 2, "random": 3}
    assert any("1 of 3 repeated trainings" in note for note in pipeline_of(config).results.notes)
    assert run_here(config).report.retrained == 0  # a failed repeat is final
    broken.clear()
    retried = api.run(config, address="local", retry_quarantined=True)
    assert (retried.exit_code, retried.report.retrained) == (api.EXIT_COMPLETE, 1)
    models = pd.read_csv(result.run_dir / "results" / "retrieval.csv").set_index("ranking")["n_models"]
    assert models["loss"] == 3
    assert not verify(pipeline_of(config)).problems


# --- truth -----------------------------------------------------------------------------------------------------------


def test_true_labels_from_another_file_are_matched_by_id(tmp_path):
    write_data(tmp_path / "plain.csv")
    frame = pd.read_csv(tmp_path / "plain.csv").assign(number=lambda f: 1000 + np.arange(len(f)))
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.sample(frac=1, random_state=0).assign(noisy="sport").to_csv(tmp_path / "truth.csv", index=False)
    config = small_mislabels(tmp_path, {"task.data.train.id": "number", "mislabels.truth.path": "truth.csv"})
    experiment = checked_experiment(config, None)
    true = config.campaign.true_labels(experiment)  # pyright: ignore[reportAttributeAccessIssue]
    classes = np.array(experiment.train.classes)
    assert classes[true].tolist() == frame["label"].tolist()


def test_truth_is_no_part_of_what_is_trained_or_scored(tmp_path):
    with_truth = checked_experiment(small_mislabels(tmp_path), None)
    without = checked_experiment(small_mislabels(tmp_path, {"mislabels": {}}), None)
    specs = [e.spec(Numerics(), Edit(), 1).spec_id for e in (with_truth, without)]
    assert specs[0] == specs[1]


def test_the_shipped_config_fits_the_data():
    data = Path(os.environ.get("REFIT_DATA") or ROOT.parent / "shared" / "data") / "ag_news"
    if not data.is_dir():
        pytest.skip("the data ag_news is not there")
    names = {"train": "noisy_labels_10k", "test": "test"}
    paths = [f"task.data.{split}.path={data / name}.parquet" for split, name in names.items()]
    config = api.load_config(ROOT / "configs" / "mislabels" / "agnews_noisy.yaml", paths)
    experiment = checked_experiment(config, None)
    true = config.campaign.true_labels(experiment)  # pyright: ignore[reportAttributeAccessIssue]
    assert (true != experiment.train.labels).mean() == pytest.approx(0.1974, abs=1e-4)


PLANTED = SMALL["task"]

# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "queries": ({"queries": {"split": "train", "count": 3}}, "queries", "leave this block out"),
    "a control": ({"methods": [{"name": "random"}]}, "methods[0]", "'random'"),
    "no inner product": ({"methods": [{"name": "tfidf"}]}, "methods[0]", "'tfidf' are no inner products"),
    "two methods": ({"methods": [{"name": "tracin_we"}, {"name": "tracin_last"}]}, "methods", "exactly one"),
    "a predicted label": ({"measurement": "predicted_probability"}, "measurement", "'predicted_probability'"),
    "some of train": ({"task.measure": [{"split": "train", "limit": 9}]}, "task.measure", "9 of 120"),
    "ward": ({"mislabels.linkage": "ward"}, "mislabels.linkage", "'average'"),
    "a share above 1": ({"mislabels.difficult": 40}, "mislabels.difficult", "less than or equal to 1"),
    "k above n": ({"mislabels.k": [121]}, "mislabels.k", "121"),
    "k without truth": ({"mislabels": {"k": [3]}}, "mislabels.k", "mislabels.truth"),
    "an unknown key": ({"mislabels.linkages": "average"}, "mislabels.linkages", "linkage"),
    "no such column": ({"mislabels.truth.column": "gold"}, "train.csv", "'gold'"),
    "no such file": ({"mislabels.truth.path": "no.csv"}, "mislabels.truth", "no.csv"),
    "nothing wrong": ({"mislabels.truth.column": "noisy"}, "mislabels.truth.column", "nothing to retrieve"),
    "adaptive repeats": (
        {"repeats": {"min": 3, "max": 5, "target_se": 0.1}},
        "repeats.target_se",
        "fixed number of repeats",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_options_are_refused_before_anything_is_trained(name, tmp_path):
    changes, place, problem = REFUSED[name]
    with pytest.raises(InputError) as caught:
        checked_experiment(small_mislabels(tmp_path, changes), None)
    assert place in str(caught.value)
    assert problem in str(caught.value)


def test_truth_on_a_task_without_files_is_refused(tmp_path):
    config = small_mislabels(tmp_path, {"task": {**PLANTED, "measure": [{"split": "train"}]}, "mislabels.k": []})
    with pytest.raises(InputError, match=r"mislabels\.truth: the task 'planted' reads no file"):
        checked_experiment(config, None)


def test_no_difficult_example_is_an_error_that_names_the_key(tmp_path):
    config = small_mislabels(
        tmp_path,
        {"mislabels.difficult": 1.0, "task.recipe.epochs": 12, "task.data.train.label": "label", "mislabels": {}},
    )
    with pytest.raises(InputError, match=r"mislabels\.difficult: .*largest share"):
        run_here(config)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_runs_and_prints_its_table(done, tmp_path, capsys):
    shutil.copytree(done.folder / "runs", tmp_path / "runs")
    shutil.copy(done.folder / "train.csv", tmp_path)
    small_mislabels(tmp_path)
    assert main(["mislabels", str(tmp_path / "config.yaml"), "--address", "local", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "self_influence" in printed
    assert "retrained 0" in printed


def test_the_command_refuses_other_campaigns(tmp_path: Path, capsys):
    config = small_config(tmp_path)
    assert main(["mislabels", str(config.path), "--yes"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "campaign: 'deletion'" in error
