"""Gradient cosines against dense autograd gradients, and the norms of per-example gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from large_bert import LargeBert
from pydantic import ValidationError
from small_task import SmallCNN, SmallTask, autograd_gradients, autograd_scores, checkpoint, query_block

from influence.checkpoint import QueryBlock
from influence.gradients import GradientSource
from influence.layers import Layers
from influence.methods.gradient_cosine import GradientCosine
from influence.methods.tracin import TracIn
from influence.products import ElementGradients, PositionGradients, TokenGradients, cosines
from influence.scoring import Scorer


def score(task, method, checkpoints, queries=None):
    queries = queries or query_block(task)
    return Scorer(task, checkpoints, queries, {"m": method}, {"m": None}).score_range(0, len(task.splits["train"]))["m"]


def autograd_cosines(task, point, queries, names=None):
    """Cosines of the dense gradients over the parameters `names`, by default all that the network has."""
    names = names or [name for name, _ in task.network(0).named_parameters()]
    labels = task.splits["train"].labels
    sides = [(queries.split, queries.rows, queries.labels), ("train", range(len(labels)), labels)]
    ours, theirs = (
        torch.stack([torch.cat([g[n].flatten() for n in names]) for g in autograd_gradients(task, point, *side)])
        for side in sides
    )
    return torch.nn.functional.cosine_similarity(ours[:, None].double(), theirs[None].double(), dim=2, eps=0).numpy()


@pytest.fixture(params=[SmallCNN, LargeBert], ids=["cnn", "bert"])
def model(request):
    return request.param()


def train_block(task, rows):
    split = task.splits["train"]
    return QueryBlock("train", split.ids[rows], rows, split.labels[rows])


def test_the_cosine_is_over_all_parameters_by_default(model):
    task = SmallTask(model, dtype=torch.float64)
    point = checkpoint(task)
    expected = autograd_cosines(task, point, query_block(task))
    np.testing.assert_allclose(score(task, GradientCosine(), [point]), expected, atol=1e-6)


def test_single_precision_is_close_to_autograd(model):
    task = SmallTask(model)
    point = checkpoint(task)
    expected = autograd_cosines(task, point, query_block(task))
    np.testing.assert_allclose(score(task, GradientCosine(), [point]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"bias": False}, lambda name: not name.endswith("bias")),
        ({"layers": "last"}, lambda name: name.startswith("classifier")),
        ({"layers": ["*LayerNorm"]}, lambda name: "LayerNorm" in name),
        ({"layers": "first"}, lambda name: "word_embeddings" in name),
    ],
    ids=["weights", "last", "a pattern", "first"],
)
def test_chosen_layers_are_one_vector(options, fits):
    task = SmallTask(LargeBert(), dtype=torch.float64)
    point = checkpoint(task)
    names = [name for name, _ in task.network(0).named_parameters() if fits(name)]
    expected = autograd_cosines(task, point, query_block(task), names)
    np.testing.assert_allclose(score(task, GradientCosine(**options), [point]), expected, atol=1e-6)


def test_an_example_has_cosine_one_with_itself_and_none_beyond(model):
    task = SmallTask(model)
    found = score(task, GradientCosine(), [checkpoint(task)], train_block(task, np.arange(30)))
    np.testing.assert_allclose(np.diag(found), 1.0, atol=2e-6)
    assert np.abs(found).max() <= 1.0
    np.testing.assert_allclose(found, found.T, atol=2e-6)


def test_it_is_tracin_over_the_product_of_norms(model):
    task = SmallTask(model, dtype=torch.float64)
    point, queries = checkpoint(task), train_block(task, np.arange(30))
    names = [name for name, _ in task.network(0).named_parameters()]
    norms = np.sqrt(np.diag(autograd_scores(task, point, queries, names)))
    expected = score(task, TracIn(bias=True, checkpoints="last"), [point], queries) / np.outer(norms, norms)
    np.testing.assert_allclose(score(task, GradientCosine(), [point], queries), expected, atol=1e-5)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_on_the_last_layers_weights_it_is_the_cosine_of_logit_gradients_times_that_of_activations():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    point = checkpoint(task)
    labels = task.splits["train"].labels
    last = GradientSource(task, task.network(0), [point], frozenset({"last"})).shard("train", np.arange(30), labels)
    hidden = last.checkpoints[0].last
    logit_gradients, activations = hidden.logit_gradients.numpy(), hidden.activations.numpy()
    expected = (unit(logit_gradients) @ unit(logit_gradients).T) * (unit(activations) @ unit(activations).T)
    found = score(task, GradientCosine(layers="last", bias=False), [point], train_block(task, np.arange(30)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_checkpoints_are_averaged_whatever_their_learning_rates():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    points = [
        checkpoint(task, seed, step=step, weight=weight, spec_id=spec)
        for seed, step, weight, spec in ((1, 1, 0.3, "x"), (2, 5, 0.0, "x"), (3, 4, 7.0, "y"))
    ]
    alone = [score(task, GradientCosine(), [point]) for point in points]
    np.testing.assert_allclose(score(task, GradientCosine(), points), (alone[1] + alone[2]) / 2, atol=1e-6)
    np.testing.assert_allclose(score(task, GradientCosine(checkpoints="all"), points), np.mean(alone, 0), atol=1e-6)


def test_learning_rate_weights_are_refused():
    with pytest.raises(ValidationError, match="learning_rate_weights"):
        GradientCosine(learning_rate_weights=True)  # pyright: ignore[reportArgumentType]


def test_a_zero_gradient_has_cosine_zero():
    found = cosines(np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([0.0, 4.0]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(found, [[0, 0], [0, 1]])


def test_a_model_that_is_certain_gives_zeros_not_nans():
    task = SmallTask(SmallCNN())
    point = checkpoint(task)
    sure = {**point.state, "linear.bias": np.array([500.0, 0.0, 0.0], np.float32)}
    found = score(task, GradientCosine(), [replace(point, state=sure)])
    certain = task.splits["train"].labels == 0
    assert certain.any()
    np.testing.assert_array_equal(found[:, certain], 0.0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("bias", [False, True])
def test_squared_norms_equal_the_diagonal_of_products(model, bias):
    task = SmallTask(model, dtype=torch.float64)
    names = frozenset(Layers.of(task, task.network(0)).choose("all"))
    rows = np.arange(30)
    source = GradientSource(task, task.network(0), [checkpoint(task)], frozenset({"layers"}), names)
    shard = source.shard("train", rows, task.splits["train"].labels)
    kinds = set()
    for name, gradients in shard.checkpoints[0].layers.items():
        kinds.add(type(gradients))
        squares = gradients.squared_norm(bias)
        assert squares.dtype == np.float64
        np.testing.assert_allclose(
            squares, np.diag(gradients.dot(gradients, bias)), rtol=1e-9, atol=1e-20, err_msg=name
        )
    assert kinds == {TokenGradients, PositionGradients} | ({ElementGradients} if model.name == "small_bert" else set())


@pytest.mark.parametrize(("length", "width"), [(2, 16), (16, 2)], ids=["by position", "by weight"])
@pytest.mark.parametrize("chunk", [1, 700, 1 << 22])
def test_squared_norms_of_factors_in_pieces(monkeypatch, length, width, chunk):
    monkeypatch.setattr("influence.products.CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    inputs, deltas = (torch.randn(5, length, d, generator=generator) for d in (width, width + 1))
    found = PositionGradients(inputs, deltas, True).squared_norm(bias=True)
    dense = torch.einsum("nto,nti->noi", deltas, inputs)
    np.testing.assert_allclose(found, dense.square().sum((1, 2)) + deltas.sum(1).square().sum(1), rtol=1e-5)


def test_norms_of_no_examples_are_empty():
    nothing = PositionGradients(torch.zeros(0, 3, 2), torch.zeros(0, 3, 4), True)
    assert nothing.squared_norm(True).shape == (0,)
    no_tokens = TokenGradients(
        2, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    )
    np.testing.assert_array_equal(no_tokens.squared_norm(), [0, 0])
