"""What a dry run says, before, half-way and after; it starts and writes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from orchestrator import api
from orchestrator.spending.meter import PricesConfig
from orchestrator.stages.pilot import RetrainClass, class_of, pilot_works
from tests.orchestrator.tiny_campaign import CONFIG, pipeline_of, run_here, small_config

CELLS = 3 * 2 * 2 * 3 * 2  # methods x groups x k x queries x repeats
BOUND = 2 * (1 + 4 * (2 * 3 + 1))  # repeats x (reference + sets x (scored methods x queries + random))


def test_before_anything_ran_the_number_of_retrains_is_bounded(tmp_path):
    found = api.plan(small_config(tmp_path))
    assert (found.cells, found.scores, found.missing_scores) == (CELLS, "missing", ("tracin_last", "with_bias"))
    assert (found.distinct, found.in_ledger, found.to_do) == (None, None, None)
    assert (found.distinct_max, found.scoring_models_to_do) == (BOUND, 1)
    assert (found.seconds_per_retrain, found.time_s, found.cost) == (None, "unknown", "unknown")
    assert (found.time_low_s, found.gpu_hours_high, found.cost_high) == (None, None, None)
    assert any(f"at most {BOUND}" in line for line in found.lines())
    assert "time           unknown   cost unknown" in found.lines()
    assert "refit plan --pilot" in found.lines()[-1]


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
    assert (found.time_low_s, found.time_high_s) == (None, None), "one model tells no range"
    assert run_here(config, until="retrain").report.retrained == found.distinct


def test_after_the_end_there_is_nothing_to_do(finished):
    found = api.plan(finished.config)
    assert (found.to_do, found.scoring_models_to_do, found.time_s, found.cost) == (0, 0, 0.0, 0.0)
    assert (found.time_low_s, found.time_high_s, found.cost_high, found.assumptions) == (0.0, 0.0, 0.0, "")
    assert found.lines()[-1] == "time           0 s   cost 0"
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
    assert shared.time_low_s == pytest.approx(more.time_low_s / 4)
    assert more.time_low_s < more.time_s < more.time_high_s
    assert f"95% range from {done.distinct + 1} retrains, 4 workers" in shared.assumptions


def test_time_is_told_by_retrains_of_the_same_class_and_ranges_as_they_do(own_copy):
    """Seconds as they might be, in a ledger as it is: the mean of 2 s and 4 s for the sets, 100 s for the scoring model."""
    pipeline = own_copy.pipeline
    rows = pipeline.ledger_rows(
        [w.spec_id for w in pipeline.planned.works] + [w.spec_id for w in pipeline.models.works]
    )
    kept = {w.spec_id: (2.0, 4.0)[n] for n, w in enumerate(pipeline.planned.works[:2])}
    kept |= {w.spec_id: 100.0 for w in pipeline.models.works}
    for path in (own_copy.folder / "runs" / "ledger").glob("*/part-*.parquet"):
        path.unlink()
    slow = [
        dataclasses.replace(r, outcome=dataclasses.replace(r.outcome, seconds=kept[s]))
        for s, r in rows.items()
        if s in kept
    ]
    pipeline.store.ledger(pipeline.experiment.task_id).publish(slow)
    found = api.plan(own_copy.config)
    n, variance = found.to_do, 2.0
    half = 12.7062047 * ((n * n / 2 + n) * variance) ** 0.5
    assert (found.seconds_per_retrain, found.time_s) == (pytest.approx(3.0), pytest.approx(3.0 * n))
    assert (found.time_low_s, found.time_high_s) == (0.0, pytest.approx(3.0 * n + half))


def test_cost_follows_from_the_price_table_and_is_dated(own_copy):
    prices = PricesConfig.model_validate({"date": "2026-11-01", "boot_s": 60.0, "per_hour": {"a": 3.0, "b": 6.0}})
    config = small_config(own_copy.folder, repeats__count=3, compute__workers=2)
    config = dataclasses.replace(config, settings=config.settings.model_copy(update={"prices": prices}))
    found, free = api.plan(config), api.plan(small_config(own_copy.folder, repeats__count=3, compute__workers=2))
    assert found.time_s == pytest.approx(free.time_s + 60)
    assert (found.cost_low, found.cost, found.cost_high) == (
        pytest.approx(2 * free.time_low_s / 3600 * 3.0),
        pytest.approx(2 * found.time_s / 3600 * 4.5),
        pytest.approx(2 * found.time_high_s / 3600 * 6.0),
    )
    assert (found.currency, found.gpu_hours_high) == ("USD", 0.0)
    assert found.assumptions.endswith("2 workers, 2 nodes, boot 60 s, 3 to 6 USD a node-hour (2026-11-01)")
    assert free.cost == "unknown"


def test_a_pilot_trains_five_of_every_class_and_is_part_of_the_campaign(tmp_path):
    config = small_config(tmp_path)
    run_here(config, until="plan")
    pipeline = pipeline_of(config)
    works = pilot_works(pipeline.planned.works, pipeline.ledger.index().rows.keys(), 5)
    assert Counter(map(class_of, works)) == {RetrainClass("", "mask", False): 5}
    try:
        pipeline.retraining.bring_in_waves(works, "pilot")
    finally:
        pipeline.close()
    found = api.plan(config)
    assert (found.in_ledger, found.to_do) == (5, found.distinct - 5)
    assert found.time_low_s < found.time_s < found.time_high_s
    again = pipeline_of(config)
    assert not pilot_works(again.planned.works, again.ledger.index().rows.keys(), 5)


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


def test_a_campaign_whose_repeats_may_end_early_ranges_from_what_is_planned_to_the_most(tmp_path):
    config = small_config(tmp_path, repeats={"min": 3, "max": 4, "target_se": 1e-9})
    run_here(config, until="plan")
    pipeline = pipeline_of(config)
    works = pipeline.planned.works
    assert not pipeline.planned.is_final
    try:
        pipeline.retraining.bring_in_waves(works[:4], "some")
    finally:
        pipeline.close()
    found = api.plan(config)
    assert (found.distinct, found.to_do, found.in_ledger, found.distinct_max) == (None, None, 4, 2 * BOUND)
    assert found.time_s == pytest.approx(found.seconds_per_retrain * (2 * BOUND - 4))
    assert found.time_low_s < found.seconds_per_retrain * (len(works) - 4)
    assert found.time_high_s > found.time_s
    assert any("4 in the ledger; each curve is repeated until it reaches its target" in line for line in found.lines())


def test_the_json_is_plain(finished):
    found = api.plan(finished.config)
    value = json.loads(json.dumps(found.json()))
    assert value["distinct"] == found.distinct
    assert value["missing_scores"] == []
