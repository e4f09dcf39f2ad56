"""Influence of sentences on properties of word vectors: closed forms, and the effect of up-weighting a sentence and training again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.inverse_hessian import solve_queries
from influence.methods.cross_loss_influence import CrossLossInfluence
from influence.parameters import Selection
from influence.scoring import row_contributions
from influence.solvers import Exact
from tasks.models.skip_gram import SkipGram
from tasks.recipes.skip_gram import SkipGramTraining
from tasks.task import Task
from tasks.weat_property import Weat
from tasks.word_vectors import WordVectorTask
from tests.word_fakes import parent_of, word_task

LISTS = {"x": ("w1", "w2"), "y": ("w3", "w4"), "a": ("w5", "w6"), "b": ("w7", "w8")}
PARAMETER = "input.weight"


def weat_task(loss="word2vec", l2=0.05, n_train=40) -> WordVectorTask:
    """Random sentences, one association test of eight words, an objective with an L2 penalty."""
    base = word_task(SkipGramTraining(window=3, negatives=4, loss=loss), model=SkipGram(dim=6, l2=l2), n_train=n_train)
    test = Weat(**LISTS, label="test", min_uses=1, min_words=2)
    resolved = test.resolve(base.corpus.vocabulary.count_of, Path(), "properties.0")
    return WordVectorTask(base.corpus, [resolved], [], base.model, base.recipe)


def network_of(task, scale=0.5, seed=0):
    """A float64 network far from its start: random vectors on both sides."""
    network = task.network(0).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network.requires_grad_(False).eval()


def words_of(task) -> np.ndarray:
    return task.influence_parameters("properties", np.array([0]))[PARAMETER]


class Generic(WordVectorTask):
    """The same task without its closed forms: influence differentiates its losses."""

    row_hessians = Task.row_hessians
    row_derivatives = Task.row_derivatives


def generic(task) -> WordVectorTask:
    return Generic(task.corpus, task.properties, [], task.model, task.recipe)


@pytest.mark.parametrize("loss", ["word2vec", "code", "paper"])
def test_closed_forms_equal_what_differentiating_the_losses_gives(loss):
    task = weat_task(loss)
    network, rows = network_of(task), words_of(task)
    selection = Selection(network, {PARAMETER: rows})
    closed, plain = Curvature(task, selection), Curvature(generic(task), selection)
    torch.testing.assert_close(closed.blocks()[0], plain.blocks()[0], rtol=1e-9, atol=1e-12)
    vectors = torch.randn(3, len(selection), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    train_rows = np.random.default_rng(0).permutation(len(task.splits["train"]))[:25]
    torch.testing.assert_close(
        closed.derivatives(train_rows, vectors), plain.derivatives(train_rows, vectors), rtol=1e-9, atol=1e-12
    )


def objective(task, network, rows, theta, weights):
    """(1/n) sum_i w_i l_i + penalty as a function of the chosen rows, all others held fixed."""
    selection = Selection(network, {PARAMETER: rows})
    batch = task.batch("train", np.arange(len(task.splits["train"])))
    losses = selection.evaluate(lambda other: task.losses(other, batch), theta)
    return (weights * losses).mean() + selection.evaluate(task.penalty, theta)


def optimised(task, network, rows, weights, tolerance=1e-9):
    """Newton's method to a gradient norm below `tolerance`."""
    theta = network.get_parameter(PARAMETER)[torch.from_numpy(rows)].flatten().clone()

    def function(at):
        return objective(task, network, rows, at, weights)

    for _ in range(50):
        gradient = torch.func.grad(function)(theta)
        if gradient.norm() < tolerance:
            return theta
        theta = theta - torch.linalg.solve(torch.func.hessian(function)(theta), gradient)
    raise AssertionError("Newton did not converge")


def placed(network, rows, theta):
    network.get_parameter(PARAMETER).data[torch.from_numpy(rows)] = theta.view(len(rows), -1)
    return network


def test_influence_on_a_weat_is_the_effect_of_upweighting_the_sentence_and_training_again():
    task = weat_task()
    rows, n = words_of(task), len(task.splits["train"])
    ones = torch.ones(n, dtype=torch.float64)
    network = network_of(task)
    placed(network, rows, optimised(task, network, rows, ones))
    scores = scores_of(task, network)[0]
    effect = {}
    for row in np.argsort(-np.abs(scores))[:6]:
        step = 1e-3
        values = []
        for sign in (1, -1):
            weights = ones.clone()
            weights[row] += sign * step
            moved = placed(network_of(task), rows, optimised(task, network, rows, weights))
            values.append(-task.query_losses(moved, "properties", np.array([0]), np.zeros(1))[0].item())
        effect[row] = (values[0] - values[1]) / (
            2 * step
        )  # d WEAT / d weight: removing the sentence lowers it by as much
    assert scores[list(effect)] == pytest.approx(list(effect.values()), rel=1e-3)
    assert min(map(abs, effect.values())) > 1e-4, "the effects must be there to be compared"


def checkpoint_of(network) -> Checkpoint:
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return Checkpoint("model", 1, 1.0, 1.0, state)


def scores_of(task, network) -> np.ndarray:
    """Exact influence with damping 0 in float64, [n_queries, n_train]."""
    task = in_float64(task)
    ids = task.splits["properties"].ids
    queries = QueryBlock("properties", ids, np.arange(len(ids)), np.zeros(len(ids), np.int64))
    method = CrossLossInfluence(solver=Exact(damping=0.0))
    solved = solve_queries(method.solve_options(), task, [(checkpoint_of(network), 1.0)], queries)
    return solved.scores(np.arange(len(task.splits["train"]))).astype(np.float64)


def in_float64(task) -> WordVectorTask:
    class Double(type(task)):
        def network(self, seed):
            return super().network(seed).double()

    return Double(task.corpus, task.properties, [], task.model, task.recipe)


def test_sentences_without_a_word_of_the_test_have_no_influence():
    task = weat_task()
    scores, touching = scores_of(task, network_of(task))[0], task.rows_touching(PARAMETER, words_of(task))
    assert 0 < len(touching) < len(scores)
    assert not np.delete(scores, touching).any()


def test_the_words_of_a_sentence_share_its_influence_out():
    task = weat_task()
    parent, ids = parent_of(task), task.splits["train"].ids
    queries = QueryBlock("properties", np.array([0]), np.array([0]), np.zeros(1, np.int64))
    method = CrossLossInfluence(solver=Exact(damping=1e-3))
    checkpoint = Checkpoint("model", 1, 1.0, 1.0, parent)
    whole = solve_queries(method.solve_options(), task, [(checkpoint, 1.0)], queries).scores(np.arange(len(ids)))[0]
    chosen = [int(ids[row]) for row in np.argsort(-np.abs(whole))[:4]]
    parts = row_contributions(task, method, [checkpoint], queries, [(0, train_id) for train_id in chosen])
    for train_id in chosen:
        by_word = parts[0, train_id]
        assert {row for row, _ in by_word} <= set(words_of(task).tolist())
        assert sum(part for _, part in by_word) == pytest.approx(whole[np.flatnonzero(ids == train_id)[0]], rel=1e-4)
