"""Dropout in Hessian-vector products and train gradients: masks are common to all queries and depend on no batching."""

import numpy as np
import pytest
import torch
from convex_tasks import curvature_of
from small_task import SmallBert, SmallTask, checkpoint, query_block
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.methods.cross_loss_influence import CrossLossInfluence
from influence.methods.influence_function import InfluenceFunction
from influence.scoring import Scorer
from influence.solvers import LiSSA
from tasks.seeds import seed_global

CHOSEN = dict.fromkeys(("classifier.weight", "classifier.bias", "bert.encoder.layer.1.output.dense.bias"))


@pytest.fixture
def task():
    return SmallTask(SmallBert(), n_train=11, dtype=torch.float64)  # with the dropout of BERT, 0.1


def curvature(task, **options):
    return curvature_of(task, CHOSEN, checkpoint(task), **options)


def vectors(found, n=4):
    return torch.randn(n, len(found.theta), generator=torch.Generator().manual_seed(2)).to(found.theta)


def by_double_backward(found, along, rows, key):
    """The Hessian of the mean loss in training mode, with masks drawn once, times each vector."""
    network = found.selection.network.train()
    values = [network.get_parameter(p.name).requires_grad_(True) for p in found.selection.pieces]
    seed_global(found.dropout, "dropout", *key, int(found.ids[rows[0]]))
    with sdpa_kernel(SDPBackend.MATH):
        loss = found.task.losses(network, found.task.batch("train", rows)).mean()
        gradients = torch.autograd.grad(loss, values, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])
        twice = [torch.autograd.grad(flat @ v, values, retain_graph=True) for v in along]
    network.eval().requires_grad_(False)
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in twice])


def test_products_are_those_of_one_drawn_network_for_all_vectors(task):
    whole, parts = (curvature(task, dropout=3, pass_size=size) for size in (1024, 1))
    along, rows, key = vectors(whole), np.array([4, 0, 9]), (0, 5)
    expected = by_double_backward(whole, along, rows, key)
    state = torch.get_rng_state()
    for found in (whole, parts):
        torch.testing.assert_close(found.products(along, rows, key), expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(torch.get_rng_state(), state)
    assert not whole.selection.network.training
    others = [whole.products(along, rows, (0, 6)), curvature(task).products(along, rows)]
    assert all(float((other - expected).abs().max()) > 1e-4 for other in others)


def test_train_derivatives_depend_on_the_example_and_on_no_batch(task):
    found = curvature(task, dropout=3)
    along, rows = vectors(found), np.array([8, 1, 5])
    whole = found.derivatives(rows, along)
    gradients = torch.stack([found.row_gradient(int(row)) for row in rows])
    torch.testing.assert_close(whole, along @ gradients.T, rtol=1e-8, atol=1e-10)
    assert torch.equal(found.derivatives(rows[::-1].copy(), along), whole.flip(1))
    assert float((whole - curvature(task).derivatives(rows, along)).abs().max()) > 1e-4


def test_scores_with_dropout_do_not_depend_on_shards_or_on_other_queries(task):
    solver = LiSSA(scale=50.0, damping=0.1, depth=3, batch_size=4, seed=1, check_residual=False)
    method = CrossLossInfluence(solver=solver, parameters=("classifier*",), dropout=True)
    queries, alone = query_block(task), query_block(task, rows=(0,))
    whole = Scorer(task, [checkpoint(task)], queries, {"m": method}, {}).score_range(0, 11)["m"]
    other = Scorer(task, [checkpoint(task)], alone, {"m": method}, {})
    parts = np.concatenate([other.score_range(0, 5)["m"], other.score_range(5, 11)["m"]], 1)
    np.testing.assert_allclose(parts[0], whole[1], rtol=1e-5)
    plain = Scorer(task, [checkpoint(task)], alone, {"m": method.model_copy(update={"dropout": False})}, {})
    assert np.abs(plain.score_range(0, 11)["m"] - parts).max() > 1e-6


def test_dropout_is_in_the_identity_only_if_it_is_on():
    assert "dropout" not in InfluenceFunction().identity()
    assert InfluenceFunction(dropout=True).identity() == {**InfluenceFunction().identity(), "dropout": True}
