"""Batches are cut into groups of similar length at the least cost, and measured rows keep their place."""

import numpy as np
import pytest

from tasks.base import Numerics
from tasks.length_groups import batch_parts, by_length, length_groups
from tasks.models.text_cnn import TextCNN
from tasks.recipes.finetune import Finetune
from tests.fakes import BLANK, token_task
from tests.gaussian_fakes import mixture_task
from tests.pair_tasks import pair_task


def partitions(items):
    """Every way to split a list into groups, in any order."""
    if not items:
        yield []
        return
    for groups in partitions(items[1:]):
        yield [[items[0]], *groups]
        for at in range(len(groups)):
            yield [*groups[:at], [items[0], *groups[at]], *groups[at + 1 :]]


def cost_of(lengths, groups, cost):
    return sum(len(group) * max(lengths[i] for i in group) + cost for group in groups)


@pytest.mark.parametrize("most", [0, 2, 3])
@pytest.mark.parametrize("cost", [1, 7, 40])
def test_no_other_split_of_the_rows_costs_less(cost, most):
    random = np.random.default_rng(cost)
    for n in range(1, 8):
        lengths = random.integers(2, 30, n)
        groups = length_groups(lengths, cost, most)
        assert sorted(np.concatenate(groups)) == list(range(n))
        allowed = [split for split in partitions(list(range(n))) if not most or max(map(len, split)) <= most]
        assert cost_of(lengths, groups, cost) == min(cost_of(lengths, split, cost) for split in allowed)


def test_groups_come_longest_first_and_equal_lengths_keep_their_order():
    groups = length_groups(np.array([4, 9, 4, 9, 4, 2]), 1)
    assert [group.tolist() for group in groups] == [[1, 3], [0, 2, 4], [5]]
    assert [group.tolist() for group in length_groups(np.array([3, 9, 3]), 100)] == [[1, 0, 2]]
    assert length_groups(np.zeros(0, np.int64), 5) == []


def test_the_length_of_a_blank_row_changes_no_part():
    task = token_task(TextCNN(embedding_dim=4, filters=2), Finetune()).with_length_groups(2)
    rows, blank = np.arange(8), np.arange(8) == 3
    noisy = task.with_noise_in(task.splits["train"].ids[[3]]).with_length_groups(2)
    assert len(noisy.tokens["train"][3]) > 2 * len(task.tokens["train"][3])
    before, after = (batch_parts(each, "train", rows, blank) for each in (task, noisy))
    assert [part.tolist() for part in before] == [part.tolist() for part in after]
    assert len(before) > 1
    assert not np.array_equal(batch_parts(noisy, "train", rows, blank & False)[0], before[0]), "shown, it would"
    assert task.row_lengths("train", rows, blank)[3] == len(BLANK)


def test_without_length_groups_parts_are_consecutive_rows():
    task, rows = token_task(TextCNN(embedding_dim=4, filters=2), Finetune()), np.array([5, 2, 9])
    assert [part.tolist() for part in batch_parts(task, "train", rows, rows < 0)] == [[0, 1, 2]]
    assert [part.tolist() for part in batch_parts(task, "train", rows, rows < 0, most=2)] == [[0, 1], [2]]
    assert by_length(task, "train", rows).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def pairs():
    """Pairs of 2 to 11 words."""
    return pair_task(TextCNN(embedding_dim=4, filters=3), Finetune(), n_train=90)


def test_a_text_task_pads_a_group_to_its_longest_row_only(pairs):
    rows = np.arange(20)
    grouped, lengths = pairs.with_length_groups(8), pairs.row_lengths("train", rows, rows < 0)
    for part in batch_parts(grouped, "train", rows, rows < 0):
        assert grouped.batch("train", rows[part])["input_ids"].shape == (len(part), lengths[part].max())
    assert pairs.batch("train", rows)["input_ids"].shape[1] % 16 == 0
    empty = pairs.row_lengths("train", rows, rows == 4)[4]
    assert empty == len(pairs.tokeniser.neutral_ids)
    assert grouped.batch("train", rows[:1], blank=np.ones(1, bool))["input_ids"].shape == (1, empty)


def test_outputs_stay_in_the_order_that_was_asked_for(pairs):
    network, grouped = pairs.network(3), pairs.with_length_groups(8)
    rows = np.random.default_rng(0).integers(0, 90, 150)  # repeated rows, over several batches
    found = grouped.outputs(network, "train", rows)
    np.testing.assert_allclose(found, pairs.outputs(network, "train", rows), rtol=0, atol=1e-6)
    lengths = pairs.row_lengths("train", rows, rows < 0)[by_length(grouped, "train", rows)]
    assert (np.diff(lengths) <= 0).all()
    assert lengths[0] > lengths[-1]


def test_turning_length_groups_off_again_gives_the_task_of_before(pairs):
    assert pairs.with_length_groups(0) is pairs
    again = pairs.with_length_groups(8).with_length_groups(0)
    network = pairs.network(3)
    found, expected = (task.outputs(network, "train", np.arange(90)) for task in (again, pairs))
    assert found.tobytes() == expected.tobytes()


def test_numerics_without_length_groups_have_the_identity_of_before():
    assert "length_group_cost" not in Numerics().identity()
    assert Numerics(length_group_cost=64).identity() == {**Numerics().identity(), "length_group_cost": 64}


def test_a_task_without_texts_has_no_lengths():
    task = mixture_task(Finetune(), measured=("means",))
    assert task.row_lengths("train", np.arange(3), np.zeros(3, bool)) is None
