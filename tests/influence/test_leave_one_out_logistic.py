"""Influence on an L2-regularised logistic regression over the frozen features of a transformer, against its refits.

The classifier is trained to the minimum of its convex objective and the layers below it stay as they are, so the loss
after a removal, or after a small change of one weight, is known to the precision of float64.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from convex_tasks import Logistic, point, queries_of
from small_task import SmallBert, SmallTask

from influence.methods.influence_function import InfluenceFunction
from influence.scoring import Scorer
from influence.solvers import ConjugateGradients, Exact, LiSSA

N_TRAIN, N_REMOVED = 250, 200


class FrozenFeatures(Logistic):
    """Logistic regression on the pooled output of a small BERT with random weights, and a one for the bias."""

    penalty_weight = 0.02

    def __init__(self):
        super().__init__(n_inputs=13, n_train=N_TRAIN)
        texts = SmallTask(SmallBert(), n_train=N_TRAIN, n_test=len(self.splits["test"]), dtype=torch.float64)
        network = texts.network(0).eval()
        with torch.no_grad():
            for values in network.bert.parameters():
                values.mul_(15)  # with the small initial weights, the features of all texts would be nearly equal
            for split, given in self.splits.items():
                batch = texts.batch(split, np.arange(len(given)))
                pooled = network.bert(batch["input_ids"], batch["attention_mask"].long()).pooler_output.numpy()
                self.splits[split] = replace(given, features=np.column_stack([pooled, np.ones(len(given))]))


@pytest.fixture(scope="module")
def case():
    """Return the task and the weights that minimise its objective over all train examples."""
    task = FrozenFeatures()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when forward mode is first used
        return task, task.fitted()


def scores(case, solver):
    task, weights = case
    method = InfluenceFunction(solver=solver)
    scorer = Scorer(task, [point(task, weights)], queries_of(task), {"m": method}, {"m": None})
    return scorer.score_range(0, N_TRAIN)["m"]


@pytest.fixture(scope="module")
def exact(case):
    return scores(case, Exact())


def losses_at(case, row, weight):
    """Return the query losses after a refit with `weight` in place of 1 for one train example: [q]."""
    task, start = case
    weights = np.ones(N_TRAIN)
    weights[row] = weight
    network, queries = task.network(0), queries_of(task)
    network.load_state_dict({"weight": task.fitted(weights, start)})
    return task.losses(network, task.batch("test", queries.rows)).detach().numpy()


def test_scores_predict_the_loss_after_each_of_200_removals(case, exact):
    before = losses_at(case, 0, 1.0)
    change = np.stack([losses_at(case, row, 0.0) - before for row in range(N_REMOVED)], 1)
    for predicted, measured in zip(exact[:, :N_REMOVED], change, strict=True):
        assert np.corrcoef(predicted, measured)[0, 1] >= 0.99
        assert 0.9 < np.polyfit(measured, predicted, 1)[0] < 1.1


def test_scores_are_the_derivative_of_the_query_loss_in_the_weight_of_an_example(case, exact):
    step = 1e-3
    for row in (0, 71, 249):
        slope = (losses_at(case, row, 1 + step) - losses_at(case, row, 1 - step)) / (2 * step)
        np.testing.assert_allclose(exact[:, row], -slope, rtol=1e-3)


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradients(damping=0.1), LiSSA(damping=0.025, scale=4.0, depth=200, batch_size=N_TRAIN)],
    ids=lambda solver: solver.name,
)
def test_cg_and_lissa_are_within_one_percent_of_the_exact_solver(case, solver):
    found, expected = scores(case, solver), scores(case, Exact(damping=0.1))
    assert (np.linalg.norm(found - expected, axis=1) <= 0.01 * np.linalg.norm(expected, axis=1)).all()
