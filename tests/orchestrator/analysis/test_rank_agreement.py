"""Rank agreement of two judges over few methods."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from orchestrator.analysis.rank_agreement import rank_agreement


def test_the_same_order_agrees_fully_and_the_reverse_not_at_all():
    found, turned = rank_agreement([1, 2, 3, 4], [10, 20, 25, 90]), rank_agreement([1, 2, 3, 4], [4, 3, 2, 1])
    assert (found.tau, found.rho) == (1, pytest.approx(1))
    assert (turned.tau, turned.rho) == (-1, pytest.approx(-1))
    assert found.p == pytest.approx(found.least_p) == pytest.approx(2 / 24)


def test_p_is_the_share_of_orders_that_agree_or_disagree_as_much():
    other = [2, 1, 3, 5, 4]
    found = rank_agreement(range(5), other)
    taus = [rank_agreement(range(5), order).tau for order in permutations(range(5))]
    assert found.p == pytest.approx(sum(abs(tau) >= abs(found.tau) - 1e-12 for tau in taus) / len(taus))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_up_to_four_methods_cannot_be_told_from_chance(n):
    sentence = rank_agreement(range(n), range(n)).sentence("LDS", "AUC-DEL")
    assert f"With {n} methods p is at least" in sentence
    assert "cannot be told from chance" in sentence


def test_six_methods_in_the_same_order_can():
    assert "chance" not in rank_agreement(range(6), range(6)).sentence("LDS", "AUC-DEL")
    assert rank_agreement(range(6), [3, 1, 5, 0, 2, 4]).sentence("LDS", "AUC-DEL").endswith("told from chance.")


@pytest.mark.parametrize(("one", "other"), [([], []), ([1], [2]), ([1, 1], [1, 2])])
def test_without_an_order_there_is_no_agreement(one, other):
    found = rank_agreement(one, other)
    assert math.isnan(found.tau)
    assert found.json()["tau"] is None
    assert "no rank agreement" in found.sentence("LDS", "AUC-DEL")
