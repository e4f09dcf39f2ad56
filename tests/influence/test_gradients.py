"""Shards: batches, sparsity, single passes, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_task import CLASSES, SmallBert, SmallCNN, SmallTask, autograd_gradients, checkpoint
from torch import nn

from influence.capture import Call, layer_gradients
from influence.gradients import BATCH_SIZE, GradientSource, loaded
from influence.layers import Layers
from influence.products import PositionGradients, TokenGradients
from tasks.errors import InputError

ALL = frozenset({"embedding", "layers", "last"})


def shard_of(task, needs=ALL, layers=frozenset({"conv1"}), points=None, rows=None, batch_size=BATCH_SIZE):
    split = task.splits["train"]
    rows = np.arange(len(split)) if rows is None else rows
    points = points or [checkpoint(task)]
    source = GradientSource(task, task.network(0), points, needs, layers)
    return source.shard("train", rows, split.labels[rows], batch_size)


def test_dense_layer_gradients_equal_autograd():
    task = SmallTask(SmallCNN())
    shard, labels = shard_of(task), task.splits["train"].labels
    expected = autograd_gradients(task, checkpoint(task), "train", range(len(labels)), labels)
    dense = shard.checkpoints[0].layers["conv1"].dense
    torch.testing.assert_close(
        dense, torch.stack([g["conv1.weight"].flatten() for g in expected]), rtol=1e-5, atol=1e-7
    )


def test_embedding_gradients_summed_by_token_equal_autograd():
    task = SmallTask(SmallCNN())
    shard, labels = shard_of(task), task.splits["train"].labels
    expected = autograd_gradients(task, checkpoint(task), "train", range(len(labels)), labels)
    summed = shard.checkpoints[0].embedding.summed
    found = torch.zeros(len(labels), task.vocabulary, 6)
    found[summed.rows, summed.tokens] = summed.vectors
    torch.testing.assert_close(found, torch.stack([g["embedding.weight"] for g in expected]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", [SmallCNN(), SmallBert()], ids=lambda m: m.name)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batch_size_changes_no_gradient(model, batch_size):
    task = SmallTask(model)
    layers = frozenset(Layers.of(task, task.network(0)).choose("all"))
    whole, parts = (shard_of(task, layers=layers, batch_size=size).checkpoints[0] for size in (30, batch_size))
    queries = shard_of(task, layers=layers, rows=np.array([3, 8])).checkpoints[0]
    for name in layers:
        found, expected = (queries.layers[name].dot(side.layers[name], True) for side in (parts, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    torch.testing.assert_close(parts.last.activations, whole.last.activations, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts.last.logit_gradients, whole.last.logit_gradients, rtol=1e-6, atol=1e-6)


def test_nothing_as_large_as_the_vocabulary_is_made():
    task = SmallTask(SmallCNN(), vocabulary=50_000)
    gradients = shard_of(task, needs=frozenset({"embedding"})).checkpoints[0].embedding
    positions = sum(map(len, task.tokens["train"]))
    assert gradients.vectors.shape[0] <= positions
    assert gradients.summed.vectors.shape[0] <= positions


def test_one_forward_and_no_weight_gradient_serve_all_needs(monkeypatch):
    task, passes = SmallTask(SmallCNN()), []
    plain = SmallCNN.forward

    def counted(self, network, batch):
        passes.append(len(batch["labels"]))
        return plain(self, network, batch)

    monkeypatch.setattr(SmallCNN, "forward", counted)
    shard_of(task, layers=frozenset({"embedding", "conv1", "conv2", "linear"}), batch_size=20)
    assert passes == [20, 10]


def test_only_what_is_needed_is_there():
    shard = shard_of(SmallTask(SmallCNN()), needs=frozenset({"last"}))
    assert shard.checkpoints[0].embedding is None
    assert shard.checkpoints[0].layers == {}
    assert shard.checkpoints[0].last.activations.shape == (30, 4)
    assert shard.checkpoints[0].last.logit_gradients.shape == (30, len(CLASSES))


def test_by_position_and_by_weight_products_agree():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        PositionGradients(*(torch.randn(n, t, d, generator=generator) for d in (6, 4)), True)
        for n, t in ((3, 5), (7, 2))
    )
    np.testing.assert_allclose(a._dot_by_position(b), a._dot_by_weight(b), rtol=1e-5)
    np.testing.assert_allclose(a._dot_by_weight(b), (a.dense @ b.dense.T).numpy(), rtol=1e-5)


def test_products_in_pieces_are_the_same(monkeypatch):
    task = SmallTask(SmallCNN())
    gradients = shard_of(task, layers=frozenset({"conv1", "linear"})).checkpoints[0]
    forms = [gradients.embedding, gradients.layers["conv1"], gradients.layers["linear"]]
    whole = [form.dot(form) for form in forms]
    monkeypatch.setattr("influence.products.CHUNK", 8)
    for form, expected in zip(forms, whole, strict=True):
        np.testing.assert_allclose(form.dot(form), expected, rtol=1e-5, atol=1e-7)


def test_top_takes_the_earlier_of_equal_positions():
    vectors = torch.tensor([[1.0], [-2.0], [2.0], [3.0], [1.0]])
    gradients = TokenGradients(2, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([5, 6, 7, 8, 9]), vectors)
    assert gradients.top(1).tokens.tolist() == [6, 8]
    assert gradients.top(2).tokens.tolist() == [6, 7, 8, 9]


def test_the_padding_row_that_never_trains_has_no_gradient():
    ids, deltas = torch.tensor([[3, 0, 4]]), torch.ones(1, 3, 2)
    assert TokenGradients.of_positions(ids, deltas, padding_id=0).tokens.tolist() == [3, 4]
    assert TokenGradients.of_positions(ids, deltas).tokens.tolist() == [3, 0, 4]


def changed(build):
    return SmallTask(type("Changed", (SmallCNN,), {"build": build})())


def test_modules_of_other_kinds_are_refused_by_name():
    def build(self, vocabulary):
        network = SmallCNN.build(self, vocabulary)
        network["conv1"] = nn.Conv1d(6, 6, 3, padding=1, groups=2)
        return network

    with pytest.raises(InputError, match="layer conv1: per-example gradients of a Conv1d with groups"):
        shard_of(changed(build))

    def scaled(self, vocabulary):
        network = SmallCNN.build(self, vocabulary)
        network["conv1"] = nn.Sequential(network["conv1"], nn.BatchNorm1d(5))
        return network

    with pytest.raises(InputError, match=r"layer conv1\.1: per-example gradients of a BatchNorm1d"):
        shard_of(changed(scaled), layers=frozenset({"conv1.1"}))


def test_a_module_that_the_forward_pass_skips_is_refused():
    def build(self, vocabulary):
        network = SmallCNN.build(self, vocabulary)
        network["unused"] = nn.Linear(2, 2)
        return network

    with pytest.raises(InputError, match="layer unused: the forward pass does not call it"):
        shard_of(changed(build), layers=frozenset({"unused"}))


def test_an_output_overwritten_in_place_is_refused():
    def build(self, vocabulary):
        network = SmallCNN.build(self, vocabulary)
        network["conv1"] = nn.Sequential(network["conv1"], nn.ReLU(inplace=True))
        return network

    with pytest.raises(InputError, match=r"layer conv1\.0: its output is overwritten in place"):
        shard_of(changed(build), layers=frozenset({"embedding", "conv1.0"}))


def test_a_module_called_twice_has_the_sum_of_both_gradients():
    def build(self, vocabulary):
        network = SmallCNN.build(self, vocabulary)
        shared = nn.Linear(4, 4)
        network["linear"] = nn.Sequential(shared, nn.LayerNorm(4), shared, nn.Linear(4, len(CLASSES)))
        return network

    task, names = changed(build), ["linear.0.weight", "linear.0.bias"]
    labels = task.splits["train"].labels
    gradients = (
        shard_of(task, needs=frozenset({"layers"}), layers=frozenset({"linear.0"})).checkpoints[0].layers["linear.0"]
    )
    dense = autograd_gradients(task, checkpoint(task), "train", range(30), labels)
    flat = torch.stack([torch.cat([g[name].flatten() for name in names]) for g in dense])
    np.testing.assert_allclose(gradients.dot(gradients, True), flat @ flat.T, rtol=1e-4, atol=1e-7)


def test_weights_that_do_not_fit_are_refused():
    task = SmallTask(SmallCNN())
    point = checkpoint(task)
    short = replace(point, state={k: v for k, v in point.state.items() if k != "conv1.bias"})
    with pytest.raises(ValueError, match=r"missing \['conv1.bias'\]"):
        loaded(task.network(0), short)
    with pytest.raises(ValueError, match=r"unexpected \['extra'\]"):
        loaded(task.network(0), replace(point, state={**point.state, "extra": np.zeros(1)}))


def test_read_only_weights_load_and_are_not_shared():
    task = SmallTask(SmallCNN())
    point = checkpoint(task)
    for array in point.state.values():
        array.setflags(write=False)
    network = loaded(task.network(1), point)
    assert not network.training
    np.testing.assert_array_equal(network["conv1"].weight.numpy(), point.state["conv1.weight"])


def test_unknown_needs_are_refused():
    with pytest.raises(ValueError, match="curvatures"):
        shard_of(SmallTask(SmallCNN()), needs=frozenset({"curvatures"}))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("fifth", "the model has 4 layers: embedding, conv1, conv2, linear"),
        (["conv9"], "'conv9' matches no layer; the model has embedding"),
    ],
)
def test_layers_that_are_not_there_are_refused(selection, message):
    task = SmallTask(SmallCNN())
    with pytest.raises(InputError, match=message):
        Layers.of(task, task.network(0)).choose(selection)


def test_the_word_embedding_is_the_first_layer_of_an_encoder():
    task = SmallTask(SmallBert())
    layers = Layers.of(task, task.network(0))
    assert layers.choose("first") == ["bert.embeddings.word_embeddings"]
    assert layers.choose("last") == ["classifier"]
    assert "bert.embeddings.word_embeddings" not in layers.choose("second")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"dilation": 2},
        {"padding": 3, "stride": 3, "dilation": 2},
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": "same", "dilation": 3},
        {"bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_convolutions_of_every_shape_equal_autograd(options, kernel):
    torch.manual_seed(0)
    conv, inputs = nn.Conv1d(3, 4, kernel, **options).requires_grad_(False), torch.randn(5, 3, 17)
    deltas = torch.randn_like(conv(inputs))
    found = layer_gradients("conv", conv, [Call(inputs, conv(inputs), 0, deltas)])
    for row in range(5):
        weight = conv.weight.detach().requires_grad_()
        outputs = nn.functional.conv1d(
            inputs[row : row + 1], weight, conv.bias, conv.stride, conv.padding, conv.dilation
        )
        (expected,) = torch.autograd.grad(outputs, weight, deltas[row : row + 1])
        torch.testing.assert_close(found.dense[row], expected.flatten(), rtol=1e-5, atol=1e-5)
