"""Ranges of time and cost, worked out by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from orchestrator.forecast.outlook import BETWEEN_PREEMPTIONS_S, History, Span, WorkerPlan, outlook, total_s
from orchestrator.scheduling.budget import HOUR_S, Prices
from orchestrator.stages.pilot import RetrainClass

A, B = RetrainClass("", "mask", False), RetrainClass("", "drop", False)
MODEL, OTHER = RetrainClass("", "mask", True), RetrainClass("other", "mask", False)
PRICES = Prices("2026-11-01", "USD", {"g5/spot": 0.5, "g5/on-demand": 2.0, "p3/spot": 1.0}, boot_s=100.0)


def test_one_class_has_the_t_interval_of_a_sum():
    """Mean 3, variance 2.5, n = 5: variance of 10 more is (100 / 5 + 10) 2.5 = 75; t(4) = 2.776."""
    found = total_s(Counter({A: 10}), History({A: [1, 2, 3, 4, 5]}))
    half = 2.7764451 * math.sqrt(75)
    assert found == Span(30.0, pytest.approx(30 - half), pytest.approx(30 + half))


def test_classes_add_up_with_the_fewest_degrees_of_freedom():
    found = total_s(Counter({A: 10, B: 2}), History({A: [1, 2, 3, 4, 5], B: [100.0, 100.0, 130.0]}))
    half = 4.3026527 * math.sqrt(75 + (4 / 3 + 2) * 300)
    assert found == Span(30 + 220, pytest.approx(250 - half), pytest.approx(250 + half))


def test_a_range_never_goes_below_nothing_and_needs_two_values():
    assert total_s(Counter({A: 1}), History({A: [1.0, 100.0]})).low == 0.0  # type: ignore[union-attr]
    assert total_s(Counter({A: 4}), History({A: [3.0]})) == Span(12.0)
    assert total_s(Counter({A: 4}), History()) is None
    assert total_s(Counter(), History()) == Span(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("own", "others", "several", "wanted", "seconds"),
    [
        ({A: [1, 2], B: [9, 9]}, [], False, A, [1, 2]),
        ({A: [1], B: [9, 9]}, [], False, A, [1, 9, 9]),  # one value has no range: the arm's
        ({A: [], MODEL: [5]}, [7, 7], False, A, [5]),  # one of its own before others'
        ({A: []}, [7, 7], False, A, [7, 7]),
        ({A: [1, 2], OTHER: [30, 40]}, [], True, OTHER, [30, 40]),
        ({A: [1, 2], OTHER: []}, [], True, OTHER, [1, 2]),
        ({MODEL: [1, 2], OTHER: []}, [], True, OTHER, []),  # models of another arm tell nothing
        ({MODEL: [1, 2]}, [], True, A, [1, 2]),  # of the same arm they do
        ({MODEL: [1, 2]}, [], False, None, [1, 2]),
        ({MODEL: [1, 2]}, [], True, None, []),
    ],
)
def test_the_history_nearest_in_kind_tells(own, others, several, wanted, seconds):
    assert list(History(own, others, several).like(wanted)[1]) == seconds


def test_classes_that_borrow_the_same_history_are_wrong_together():
    borrowed = total_s(Counter({A: 5, B: 5}), History({}, [1.0, 2.0, 3.0]))
    assert borrowed == total_s(Counter({A: 10}), History({}, [1.0, 2.0, 3.0]))


def test_coverage_of_the_range_is_what_it_says():
    """5 log-normal pilots (sigma 0.3) tell of 60 more: 95% of the ranges hold the sum."""
    random, held = np.random.default_rng(0), 0
    for _ in range(2000):
        values = random.lognormal(0.0, 0.3, 65)
        found = total_s(Counter({A: 60}), History({A: list(values[:5])}))
        assert found is not None
        held += found.low <= values[5:].sum() <= found.high  # type: ignore[operator]
    assert 0.93 <= held / 2000 <= 0.97


def test_workers_share_the_time_and_no_more_of_them_than_retrains():
    history = History({A: [10.0, 10.0]})
    for workers, seconds in ((1, 40.0), (2, 20.0), (4, 10.0), (100, 10.0)):
        found = outlook(Counter({A: 4}), Counter({A: 4}), history, WorkerPlan(workers))
        assert found is not None
        assert (found.time_s, found.cost) == (Span(seconds, seconds, seconds), None)


def test_spot_machines_waste_half_a_retrain_each_time_they_go():
    wasted = total_s(Counter({A: 10}), History({A: [600.0, 600.0]}), BETWEEN_PREEMPTIONS_S)
    assert wasted is not None
    assert wasted.mean == pytest.approx(6000 * (1 + 600 / (2 * BETWEEN_PREEMPTIONS_S)))
    assert WorkerPlan(1, market="spot").between_preemptions_s == BETWEEN_PREEMPTIONS_S
    assert WorkerPlan(1, market="on-demand").between_preemptions_s == WorkerPlan(1).between_preemptions_s == math.inf


@pytest.mark.parametrize(("market", "least", "most"), [(None, 0.5, 2.0), ("on-demand", 2.0, 2.0), ("spot", 0.5, 1.0)])
def test_cost_is_for_booted_nodes_over_the_prices_of_the_market(market, least, most):
    """4 retrains of 1800 s on 2 GPU workers: 1 h, booted after 100 s; GPUs: one a node."""
    pool = WorkerPlan(2, 1.0, market, PRICES)
    assert pool.per_hour == (least, most)
    found = outlook(Counter({A: 4}), Counter({A: 4}), History({A: [1800.0, 1800.0]}), pool)
    assert found is not None
    waste = 1 + 1800 / (2 * pool.between_preemptions_s)
    low_s, high_s = HOUR_S * waste, HOUR_S * waste + 100
    assert found.time_s == Span(pytest.approx(high_s), pytest.approx(low_s), pytest.approx(high_s))
    assert (found.gpu_hours.low, found.gpu_hours.high) == (
        pytest.approx(2 * low_s / HOUR_S),
        pytest.approx(2 * high_s / HOUR_S),
    )
    assert found.cost is not None
    assert (found.cost.low, found.cost.high) == (
        pytest.approx(2 * low_s / HOUR_S * least),
        pytest.approx(2 * high_s / HOUR_S * most),
    )
    assert found.cost.low <= found.cost.mean <= found.cost.high  # type: ignore[operator]


@pytest.mark.parametrize(("workers", "gpus", "nodes"), [(8, 0.25, 2), (3, 0.5, 2), (3, 1, 3), (3, 2, 6), (3, 0, 3)])
def test_nodes_are_one_a_gpu_or_one_a_worker(workers, gpus, nodes):
    assert WorkerPlan(workers, gpus).n_nodes(workers) == nodes


def test_a_campaign_that_may_end_early_ranges_from_its_least_to_its_most():
    found = outlook(Counter({A: 2}), Counter({A: 10}), History({A: [1.0, 1.0]}), WorkerPlan(1))
    assert found is not None
    assert found.time_s == Span(10.0, 2.0, 10.0)
