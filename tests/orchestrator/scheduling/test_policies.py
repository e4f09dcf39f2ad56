from typing import get_args

import pytest

from orchestrator.scheduling.events import FailureKind
from orchestrator.scheduling.policies import CHARGED_TO, Backoff, Budgets, ChargedFailures, charge, is_exhausted


def test_every_kind_of_failure_has_a_budget():
    assert set(CHARGED_TO) == set(get_args(FailureKind))


@pytest.mark.parametrize("kind", ["error", "timeout", "out_of_memory"])
def test_failures_of_the_retrain_use_retries_only(kind):
    assert charge(ChargedFailures(1, 5), kind) == ChargedFailures(2, 5)


@pytest.mark.parametrize("kind", ["preempted", "node_lost", "storage"])
def test_machines_and_stores_that_are_away_use_preemptions_only(kind):
    assert charge(ChargedFailures(1, 5), kind) == ChargedFailures(1, 6)


def test_a_budget_of_n_allows_n_failures():
    budgets = Budgets(retries=2, preemptions=3)
    assert not is_exhausted(ChargedFailures(2, 3), budgets)
    assert is_exhausted(ChargedFailures(3, 0), budgets)
    assert is_exhausted(ChargedFailures(0, 4), budgets)


def test_backoff_doubles_up_to_its_longest_wait_and_then_gives_up():
    backoff = Backoff(first_s=1.0, longest_s=5.0, limit=5)
    assert [backoff.delay_s(n) for n in range(1, 7)] == [1.0, 2.0, 4.0, 5.0, 5.0, None]


def test_the_default_backoff_outlasts_a_disk_that_is_full_for_minutes():
    waits = [Backoff().delay_s(n) for n in range(1, Backoff().limit + 1)]
    assert sum(waits) > 240
