"""Removal requests -> deduplicated retrains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.methods.random import RandomControl
from influence.methods.random_same_label import RandomSameLabel
from influence.ranking import ranked
from orchestrator.campaigns.deletion.campaign import Deletion, fixed_plan
from orchestrator.campaigns.deletion.cells import deletion_cells
from orchestrator.campaigns.deletion.grid import DeletionGrid
from orchestrator.records import RetrainSpec
from tasks.data.edits import Edit
from tasks.errors import InputError

TRAIN = np.array([50, 10, 40, 20, 30, 60, 80, 70])
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1])
CONTROLS = {"random": RandomControl(), "random_same_label": RandomSameLabel()}


def spec(edit: Edit, seed: int) -> RetrainSpec:
    return RetrainSpec("train", "model", "recipe", edit.identity(), seed, {})


def plan_of(
    scores: dict[str, np.ndarray],
    k=(1, 3),
    groups=("proponents", "opponents"),
    seeds=(1, 2),
    control="random",
    mode="mask",
    query_labels=None,
    train=(TRAIN, LABELS),
):
    methods = dict.fromkeys(scores, False) | ({control: True} if control else {})
    n_queries = len(next(iter(scores.values())))
    return fixed_plan(
        DeletionGrid(
            methods,
            groups,
            Deletion(k=k).counts(len(TRAIN), "config"),
            list(range(n_queries)),
            np.zeros(n_queries, int) if query_labels is None else np.array(query_labels),
            seeds,
            lambda label, q, group: ranked(scores[label][q], TRAIN, group),
            lambda label, y, group, seed: CONTROLS[label].removal_order(*train, y, seed, group),
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
    cells = after.columns()
    assert {s for s, method in zip(cells["spec_id"], cells["method"], strict=True) if method == "a"} <= ids_before


def test_random_is_shared_by_all_queries_and_differs_by_seed():
    plan = plan_of({"a": SCORES}, k=(3,))
    control = plan.cell[1]
    assert (control == control[:, :, :1]).all()
    assert len(np.unique(control[0, 0, 0])) == 2
    first = {group: RandomControl().removal_order(TRAIN, LABELS, 0, 1, group) for group in ("proponents", "opponents")}
    assert (first["proponents"] == first["opponents"][::-1]).all()
    assert sorted(first["proponents"]) == sorted(TRAIN)


@pytest.mark.parametrize("control", CONTROLS.values(), ids=list(CONTROLS))
@pytest.mark.parametrize("group", ["proponents", "opponents", "least"])
def test_a_control_does_not_depend_on_the_order_of_the_train_set(control, group):
    forwards = control.removal_order(TRAIN, LABELS, 1, 5, group)
    assert (forwards == control.removal_order(TRAIN[::-1], LABELS[::-1], 1, 5, group)).all()
    assert set(forwards) <= set(TRAIN)
    assert len(set(forwards)) == len(forwards)


def removed(plan, control, query, repeat=0, k=-1):
    """Group -> the ids that a control removes for a query."""
    m = plan.methods.index(control)
    return {g: set(plan.works[plan.cell[m, i, k, query, repeat]].edit.ids) for i, g in enumerate(plan.groups)}


def test_the_same_label_control_draws_from_the_label_asked_about_or_from_the_others():
    plan = plan_of({"a": SCORES}, k=(2, 3), control="random_same_label", query_labels=[0, 1])
    of_label = {label: set(TRAIN[label == LABELS].tolist()) for label in (0, 1)}
    for query, label in enumerate((0, 1)):
        for repeat in (0, 1):
            found = removed(plan, "random_same_label", query, repeat)
            assert found["proponents"] < of_label[label]
            assert found["opponents"] < of_label[1 - label]
            assert removed(plan, "random_same_label", query, repeat, k=0)["proponents"] < found["proponents"]


def test_the_same_label_control_costs_one_order_a_label_and_shares_it():
    """With two classes, one label's proponents are the other label's opponents."""
    plan = plan_of({"a": np.tile(SCORES, (3, 1))}, k=(3,), control="random_same_label", query_labels=[0, 1, 0, 1, 1, 0])
    cell = plan.cell[1, :, 0]  # [groups, queries, repeats]
    assert (cell[:, [0, 2, 5]] == cell[:, :1]).all()
    assert (cell[0, 0] == cell[1, 1]).all()
    assert len(np.unique(cell)) == 2 * len(plan.seeds)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.data())
def test_same_label_draws_are_all_examples_of_their_label_in_a_random_order(seed, n, data):
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    ids = np.arange(n) * 7 + 3
    label = int(labels[0])
    proponents, opponents = (
        RandomSameLabel().removal_order(ids, labels, label, seed, group) for group in ("proponents", "opponents")
    )
    assert sorted(proponents) == ids[labels == label].tolist()
    assert sorted(opponents) == ids[labels != label].tolist()


def test_same_label_draws_put_every_example_first_equally_often():
    """The draw is uniform: over many seeds, each of 4 examples comes first about a quarter of the time (binomial, 5 sigma)."""
    first = [RandomSameLabel().removal_order(TRAIN, LABELS, 1, seed, "proponents")[0] for seed in range(2000)]
    counts = np.array([first.count(i) for i in TRAIN[LABELS == 1]])
    assert (np.abs(counts - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)).all()


def test_dispatch_is_breadth_first_over_repeats():
    plan = plan_of({"a": SCORES})
    seeds = [w.spec.seed for w in plan.works]
    assert seeds == sorted(seeds)
    assert plan.works[0].edit.is_empty


def test_columns_name_every_cell_once():
    plan = plan_of({"a": SCORES})
    cells = list(zip(*plan.columns().values(), strict=True))
    assert len(cells) == len(set(cells)) == plan.n_requested == plan.cell.size
    assert {len(cell) for cell in cells} == {6}


def test_deltas_are_paired_with_the_reference_of_their_repeat():
    plan = plan_of({"a": SCORES}, k=(1,), groups=("proponents",))
    values = np.random.default_rng(0).normal(size=(len(plan.works), 2))
    cells = deletion_cells(plan, values)
    for q, r in np.ndindex(2, 2):
        expected = values[plan.cell[0, 0, 0, q, r], q] - values[plan.reference[r], q]
        assert cells.delta[0, 0, 0, q, r] == expected
    values[plan.reference[1]] = math.nan
    assert np.isnan(deletion_cells(plan, values).delta[..., 1]).all()


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
