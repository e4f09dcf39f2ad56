"""The simulated fleet at a small size: nothing is lost or counted twice, and its times add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.planning import measure
from benchmarks.simulate import simulate
from benchmarks.virtual_parts import Conditions, Faults

SMALL = Conditions(workers=20, retrains=400, median_s=60.0, tick_s=5.0, outputs=(5, 2))
FREQUENT = Faults(between_preemptions_s=40.0, crashed_frac=0.02, straggling_frac=0.01, late_frac=0.5)


@pytest.fixture(scope="module")
def quiet():
    return simulate(SMALL)


@pytest.fixture(scope="module")
def faulty():
    return simulate(replace(SMALL, faults=FREQUENT))


def test_without_faults_every_worker_is_busy_until_the_tail(quiet):
    assert quiet["utilisation"]["before_tail"] > 0.999
    assert quiet["counts"]["attempts"] == SMALL.retrains
    assert quiet["failures"] == {}


def test_faults_cost_attempts_and_time_but_no_retrain(quiet, faulty):
    assert faulty["counts"]["attempts"] > SMALL.retrains
    assert faulty["counts"]["preemptions"] > 10
    assert faulty["failures"]["error"] > 0
    assert faulty["failures"]["node_lost"] > 0
    assert faulty["worker_hours"]["useful"] == pytest.approx(quiet["worker_hours"]["useful"])
    assert 0.5 < faulty["utilisation"]["whole"] < quiet["utilisation"]["whole"]


@pytest.mark.parametrize("campaign", ["quiet", "faulty"])
def test_no_worker_is_busy_for_longer_than_it_is_there(campaign, request):
    result = request.getfixturevalue(campaign)
    hours = result["worker_hours"]
    busy = sum(hours.get(kind, 0.0) for kind in ("useful", "straggling", "duplicate", "crashed", "lost"))
    assert hours["useful"] <= busy + 1e-9
    assert busy <= hours["provisioned"] <= hours["billed"] + 1e-9


def test_the_same_seed_is_the_same_campaign(faulty):
    again = simulate(replace(SMALL, faults=FREQUENT))
    for name in ("utilisation", "worker_hours", "virtual_hours", "counts", "failures"):
        assert again[name] == faulty[name]


def test_rows_are_encoded_and_the_driver_timed(quiet):
    assert 0 < quiet["counts"]["encoded rows"] <= SMALL.retrains
    assert quiet["driver_cpu_ms_per_retrain"]["scheduling"] > 0
    assert quiet["driver_cpu_ms_per_retrain"]["encoding"] > 0


def test_planning_measures_a_campaign_in_which_a_tenth_agrees():
    found = measure(n_queries=2, n_train=200)
    assert found["cells"] == 2000
    assert found["distinct"] == 8 * 2 * 5 * 2 * 10 + 10 * 11
    assert found["planning_cpu_s"] > 0
    assert found["planning_peak_mb"] > 0
