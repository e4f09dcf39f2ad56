"""Undoing and reinforcing sentences: the order, the direction, and what is refused."""

import numpy as np
import pytest
import torch

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.recipes.reinforce import Reinforce, _batches
from tasks.recipes.skip_gram import SkipGramTraining
from tests.word_fakes import parent_of, word_task

DOUBLE = Numerics(dtype="float64")


def task_of(**options):
    return word_task(Reinforce(**{"window": 3, "subsample": 0.0, "optimizer": "sgd", "learning_rate": 0.01, **options}))


def train(task, edit, seed=3, parent=None, **options):
    parent = parent or parent_of(task)
    return task.recipe.train(task, Training(edit=edit, seed=seed, numerics=DOUBLE, parent=parent, **options))


def loss_of(task, weights, ids):
    """Mean of the task's own losses of these sentences."""
    network = task.network(0).double()
    network.load_state_dict({name: torch.as_tensor(np.asarray(weight)) for name, weight in weights.items()})
    return task.losses(network, task.batch("train", task.splits["train"].rows_of(ids))).mean().item()


def selection(task, undo=(), reinforce=()):
    ids = task.splits["train"].ids
    return Edit.selection({**{int(ids[row]): -1.0 for row in undo}, **{int(ids[row]): 1.0 for row in reinforce}})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_reinforced_sentences_lose_loss_and_undone_ones_gain_it(optimizer):
    task = task_of(passes=20, optimizer=optimizer, learning_rate=0.01 if optimizer == "sgd" else 0.003)
    ids, before = task.splits["train"].ids, parent_of(task)
    for rows, sign in (({"reinforce": [2, 5]}, -1), ({"undo": [2, 5]}, 1)):
        after = train(task, selection(task, **rows)).network.state_dict()
        change = loss_of(task, after, ids[[2, 5]]) - loss_of(task, before, ids[[2, 5]])
        assert sign * change > 0.1


def test_negative_weights_come_first_in_every_pass():
    weights = np.array([0, 1, -1, 0, 1, -0.5, 1], np.float32)
    passes = [_batches(weights, 3, number, 2) for number in range(1, 20)]
    for batches in passes:
        rows = np.concatenate(batches)
        assert sorted(rows[:2]) == [2, 5]
        assert sorted(rows[2:]) == [1, 4, 6]
        assert [len(batch) for batch in batches] == [2, 2, 1]
    assert len({tuple(np.concatenate(batches)) for batches in passes}) > 5, "every pass has an order of its own"


def test_an_update_of_one_sentence_is_a_step_along_its_gradient():
    task = task_of(dynamic_window=False)
    ids = task.splits["train"].ids
    start = parent_of(task)
    moves = []
    for rows in ({"undo": [4]}, {"reinforce": [4]}):
        after = train(task, selection(task, **rows)).network.state_dict()
        moves.append({name: after[name].numpy() - start[name].astype(np.float64) for name in after})
    for name in ("input.weight", "output.weight"):
        assert np.abs(moves[0][name]).max() > 1e-4
        np.testing.assert_allclose(moves[0][name], -moves[1][name], atol=1e-12)
    touched = np.flatnonzero(np.abs(moves[0]["input.weight"]).sum(1))
    row = int(np.flatnonzero(ids == ids[4])[0])
    sentence = task.corpus.sentences.tokens[task.corpus.sentences.offsets[row] : task.corpus.sentences.offsets[row + 1]]
    assert set(touched) == set(sentence.tolist())


def test_the_empty_edit_returns_the_parent():
    task = task_of(passes=3)
    trained, parent = train(task, Edit()), parent_of(task)
    assert trained.metrics == {"n_steps": 0.0, "train_loss": 0.0}
    for name, weight in trained.network.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), parent[name].astype(np.float64))


def test_same_arguments_give_the_same_bits_and_other_sentences_do_not_matter():
    task = task_of(passes=2)
    edit = selection(task, [1, 3], [6, 8])
    first = train(task, edit).network.state_dict()
    noisy = task.with_noise_in(task.splits["train"].ids[[0, 2, 9]])
    assert all(torch.equal(weight, first[name]) for name, weight in train(noisy, edit).network.state_dict().items())
    other = train(task, edit, seed=4).network.state_dict()
    assert not torch.equal(other["input.weight"], first["input.weight"])


def test_steps_are_counted_and_kept():
    task, kept = task_of(passes=3, batch_sentences=2), []
    trained = train(task, selection(task, [0], [1, 2, 3, 4]), keep_steps=(3, 9), keep=lambda step, _: kept.append(step))
    assert trained.metrics["n_steps"] == task.recipe.checkpoint_step(5, 3) == 9
    assert kept == [3, task.recipe.checkpoint_step(5, 3)]
    assert task.recipe.learning_rate_at(5, 9) == 0.01
    for call in (lambda: task.recipe.learning_rate_at(5, 10), lambda: task.recipe.checkpoint_step(5, 4)):
        with pytest.raises(ValueError, match="outside"):
            call()


def test_pair_options_are_taken_over_from_the_parent():
    parent = SkipGramTraining(window=9, negatives=3, loss="code", reduction="mean", epochs=7)
    found = Reinforce.of(parent, passes=4)
    assert (found.window, found.negatives, found.loss, found.reduction, found.passes) == (9, 3, "code", "mean", 4)
    assert found.pair_options() == parent.pair_options()


def test_a_step_too_far_is_a_divergence():
    task = task_of(passes=30, learning_rate=1e30)
    trained = train(task, selection(task, [0, 1], [2]))
    assert trained.diverged
    assert set(trained.metrics) == {"n_steps"}


def test_what_it_cannot_do_is_refused():
    task = task_of()
    with pytest.raises(ValueError, match="needs a parent"):
        task.recipe.train(task, Training(edit=selection(task, [0]), seed=1, numerics=DOUBLE))
    with pytest.raises(ValueError, match="not of mode mask"):
        train(task, Edit.removal(task.splits["train"].ids[:1]))
    with pytest.raises(ValueError, match="do not fit the network"):
        train(task, selection(task, [0]), parent={"input.weight": np.zeros((2, 2))})
