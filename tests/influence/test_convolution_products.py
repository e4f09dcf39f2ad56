"""Hessian-vector products layer by layer against plain double backward and against the route of all other networks."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from influence.checkpoint import Checkpoint
from influence.curvature import Curvature
from influence.gradients import loaded
from influence.inverse_hessian import in_float64
from influence.methods.influence_function import InfluenceFunction
from influence.parameters import Selection
from influence.pooled_layers import pooled_layers
from influence.solvers import ConjugateGradients, Exact, LiSSA
from tasks.base import Split
from tasks.models.text_cnn import TextCNN
from tasks.text_task import TextTask

CONV = tuple(f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "linear") for kind in ("weight", "bias"))
SELECTIONS = {
    "all": dict.fromkeys(("embedding.weight", *CONV)),
    "conv_and_linear": dict.fromkeys(CONV),
    "linear": dict.fromkeys(("linear.weight", "linear.bias")),
    "some": dict.fromkeys(("conv2.weight", "conv3.bias")),
    "embedding": {"embedding.weight": None},
    "rows": {"embedding.weight": np.array([7, 2, 5, 11]), "conv1.bias": None, "conv2.weight": np.array([3, 1])},
}


@cache
def task(model=TextCNN, kind=TextTask):
    rng, splits = np.random.default_rng(3), {}
    for split, n in (("train", 23), ("test", 5)):
        texts = tuple(" ".join(f"w{k}" for k in rng.integers(0, 15, rng.integers(1, 25))) for _ in range(n))
        splits[split] = Split(rng.permutation(100)[:n], rng.integers(0, 3, n), ("a", "b", "c"), texts)
    made = kind(splits, {"test": np.arange(5)}, model(embedding_dim=6, filters=4, kernel=3), None, Path())
    made.prepare()
    return made


def weights(dead=False):
    """Random weights; the dead filter of conv3 is zero at all positions, so that all of them share its maximum."""
    rng, state = np.random.default_rng(0), {}
    for name, value in task().network(0).named_parameters():
        state[name] = rng.normal(0, 0.3, value.shape).astype(np.float32)
    if dead:
        state["conv3.bias"][1] = -100
    return Checkpoint("m", 1, 1.0, 1.0, state)


def curvature_of(chosen, double=True, dead=False, made=None, **sizes):
    made = made or task()
    network = made.network(0)
    made, network = (in_float64(made), network.double()) if double else (made, network)
    return Curvature(made, Selection(loaded(network, weights(dead)), chosen), **sizes)


def random_vectors(curvature, n=5):
    return torch.randn(n, len(curvature.theta), generator=torch.Generator().manual_seed(1)).to(curvature.theta)


def double_backward(curvature, vectors, rows):
    """The mean loss of `rows`, differentiated twice by torch.autograd.grad, in the whole parameters and cut to the selection."""
    made, network = curvature.task, curvature.selection.network
    values = {p.name: network.get_parameter(p.name).requires_grad_(True) for p in curvature.selection.pieces}
    try:
        loss = made.losses(network, made.batch("train", rows)).mean()
        gradients = torch.autograd.grad(loss, list(values.values()), create_graph=True)
        flat = curvature.selection.flatten(dict(zip(values, gradients, strict=True)))
        found = []
        for vector in vectors:
            twice = torch.autograd.grad(flat @ vector, list(values.values()), retain_graph=True, materialize_grads=True)
            found.append(curvature.selection.flatten(dict(zip(values, twice, strict=True))))
    finally:
        network.requires_grad_(False)
    return torch.stack(found)


def difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("chosen", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_products_equal_double_backward(chosen, dead):
    for double, tolerance in ((True, 1e-10), (False, 1e-5)):
        curvature, rows = curvature_of(chosen, double, dead), np.array([4, 0, 17, 9, 22, 8, 1])
        assert curvature.layers
        vectors = random_vectors(curvature)
        found = curvature.products(vectors, rows)
        assert difference(found, double_backward(curvature, vectors, rows)) < tolerance
        curvature.layers = ()
        if chosen not in (
            SELECTIONS["some"],
            SELECTIONS["rows"],
        ):  # torch has no forward mode of a kernel without its bias
            assert difference(found, curvature.products(vectors, rows)) < tolerance


def test_products_depend_on_neither_the_batch_size_nor_the_pass_size():
    whole, parts = (curvature_of(SELECTIONS["all"], batch_size=n, pass_size=p) for n, p in ((64, 4096), (5, 10)))
    vectors = random_vectors(whole)
    assert difference(parts.products(vectors), whole.products(vectors)) < 1e-12
    assert torch.equal(whole.products(vectors), whole.products(vectors))
    assert whole.products(vectors[:0]).shape == (0, len(whole.theta))
    assert (whole.n_batch_products, parts.n_batch_products) == (15, 25)


@pytest.mark.parametrize("chosen", ["all", "embedding"])
def test_rows_of_the_embedding_that_a_batch_does_not_touch_change_no_bit_of_forward_over_reverse_products(chosen):
    curvature, rows = curvature_of(SELECTIONS[chosen], double=False, batch_size=3), np.array([4, 0, 17, 9])
    curvature.layers, vectors, sizes = (), random_vectors(curvature), []
    twice = curvature._twice
    curvature._twice = lambda function, along, *rest: sizes.append(along.shape[1]) or twice(function, along, *rest)
    found = curvature.products(vectors, rows)
    assert max(sizes) < len(curvature.theta)
    curvature.words = None
    assert torch.equal(found, curvature.products(vectors, rows))


def test_cg_and_lissa_are_within_one_percent_of_the_exact_solution():
    curvature = curvature_of(SELECTIONS["conv_and_linear"])
    vectors = random_vectors(curvature)
    largest = torch.linalg.eigvalsh(curvature.dense()).abs().max()
    damping = 1.5 * float(largest)
    exact = Exact(damping=damping).solve(curvature, vectors).x
    cg = ConjugateGradients(damping=damping).solve(curvature, vectors)
    scale = 2 * float(largest)
    lissa = LiSSA(damping=0.75, scale=scale, depth=40, batch_size=23).solve(curvature, vectors)
    for solution in (cg, lissa):
        assert not solution.diverged.any()
        assert float(((solution.x - exact).norm(dim=1) / exact.norm(dim=1)).max()) < 0.01


class Counting(TextTask):
    """Counts the batches that are built."""

    batches = 0

    def batch(self, *arguments, **options):
        type(self).batches += 1
        return super().batch(*arguments, **options)


class CountingNetworks(Counting):
    """Counts the evaluations of the network too; its own `logits` exclude it from products layer by layer."""

    evaluations = 0

    def logits(self, network, batch):
        type(self).evaluations += 1
        return super().logits(network, batch)


@pytest.mark.parametrize("kind", [Counting, CountingNetworks])
def test_a_batch_is_built_and_its_network_evaluated_once_however_many_queries(kind):
    counts = []
    for n in (1, 16):
        curvature = curvature_of(SELECTIONS["conv_and_linear"], double=False, made=task(kind=kind))
        assert bool(curvature.layers) == (kind is Counting)
        kind.batches = kind.evaluations = 0
        LiSSA(depth=7, batch_size=8).solve(curvature, random_vectors(curvature, n))
        counts.append((kind.batches, kind.evaluations, curvature.n_batch_products / n))
    evaluations = 0 if kind is Counting else 8
    assert counts == [(8, evaluations, 8)] * 2  # 7 steps, and the residual on the whole train set


def test_the_rule_leaves_out_other_losses_and_subclasses_with_another_network():
    class OtherLoss(TextTask):
        def losses(self, network, batch):
            return 2 * super().losses(network, batch)

    class OtherForward(TextCNN):
        def forward(self, network, batch):
            return super().forward(network, batch) * 2

    class OtherName(TextCNN):
        name = "my_cnn"

    assert pooled_layers(task()) == pooled_layers(task(OtherName)) == ("embedding", "conv1", "conv2", "conv3", "linear")
    assert pooled_layers(task(kind=OtherLoss)) == pooled_layers(task(OtherForward)) == ()
    assert InfluenceFunction().identity_on(task()) == {"products": "by_layer"}
    assert InfluenceFunction().identity_on(task(OtherForward)) == {}
    curvature = curvature_of(SELECTIONS["linear"], made=task(OtherForward))
    vectors, rows = random_vectors(curvature), np.arange(6)
    assert difference(curvature.products(vectors, rows), double_backward(curvature, vectors, rows)) < 1e-10
