"""Which probes and examples a round looks at."""

import numpy as np
import pytest

from influence.recipes.tuples import Accessible
from tasks.base import Split

N = 400


def split(seed=0, agreement=0.9):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, N)
    confounds = np.where(rng.random(N) < agreement, labels, 1 - labels)
    return Split(np.arange(N) + 50, labels, ("a", "b"), ("text",) * N, confounds=confounds, confound_names=("x", "y"))


def access(rate=1.0, kept=None, minority=0, seed=1, data=None):
    data = split() if data is None else data
    return Accessible.draw(data, np.ones(N, bool) if kept is None else kept, rate, minority, seed)


def test_groups_share_the_probes_label_and_the_first_its_confound():
    data, tuples = split(), access().tuples(75, 5, 1, 50, 1)
    assert tuples.rows.shape == (75, 11)
    assert len(set(tuples.rows[:, 0])) == 75
    probes = tuples.rows[:, :1]
    assert (data.labels[tuples.rows] == data.labels[probes]).all()
    assert (data.confounds[tuples.rows[:, 1:6]] == data.confounds[probes])[tuples.weights[:, :5] > 0].all()
    assert (data.confounds[tuples.rows[:, 6:]] != data.confounds[probes])[tuples.weights[:, 5:] < 0].all()
    np.testing.assert_allclose(np.where(tuples.weights > 0, tuples.weights, 0).sum(1), 1)
    np.testing.assert_allclose(np.where(tuples.weights < 0, tuples.weights, 0).sum(1), -1)
    used = np.where(tuples.weights != 0, tuples.rows[:, 1:], -1)
    assert (used != probes).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in used)


def test_draws_are_keyed_by_seed_and_round():
    base = access()
    first = base.tuples(20, 3, 1, 50, 1).rows
    assert (base.tuples(20, 3, 1, 50, 1).rows == first).all()
    assert (base.tuples(20, 3, 1, 50, 2).rows != first).any()
    assert (base.tuples(20, 3, 1, 100, 1).rows != first).any()
    assert (base.tuples(20, 3, 2, 50, 1).rows != first).any()


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_only_the_accessible_share_is_looked_at(rate):
    found = access(rate)
    assert found.known.sum() == round(rate * N)
    assert found.known[access(rate).tuples(75, 5, 1, 50, 1).rows].all()


def test_a_higher_rate_adds_to_a_lower_one():
    assert (access(0.5).known | ~access(0.1).known).all()


def test_forced_minority_examples_are_the_first_of_each_cell():
    data = split()
    found, plain = access(0.05, minority=5), access(0.05)
    for label in (0, 1):
        cell = np.flatnonzero((data.labels == label) & (data.confounds != label))
        assert found.known[cell[:5]].all()
    assert found.known.sum() <= plain.known.sum() + 10
    assert (found.known | ~plain.known).all()


def test_a_removed_row_is_never_drawn_and_moves_no_other_draw():
    data, kept = split(), np.ones(N, bool)
    before = access(data=data).tuples(30, 4, 1, 50, 1)
    gone = int(before.rows[3, 2])
    kept[gone] = False
    after = access(kept=kept, data=data).tuples(30, 4, 1, 50, 1)
    assert gone not in after.rows
    unaffected = ~(before.rows == gone).any(1)
    assert (after.rows[unaffected] == before.rows[unaffected]).all()


def test_a_probe_without_both_groups_is_passed_over():
    labels = np.array([0, 0, 0, 1, 1, 1])
    confounds = np.array([0, 0, 1, 1, 1, 1])  # label 1 has one confound only; row 2 is alone in its cell
    data = Split(np.arange(6), labels, ("a", "b"), ("t",) * 6, confounds=confounds, confound_names=("x", "y"))
    tuples = Accessible.draw(data, np.ones(6, bool), 1.0, 0, 0).tuples(10, 3, 0, 1)
    assert sorted(tuples.rows[:, 0]) == [0, 1]
    assert (tuples.weights[:, 0] == 1).all()
    assert (tuples.weights[:, 3] == -1).all()
    assert (tuples.weights[:, [1, 2, 4, 5]] == 0).all()


def test_without_any_usable_probe_there_are_no_tuples():
    data = split(agreement=1.0)
    tuples = access(data=data).tuples(10, 5, 0, 1)
    assert len(tuples) == 0
    assert tuples.rows.shape == (0, 11)
    assert tuples.weights.shape == (0, 10)
