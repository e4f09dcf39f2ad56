"""Masked copies of examples: one token is hidden from attention, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data.token_arrays import join_tokens
from tasks.models.text_cnn import TextCNN
from tasks.task import MASKED
from tests.pair_tasks import pair_task

TOKENS = join_tokens([([1, 7, 8, 2], [(0, 0)] * 4), ([1, 9, 2], [(0, 0)] * 3)])


def test_rows_may_repeat_and_one_token_of_each_is_hidden():
    found = TOKENS.with_masked(np.array([1, 0, 0]), np.array([1, 2, 1]))
    ids, mask = found.padded(np.arange(3), 5, 0)
    assert ids.tolist() == [[1, 9, 2, 0, 0], [1, 7, 8, 2, 0], [1, 7, 8, 2, 0]]
    assert mask.astype(int).tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 1, 0]]
    assert found.counts(10).toarray()[:, 7:].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert TOKENS.padded(np.arange(2), 4, 0)[1].sum() == 7, "the tokens themselves are unchanged"


@pytest.mark.parametrize(("row", "position"), [(1, 3), (0, -1)])
def test_a_position_outside_its_text_is_refused(row, position):
    with pytest.raises(ValueError, match="outside its text"):
        TOKENS.with_masked(np.array([row]), np.array([position]))


def test_a_task_has_the_masked_examples_as_a_split_of_its_own():
    task = pair_task(TextCNN(embedding_dim=4, filters=3, kernel=3, max_length=24), None)
    rows, positions = np.array([3, 3, 1]), np.array([1, 2, 1])
    other = task.with_masked("test", rows, positions)
    before, after = task.batch("test", rows), other.batch(MASKED, np.arange(3))
    assert after["input_ids"].equal(before["input_ids"])
    assert after["labels"].equal(before["labels"])
    hidden = before["attention_mask"] & ~after["attention_mask"]
    assert hidden.nonzero().tolist() == [[0, 1], [1, 2], [2, 1]]
    assert MASKED not in task.splits
    assert other.splits[MASKED].texts == tuple(task.splits["test"].texts[row] for row in rows)
    assert other.token_spans(MASKED, 2) == task.token_spans("test", 1)
    network = task.network(0)
    moved = np.abs(other.outputs(network, MASKED, np.arange(3)) - task.outputs(network, "test", rows)).max(axis=1)
    assert (moved > 0).any()
