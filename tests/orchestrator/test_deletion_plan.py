"""Removal requests -> deduplicated retrains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.ranking import ranked
from orchestrator.campaigns.deletion import Deletion, fixed_plan
from orchestrator.campaigns.deletion_grid import DeletionGrid, control_orders
from orchestrator.records import RetrainSpec
from tasks.data.edits import Edit
from tasks.errors import InputError

TRAIN = np.array([50, 10, 40, 20, 30, 60, 80, 70])


def spec(edit: Edit, seed: int) -> RetrainSpec:
    return RetrainSpec("train", "model", "recipe", edit.identity(), seed, {})


def plan_of(
    scores: dict[str, np.ndarray],
    k=(1, 3),
    groups=("proponents", "opponents"),
    seeds=(1, 2),
    control="random",
    mode="mask",
):
    methods = dict.fromkeys(scores, False) | ({control: True} if control else {})
    n_queries = len(next(iter(scores.values())))
    return fixed_plan(
        DeletionGrid(
            methods,
            groups,
            Deletion(k=k).counts(len(TRAIN), "config"),
            list(range(n_queries)),
            TRAIN,
            seeds,
            lambda label, q, group: ranked(scores[label][q], TRAIN, group),
            spec,
            mode,
        )
    )


SCORES = np.array([[3.0, 1, 2, 0, -1, -2, -3, -4], [0, 1, 2, 3, 4, 5, 6, 7]])


def test_sets_are_the_extremes_of_each_row():
    plan = plan_of({"a": SCORES})
    removed = plan.works[plan.cell[0, 0, 1, 0, 0]].edit.ids
    assert removed == (10, 40, 50)  # scores 3, 2, 1
    assert plan.works[plan.cell[0, 1, 1, 0, 0]].edit.ids == (60, 70, 80)


def test_equal_sets_train_once_and_the_reference_once_per_seed():
    plan = plan_of({"a": SCORES, "b": 2 * SCORES}, control=None)
    assert (plan.cell[0] == plan.cell[1]).all()
    assert len({w.spec_id for w in plan.works}) == len(plan.works)
    assert [plan.works[i].edit.is_empty for i in plan.reference] == [True, True]
    assert sum(w.edit.is_empty for w in plan.works) == 2


def test_adding_a_method_adds_only_new_sets():
    before, after = plan_of({"a": SCORES}), plan_of({"a": SCORES, "b": SCORES[:, [2, 5, 0, 7, 1, 3, 6, 4]]})
    ids_before, ids_after = ({w.spec_id for w in p.works} for p in (before, after))
    assert ids_before < ids_after
    assert {p.spec_id for p in after.requests() if p.method == "a"} <= ids_before


def test_random_is_shared_by_all_queries_and_differs_by_seed():
    plan = plan_of({"a": SCORES}, k=(3,))
    control = plan.cell[1]
    assert (control == control[:, :, :1]).all()
    assert len(np.unique(control[0, 0, 0])) == 2
    first = control_orders(TRAIN, 1, ("proponents", "opponents"))
    assert (first["proponents"] == first["opponents"][::-1]).all()
    assert sorted(first["proponents"]) == sorted(TRAIN)


def test_the_control_does_not_depend_on_the_order_of_the_train_set():
    assert (control_orders(TRAIN, 1, ("least",))["least"] == control_orders(TRAIN[::-1], 1, ("least",))["least"]).all()


def test_dispatch_is_breadth_first_over_repeats():
    plan = plan_of({"a": SCORES})
    seeds = [w.spec.seed for w in plan.works]
    assert seeds == sorted(seeds)
    assert plan.works[0].edit.is_empty


def test_requests_name_every_cell_once():
    plan = plan_of({"a": SCORES})
    requests = list(plan.requests())
    assert len(requests) == len(set(requests)) == plan.n_requested == plan.cell.size
    assert [len(column) for column in plan.columns().values()] == [len(requests)] * 6


def test_deltas_are_paired_with_the_reference_of_their_repeat():
    campaign = Deletion(k=(1,), groups=("proponents",))
    plan = plan_of({"a": SCORES}, k=(1,), groups=("proponents",))
    values = np.random.default_rng(0).normal(size=(len(plan.works), 2))
    cells = campaign.analyse(plan, values)
    for q, r in np.ndindex(2, 2):
        expected = values[plan.cell[0, 0, 0, q, r], q] - values[plan.reference[r], q]
        assert cells.delta[0, 0, 0, q, r] == expected
    values[plan.reference[1]] = math.nan
    assert np.isnan(campaign.analyse(plan, values).delta[..., 1]).all()


def test_fractions_become_counts():
    assert Deletion(k=(0.25, 3)).counts(8, "c") == (2, 3)


@pytest.mark.parametrize(
    ("k", "match"), [((8,), "not below the 8"), ((9,), "9 is not below"), ((2, 0.25), "same count")]
)
def test_k_that_do_not_fit_are_refused(k, match):
    with pytest.raises(InputError, match=match):
        Deletion(k=k).counts(8, "c")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31), st.booleans())
def test_the_number_of_distinct_retrains_is_bounded_as_estimated(n_methods, n_queries, seed, control):
    rng = np.random.default_rng(seed)
    scores = {f"m{i}": rng.integers(-2, 3, size=(n_queries, len(TRAIN))).astype(float) for i in range(n_methods)}
    plan = plan_of(scores, control="random" if control else None)
    bound = Deletion(k=(1, 3)).distinct_max(n_methods, int(control), n_queries, 2)
    assert len(plan.works) <= bound
    assert plan.cell.max() < len(plan.works)
