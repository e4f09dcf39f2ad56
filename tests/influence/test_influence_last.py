"""influence_last against influence_function, whose exact solver forms the Hessian by automatic differentiation."""

import re

import numpy as np
import pytest
import torch
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint, query_block

from influence.last_layer import softmax_hessian
from influence.methods.influence_function import InfluenceFunction
from influence.methods.influence_last import InfluenceLast
from influence.methods.representer import Representer
from influence.scoring import Scorer
from influence.solvers import Exact
from tasks.base import Split
from tasks.errors import InputError

N_TRAIN = 30


class Penalised(SmallTask):
    """A task with a penalty that couples the last layer's weights with one another."""

    def penalty(self, network):
        weight = dict(network.named_parameters())[self.model.last_module(network) + ".weight"]
        return 0.05 * weight.square().sum() + 0.01 * weight.sum() ** 4


def score(task, method, points, queries=None, start=0, stop=N_TRAIN):
    queries = queries or query_block(task)
    return Scorer(task, points, queries, {"m": method}, {"m": None}).score_range(start, stop)["m"]


def assert_close(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def reference(task, bias=True, **solver):
    names = [f"{task.model.last_module(None)}.{kind}" for kind in ("weight", "bias")[: 1 + bias]]
    return InfluenceFunction(parameters=tuple(names), solver=Exact(**solver))


CASES = [
    (SmallTask, SmallCNN, 0.0, True),
    (SmallTask, SmallCNN, 0.01, False),
    (SmallTask, SmallBert, 0.01, True),
    (Penalised, SmallCNN, 0.1, True),
    (Penalised, SmallCNN, 0.1, False),
]


@pytest.mark.parametrize(("kind", "model", "damping", "bias"), CASES)
def test_it_equals_the_exact_influence_function_in_float64(kind, model, damping, bias):
    task = kind(model(), dtype=torch.float64)
    points = [checkpoint(task, seed, step=seed, spec_id=f"m{seed}") for seed in (1, 2)]
    found = score(task, InfluenceLast(solver=Exact(damping=damping), bias=bias), points)
    assert_close(found, score(task, reference(task, bias, damping=damping), points), 1e-6)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_it_equals_the_exact_influence_function_on_a_float32_network(damping):
    task = SmallTask(SmallCNN())
    found = score(task, InfluenceLast(solver=Exact(damping=damping)), [checkpoint(task)])
    assert_close(found, score(task, reference(task, damping=damping), [checkpoint(task)]), 1e-4)


def test_the_hessian_is_that_of_the_mean_loss_in_the_weights_of_the_last_layer():
    rng = torch.Generator().manual_seed(0)
    inputs, weights = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((20, 4), (3, 4)))
    labels = torch.arange(20) % 3

    def loss(flat):
        return torch.nn.functional.cross_entropy(inputs @ flat.view(3, 4).T, labels)

    expected = torch.autograd.functional.hessian(loss, weights.flatten())
    torch.testing.assert_close(softmax_hessian(inputs, (inputs @ weights.T).softmax(1)), expected)


def test_it_is_the_mean_over_scoring_models_at_the_last_checkpoint_of_each_in_any_order():
    task = SmallTask(SmallCNN())
    points = [
        checkpoint(task, seed, step=step, weight=0.0, spec_id=spec)
        for seed, step, spec in ((1, 1, "x"), (2, 5, "x"), (3, 4, "y"))
    ]
    alone = [score(task, InfluenceLast(), [point]) for point in points]
    for order in ([0, 1, 2], [2, 1, 0]):
        assert_close(score(task, InfluenceLast(), [points[i] for i in order]), (alone[1] + alone[2]) / 2, 1e-5)


class Counting(SmallTask):
    """Notes the train rows of every batch that it makes."""

    def batch(self, split, rows, **options):
        if split == "train":
            self.__dict__.setdefault("read", []).extend(rows)
        return super().batch(split, rows, **options)


