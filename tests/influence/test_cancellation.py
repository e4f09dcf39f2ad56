"""The diagnostic `cancellation` against dense float64 gradients of autograd, one example at a time."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_task import SmallBert, SmallCNN, SmallTask, autograd_gradients, checkpoint, query_block

from influence.checkpoint import Checkpoint
from influence.diagnostic import ScoredModels
from influence.diagnostics.cancellation import Cancellation
from tasks.errors import InputError

N_TRAIN, N_TEST = 30, 9


def points(task, rates=(0.3, 0.2, 0.1), spec_id="m0", seed=0):
    """Three checkpoints of one model at steps 0, 4 and 10, with noise also in parameters that start from zero."""
    noise = np.random.default_rng(seed)
    states = [
        {
            name: value + 0.01 * noise.standard_normal(value.shape).astype(value.dtype)
            for name, value in checkpoint(task, seed + i).state.items()
        }
        for i in range(len(rates))
    ]
    return [
        Checkpoint(spec_id, step, rate, rate, state)
        for step, rate, state in zip((0, 4, 10), rates, states, strict=True)
    ]


def diagnosed(task, checkpoints, **options):
    found = Cancellation(**options).compute(ScoredModels(task, checkpoints, query_block(task)))
    return {name: rows(table) for name, table in found.items()}


def rows(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def row(found, layer, part, **more):
    [one] = [r for r in found if (r["layer"], r["part"]) == (layer, part) and more.items() <= r.items()]
    return one


def every_gradient(task, state, split="train"):
    """The gradient of every example by parameter, one backward pass each."""
    labels = task.splits[split].labels
    return autograd_gradients(task, state, split, range(len(labels)), labels)


def dense(gradients, names):
    """[n, P] float64 gradients of the parameters called `names`."""
    return torch.stack([torch.cat([g[name].flatten() for name in names]) for g in gradients]).double().numpy()


def mean_cosine(gradients):
    norms = np.linalg.norm(gradients, axis=1)
    units = gradients / np.where(norms == 0, 1, norms)[:, None]
    products = units @ units.T
    return float(products[~np.eye(len(units), dtype=bool)].mean())


CASES = {
    "small_cnn": (SmallCNN(), "conv1", ["conv1"], "embedding"),
    "small_bert": (
        SmallBert(),
        "bert.encoder.layer.1",
        [
            *(f"bert.encoder.layer.1.attention.self.{name}" for name in ("query", "key", "value")),
            "bert.encoder.layer.1.attention.output.dense",
            "bert.encoder.layer.1.attention.output.LayerNorm",
            "bert.encoder.layer.1.intermediate.dense",
            "bert.encoder.layer.1.output.dense",
            "bert.encoder.layer.1.output.LayerNorm",
        ],
        "bert.embeddings.word_embeddings",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_definition_on_dense_gradients(case):
    model, layer, modules, embedding = CASES[case]
    task = SmallTask(model, dtype=torch.float64)
    checkpoints, rates = points(task), (0.3, 0.2)
    found = diagnosed(task, checkpoints, batch_size=7)
    every = [name for name, _ in task.network(0).named_parameters()]
    names = {
        (layer, "weight"): [f"{module}.weight" for module in modules],
        (layer, "bias"): [f"{module}.bias" for module in modules],
        (embedding, "weight"): [f"{embedding}.weight"],
        ("all", "weight"): [name for name in every if name.endswith("weight")],
        ("all", "bias"): [name for name in every if name.endswith("bias")],
        ("all_but_embedding", "weight"): [n for n in every if n.endswith("weight") and not n.startswith(embedding)],
    }
    by_parameter = [every_gradient(task, one) for one in checkpoints]
    for (layer, part), parameters in names.items():
        gradients = [dense(one, parameters) for one in by_parameter]
        norms = [np.linalg.norm(g, axis=1) for g in gradients]
        flat = [np.concatenate([one.state[name].ravel() for name in parameters]) for one in checkpoints]
        delta = sum(float(np.linalg.norm(b - a)) for a, b in pairwise(flat))
        g = sum(rate * size.sum() for rate, size in zip(rates, norms, strict=False))
        path = sum(rate * n * size.mean() for rate, n, size in zip(rates, (4, 6), norms, strict=False))
        one = row(found[""], layer, part)
        assert one["n_parameters"] == flat[0].size
        assert one["cancellation"] == pytest.approx(g / delta, rel=1e-10)
        assert one["per_update"] == pytest.approx(path / delta, rel=1e-10)
        assert one["delta"] == pytest.approx(delta, rel=1e-12)
        assert one["g"] == pytest.approx(g, rel=1e-10)
        assert one["gradient_norms"] == pytest.approx(norms[0].sum() + norms[1].sum(), rel=1e-10)
        assert one["se"] == 0, "every row is in the sample"
        cosines = [mean_cosine(g) for g in gradients]
        assert one["cosine"] == pytest.approx(np.mean(cosines), rel=1e-9, abs=1e-12)
        last = row(found["checkpoints"], layer, part, step=10)
        assert (last["delta"], last["n_updates"]) == (None, 0)
        assert last["cosine"] == pytest.approx(cosines[2], rel=1e-9, abs=1e-12)
        assert last["g"] == pytest.approx(0.1 * norms[2].sum(), rel=1e-10)


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
def test_the_batch_size_changes_nothing_beyond_rounding(model):
    task = SmallTask(model)
    checkpoints = points(task)
    whole = diagnosed(task, checkpoints, batch_size=64)
    for size in (1, 7):
        for name, table in diagnosed(task, checkpoints, batch_size=size).items():
            for one, other in zip(table, whole[name], strict=True):
                assert (one["layer"], one["part"]) == (other["layer"], other["part"])
                assert [column for column in one if one[column] is None] == [c for c in other if other[c] is None]
                for column in [column for column in one if isinstance(one[column], float)]:
                    assert one[column] == pytest.approx(other[column], rel=2e-5, abs=1e-6), column


def test_the_cosine_of_another_split_is_that_of_its_examples():
    task = SmallTask(SmallCNN(), dtype=torch.float64)
    checkpoints = points(task)
    found, other = diagnosed(task, checkpoints, cosine_split="test"), diagnosed(task, checkpoints)
    expected = np.mean(
        [mean_cosine(dense(every_gradient(task, one, "test"), ["linear.weight"])) for one in checkpoints]
    )
    ours, theirs = (row(table[""], "linear", "weight") for table in (found, other))
    assert ours["cosine"] == pytest.approx(expected, rel=1e-9)
    assert ours["cosine"] != pytest.approx(theirs["cosine"], rel=1e-3)
    assert ours["cancellation"] == theirs["cancellation"]


def test_a_sample_of_rows_estimates_the_sum_within_its_standard_error():
    task = SmallTask(SmallCNN(), n_train=200)
    checkpoints = points(task)
    exact = row(diagnosed(task, checkpoints, rows="all")[""], "conv1", "weight")
    estimates = [row(diagnosed(task, checkpoints, rows=50, seed=s)[""], "conv1", "weight") for s in range(16)]
    errors = np.array([one["cancellation"] - exact["cancellation"] for one in estimates])
    errors /= np.mean([one["se"] for one in estimates])
    assert 0.6 < errors.std() < 1.5
    assert abs(errors.mean()) < 0.8
    again = row(diagnosed(task, checkpoints, rows=50, seed=0)[""], "conv1", "weight")
    assert again == estimates[0]


def test_each_scoring_model_has_rows_of_its_own_and_the_order_of_others_changes_none():
    task = SmallTask(SmallCNN())
    one, two = points(task), points(task, spec_id="m1", seed=5)
    both, alone = diagnosed(task, [*one, *two]), diagnosed(task, two)
    of_second = [{**r, "model": 0} for r in both[""] if r["model"] == 1]
    assert of_second == alone[""]
    assert {r["model"] for r in both["checkpoints"]} == {0, 1}


def test_weights_that_did_not_move_have_no_ratio():
    task = SmallTask(SmallCNN())
    first = points(task)[0]
    still = Checkpoint("m0", 4, 0.1, 0.1, first.state)
    one = row(diagnosed(task, [first, still])[""], "linear", "weight")
    assert (one["cancellation"], one["delta"], one["per_update"], one["se"]) == (None, 0, None, None)
    assert math.isfinite(one["cosine"])
    assert one["g"] > 0


def test_frozen_layers_are_left_out():
    class Frozen(SmallTask):
        def network(self, seed):
            network = super().network(seed)
            network["conv1"].requires_grad_(False)
            return network

    task = Frozen(SmallCNN())
    found = diagnosed(task, points(task))[""]
    assert "conv1" not in {r["layer"] for r in found}
    n = sum(p.numel() for name, p in task.network(0).named_parameters() if not name.startswith("conv1"))
    assert sum(row(found, "all", part)["n_parameters"] for part in ("weight", "bias")) == n


def test_gradient_steps_of_one_example_cancel_nothing():
    """Closed form: one update of SGD on one example moves the weights by eta |g|, so C(W) = 1 = per_update."""
    task = SmallTask(SmallCNN(), n_train=1, dtype=torch.float64)
    state, rate = checkpoint(task), 0.25
    [gradient] = autograd_gradients(task, state, "train", [0], task.splits["train"].labels)
    moved = {name: value - rate * gradient[name].numpy() for name, value in state.state.items()}
    start = Checkpoint("m0", 0, rate, rate, state.state)
    for one in diagnosed(task, [start, Checkpoint("m0", 1, rate, rate, moved)])[""]:
        assert one["cancellation"] == pytest.approx(1, rel=1e-9)
        assert one["per_update"] == pytest.approx(1, rel=1e-9)
        assert one["cosine"] is None, "there is no pair"


def test_it_refuses_what_it_cannot_measure():
    task = SmallTask(SmallCNN())
    with pytest.raises(InputError, match=r"c: diagnose.0: .*scores.checkpoints keeps one"):
        Cancellation().check(task, Path(), {}, 1, "c: diagnose.0")
    with pytest.raises(
        InputError,
        match=r"c: diagnose.0.cosine_split: 'tset' is neither train nor a measured split.*did you mean 'test'",
    ):
        Cancellation(cosine_split="tset").check(task, Path(), {}, 2, "c: diagnose.0")
    Cancellation(cosine_split="test").check(task, Path(), {}, 2, "c: diagnose.0")
