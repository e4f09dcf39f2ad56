"""A campaign that asks no queries: no scoring models, no scores, and every stage and command takes it."""

from __future__ import annotations

import json

import pytest
import yaml

from orchestrator import api
from orchestrator.cli import main
from orchestrator.config.load import dump_config, parse_config
from orchestrator.experiment.checks import checked_experiment
from orchestrator.forecast.dry_run import estimate
from orchestrator.inspection.report_data import report_data
from orchestrator.inspection.status import status
from orchestrator.inspection.track_record import track_record
from orchestrator.inspection.verify import verify
from tasks.errors import InputError
from tests.orchestrator.small_grid import small_grid, write_grid
from tests.orchestrator.tiny_campaign import Finished, options, pipeline_of, result_bytes, run_here

N_TRIALS = 2 * 2 * 2  # arms x settings x seeds


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("grid")
    config = small_grid(folder)
    return Finished(folder, config, run_here(config))


@pytest.mark.parametrize("stage", ["train", "score"])
def test_there_is_nothing_to_train_or_score(tmp_path, stage):
    config = small_grid(tmp_path)
    result = run_here(config, until=stage)
    assert (result.report.retrained, result.exit_code) == (0, 0)
    assert pipeline_of(config).groups == []
    assert not (result.run_dir / "scores").exists()


def test_every_setting_is_trained_under_every_seed(done):
    assert (done.result.exit_code, done.result.report.retrained) == (0, N_TRIALS)
    assert set(done.pipeline.rows) == {work.spec_id for work in done.pipeline.planned.works}
    assert not run_here(done.config).report.retrained, "the same command does nothing twice"


def test_the_run_directory_leads_back_to_the_same_campaign(done):
    again = api.open_run(done.run_dir).pipeline()
    assert again.experiment.run_name == done.run_dir.name
    assert result_bytes(done.run_dir) == {name: text.encode() for name, text in again.results.csv().items()}


def test_verify_finds_nothing_wrong_and_says_nothing_of_scores(done):
    found = verify(api.open_run(done.run_dir).pipeline(), rerun=1)
    assert not found.problems
    assert not [line for line in found.checked if line.startswith("scores of")]
    assert any(line.startswith("1 retrains done again") for line in found.checked)


def test_status_report_and_tracker_count_the_trials(done):
    now = status(done.run_dir)
    assert (now.complete, now.planned, now.ok) == (True, N_TRIALS, N_TRIALS)
    report = report_data(done.pipeline)
    assert {row["role"] for row in report.accuracies} == {"reference"}
    assert not [note for note in report.notes if "scoring model" in note]
    record = track_record(done.pipeline)
    assert record.params["scoring_models"] == 0
    assert len(record.children) == 2, "one of each arm"


def test_a_dry_run_is_exact_and_has_no_lines_about_scores(tmp_path):
    config = small_grid(tmp_path)
    before = estimate(pipeline_of(config))
    assert (before.cells, before.distinct, before.to_do) == (N_TRIALS, N_TRIALS, N_TRIALS)
    assert (before.scores, before.missing_scores, before.scoring_models_to_do) == ("none", (), 0)
    assert not [line for line in before.lines() if "scor" in line]


def test_a_dry_run_on_a_gpu_that_no_worker_has_named_gives_the_most(tmp_path):
    config = small_grid(tmp_path, compute={"workers": 1, "gpus_per_worker": 1})
    before = estimate(pipeline_of(config))
    assert (before.distinct, before.distinct_max, before.scores) == (None, N_TRIALS, "none")
    assert any("once a worker has started" in line for line in before.lines())


@pytest.mark.parametrize("change", [{"recipe.epochs": 1}, {"recipe": {"name": "finetune", "optimizer": "sgd"}}])
def test_a_resolved_config_keeps_what_the_first_arm_changes_to_that_arm(tmp_path, change):
    block = {"arms": [{"name": "first", "set": change}, {"name": "plain"}], "min_trials": 1}
    config = small_grid(tmp_path, recipe_grid=block)
    experiment = checked_experiment(config, None)
    again = parse_config(yaml.safe_load(dump_config(config, experiment.task)), config.path)
    assert checked_experiment(again, None).run_name == experiment.run_name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("methods", [{"name": "random"}]),
        ("queries", {"split": "test", "count": 1}),
        ("scores", {"models": 1}),
        ("measurement", "loss"),
    ],
)
def test_what_is_about_queries_is_refused(tmp_path, capsys, key, value):
    path = write_grid(tmp_path, {key: value})
    assert main(["plan", str(path)]) == 2
    assert capsys.readouterr().err == f"refit: {path}: {key}: recipe_grid takes no {key}\n"


def test_the_queries_of_a_campaign_without_are_an_error_that_says_so(done):
    for ask in (lambda: done.pipeline.queries, lambda: done.pipeline.experiment.queries(None)):
        with pytest.raises(ValueError, match="recipe_grid asks no queries"):
            ask()


@pytest.mark.parametrize("key", ["queries", "methods"])
def test_other_campaigns_must_still_say_what_they_ask(tmp_path, key):
    path = tmp_path / "config.yaml"
    given = options()
    del given[key]
    path.write_text(json.dumps(given))  # JSON is YAML
    with pytest.raises(InputError, match=rf"config.yaml: {key}: is missing; allowed keys here: .*campaign"):
        api.load_config(path)