@pytest.mark.parametrize("method", [InfluenceLast(), Representer()], ids=lambda method: method.name)
def test_the_network_sees_every_train_row_once_per_scoring_model_however_many_ranges_are_scored(method):
    task = Counting(SmallCNN())
    points = [checkpoint(task, seed, step=seed, spec_id=f"m{seed}") for seed in (1, 2)]
    scorer = Scorer(task, points, query_block(task), {"m": method}, {"m": None})
    parts = [scorer.score_range(start, start + 6)["m"] for start in range(0, N_TRAIN, 6)]
    assert sorted(task.read) == sorted([*range(N_TRAIN)] * 2)
    np.testing.assert_array_equal(np.concatenate(parts, 1), scorer.score_range(0, N_TRAIN)["m"])


@pytest.mark.parametrize("method", [InfluenceLast(), Representer()], ids=lambda method: method.name)
def test_rows_in_another_order_get_the_same_scores(method):
    task, moved = SmallTask(SmallCNN()), SmallTask(SmallCNN())
    order, split = np.random.default_rng(0).permutation(N_TRAIN), task.splits["train"]
    texts = tuple(split.texts[i] for i in order)
    moved.splits["train"] = Split(split.ids[order], split.labels[order], split.classes, texts)
    moved.tokens["train"] = [task.tokens["train"][i] for i in order]
    found = [score(one, method, [checkpoint(one)]) for one in (task, moved)]
    assert_close(found[1], found[0][:, order], 1e-6)


def test_without_damping_zero_eigenvalues_are_counted_and_queries_outside_the_range_refused():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    method = InfluenceLast(solver=Exact(damping=0))
    [model] = Scorer(task, [checkpoint(task)], query_block(task), {"m": method}, {}).diagnostics["m"]["models"]
    assert (model["n_parameters"], model["zero_eigenvalues"]) == (
        15,
        5,
    )  # a constant added to all logits: one per input
    few = SmallTask(SmallCNN(), n_train=3, dtype=torch.float64)
    with pytest.raises(InputError, match=r"method m: solver.damping: 0 has no solution"):
        Scorer(few, [checkpoint(few)], query_block(few), {"m": method}, {})


class Smoothed(SmallTask):
    """A task whose train loss is not -log p(label)."""

    def losses(self, network, batch):
        logits = self.logits(network, batch)
        return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none", label_smoothing=0.1)


@pytest.mark.parametrize("method", [InfluenceLast(), Representer()])
def test_a_frozen_last_layer_is_refused_before_anything_starts(method):
    task = SmallTask(SmallCNN())
    network = task.network(0)
    network.get_submodule(task.model.last_module(network)).requires_grad_(False)
    with pytest.raises(
        InputError, match=rf"{re.escape(WHERE)}: {method.name} is about .* frozen and no example changes"
    ):
        method.check_network(task, network, query_block(task), WHERE)


WHERE = "config.yaml: methods[0]"
REFUSED = [
    (InfluenceLast(), Smoothed, rf"{re.escape(WHERE)}: influence_last needs the train loss -log p\(label\)"),
    (Representer(), Smoothed, rf"{re.escape(WHERE)}: representer needs the train loss -log p\(label\)"),
    (
        InfluenceLast(solver=Exact(max_parameters=14)),
        SmallTask,
        rf"{re.escape(WHERE)}.solver.max_parameters: 14 is too small",
    ),
    (
        Representer(max_parameters=14),
        SmallTask,
        rf"{re.escape(WHERE)}.max_parameters: 14 is too small: the last layer has 15",
    ),
]


@pytest.mark.parametrize(("method", "kind", "message"), REFUSED)
def test_other_losses_and_large_layers_are_refused_before_anything_starts(method, kind, message):
    task = kind(SmallCNN())
    with pytest.raises(InputError, match=message):
        method.check_network(task, task.network(0), query_block(task), WHERE)
    method.model_copy(update={"bias": False}).check_network(SmallTask(SmallCNN()), task.network(0), None, WHERE)
