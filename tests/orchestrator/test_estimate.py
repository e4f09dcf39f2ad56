"""What a dry run says, before, half-way and after; it starts and writes nothing."""

from __future__ import annotations

import json

import pytest

from orchestrator import api
from tests.orchestrator.tiny_campaign import CONFIG, run_here, small_config

CELLS = 3 * 2 * 2 * 3 * 2  # methods x groups x k x queries x repeats
BOUND = 2 * (1 + 4 * (2 * 3 + 1))  # repeats x (reference + sets x (scored methods x queries + random))


def test_before_anything_ran_the_number_of_retrains_is_bounded(tmp_path):
    found = api.plan(small_config(tmp_path))
    assert (found.cells, found.scores, found.missing_scores) == (CELLS, "missing", ("tracin_last", "with_bias"))
    assert (found.distinct, found.in_ledger, found.to_do) == (None, None, None)
    assert (found.distinct_max, found.scoring_models_to_do) == (BOUND, 1)
    assert (found.seconds_per_retrain, found.time_s, found.cost) == (None, "unknown", "unknown")
    assert any(f"at most {BOUND}" in line for line in found.lines())


def test_a_dry_run_writes_nothing(tmp_path):
    config = small_config(tmp_path)
    api.plan(config)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["config.yaml"]


def test_after_the_plan_the_number_is_exact(tmp_path):
    config = small_config(tmp_path, repeats__count=1)
    run_here(config, until="plan")
    found = api.plan(config)
    assert (found.scores, found.missing_scores, found.scoring_models_to_do) == ("complete", (), 0)
    assert found.distinct == found.to_do
    assert (found.in_ledger, found.distinct_max) == (0, BOUND // 2)
    assert found.distinct is not None
    assert found.distinct <= BOUND // 2
    assert found.seconds_per_retrain is not None
    assert found.time_s == pytest.approx(found.seconds_per_retrain * found.distinct)
    assert run_here(config, until="retrain").report.retrained == found.distinct


def test_after_the_end_there_is_nothing_to_do(finished):
    found = api.plan(finished.config)
    assert (found.to_do, found.scoring_models_to_do, found.time_s, found.cost) == (0, 0, 0.0, "0")
    assert found.in_ledger == found.distinct == finished.result.report.retrained - 1
    assert found.run_dir == str(finished.run_dir)
    assert found.cells == CELLS


def test_more_repeats_ask_for_the_new_seeds_only_and_workers_share_them(own_copy):
    done = api.plan(own_copy.config)
    more = api.plan(small_config(own_copy.folder, repeats__count=3))
    assert more.in_ledger == done.distinct
    assert more.to_do == more.distinct - done.distinct == done.distinct / 2
    assert more.run != done.run
    shared = api.plan(small_config(own_copy.folder, repeats__count=3, compute__workers=4))
    assert shared.seconds_per_retrain == more.seconds_per_retrain
    assert shared.time_s == pytest.approx(more.time_s / 4)


def test_adding_a_method_asks_for_new_sets_only(own_copy):
    done = api.plan(own_copy.config)
    config = small_config(own_copy.folder, methods=[*CONFIG["methods"], {"name": "tfidf"}])
    assert (api.plan(config).missing_scores, api.plan(config).distinct) == (("tfidf",), None)
    run_here(config, until="plan")
    found = api.plan(config)
    assert found.in_ledger == done.distinct
    assert found.to_do == found.distinct - done.distinct <= 2 * 4 * 3


def test_a_scoring_model_whose_weights_are_gone_is_trained_again_only_for_scores(own_copy):
    for path in (own_copy.folder / "runs" / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    assert api.plan(own_copy.config).scoring_models_to_do == 0
    more = small_config(own_copy.folder, methods=[*CONFIG["methods"], {"name": "tfidf"}])
    assert api.plan(more).scoring_models_to_do == 1
    assert run_here(own_copy.config, until="plan").report.retrained == 0
    assert run_here(more, until="score").report.retrained == 1


@pytest.mark.parametrize(
    ("queries", "n"),
    [
        ({"where": {"correct": True}, "count": 2}, 2),
        ({"where": {"correct": True}, "per_class": 1}, 2),
        ({"where": {"correct": True}}, 6),  # all that are measured, at most
    ],
)
def test_queries_that_a_scoring_model_must_judge_are_counted_as_asked(tmp_path, queries, n):
    found = api.plan(small_config(tmp_path, queries={"split": "test", **queries}))
    assert found.cells == CELLS // 3 * n
    assert found.distinct_max == 2 * (1 + 4 * (2 * n + 1))


def test_the_json_is_plain(finished):
    found = api.plan(finished.config)
    value = json.loads(json.dumps(found.json()))
    assert value["distinct"] == found.distinct
    assert value["missing_scores"] == []
