import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.models.transformer import Transformer
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune
from tasks.registry import MODELS
from tests.fakes import token_task

SMALL = {"layers": 2, "hidden": 16, "heads": 2, "max_length": 32}


def build(seed=1, n_outputs=3, **options):
    return Transformer(**{**SMALL, **options}).build(n_outputs, 40, seed).double()


def enlarge(network):
    """Weights larger than at the start, so that every part counts."""
    random = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=random)


def batch_of(task, n=6):
    return task.batch("train", np.arange(n))


def by_the_book(weights, ids, mask, heads):
    """Logits of one row in evaluation mode, written out: Vaswani et al. 2017, with the normalisation after each sum."""

    def dense(x, name):
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    ids = ids[mask]
    prefix = "bert.embeddings"
    x = weights[f"{prefix}.word_embeddings.weight"][ids] + weights[f"{prefix}.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights[f"{prefix}.token_type_embeddings.weight"][0], f"{prefix}.LayerNorm")
    for number in range(SMALL["layers"]):
        layer, width = f"bert.encoder.layer.{number}", x.shape[1] // heads
        parts = [dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")]
        found = []
        for head in range(heads):
            query, key, value = (part[:, head * width : (head + 1) * width] for part in parts)
            found.append((query @ key.T / width**0.5).softmax(1) @ value)
        x = norm(
            x + dense(torch.cat(found, 1), f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
        )
        between = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(between, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return dense(dense(x[0], "bert.pooler.dense").tanh(), "classifier")


def test_logits_are_those_of_the_formulas_without_padding():
    model, network = Transformer(**SMALL), build().eval()
    enlarge(network)
    batch = batch_of(token_task(model, None))
    assert not batch["attention_mask"].all()
    weights = dict(network.named_parameters())
    expected = [
        by_the_book(weights, ids, mask, SMALL["heads"])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    torch.testing.assert_close(model.forward(network, batch), torch.stack(expected), rtol=0, atol=1e-10)


def test_parameter_names_are_known_without_building_it():
    for layers in (1, 3):
        model = Transformer(**{**SMALL, "layers": layers})
        names = [name for name, _ in model.build(3, 40, 1).named_parameters()]
        assert sorted(model.parameter_names()) == sorted(names)


def test_weights_start_as_berts_do():
    state = build(hidden=64).state_dict()
    for name, weight in state.items():
        if "LayerNorm" in name:
            assert (weight == (1 if name.endswith("weight") else 0)).all()
        elif name.endswith("bias"):
            assert (weight == 0).all()
        else:
            assert weight.std().item() == pytest.approx(0.02, rel=0.25), name


def test_sizes_are_the_options():
    network = Transformer(layers=3, hidden=24, heads=4, max_length=20).build(5, 40, 0)
    assert network.bert.embeddings.word_embeddings.weight.shape == (40, 24)
    assert network.bert.embeddings.position_embeddings.weight.shape == (20, 24)
    assert len(network.bert.encoder.layer) == 3
    assert network.bert.encoder.layer[0].intermediate.dense.out_features == 96
    assert network.classifier.out_features == 5
    wide = Transformer(layers=1, hidden=24, heads=4, feed_forward=7).build(5, 40, 0)
    assert wide.bert.encoder.layer[0].intermediate.dense.out_features == 7


def test_dropout_is_that_of_every_place():
    network = build(dropout=0.25)
    assert {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    model, batch = Transformer(**SMALL), batch_of(token_task(Transformer(**SMALL), None))
    quiet = build(dropout=0.0).train()
    assert torch.equal(model.forward(quiet, batch), model.forward(quiet, batch))
    loud = build(dropout=0.25).train()
    assert not torch.equal(model.forward(loud, batch), model.forward(loud, batch))


def test_losses_are_twice_differentiable():
    """The Hessian-vector product along a direction equals the difference quotient of gradients."""
    task = token_task(Transformer(**SMALL, dropout=0.0), None)
    network, batch = build(dropout=0.0), batch_of(task)
    enlarge(network)
    parameters = list(network.parameters())
    random = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=random, dtype=p.dtype) for p in parameters]

    gradient = torch.autograd.grad(task.losses(network, batch).mean(), parameters, create_graph=True)
    dot = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    product = torch.autograd.grad(dot, parameters)
    shifted, step = [], 1e-6
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, along in zip(moved.parameters(), direction, strict=True):
                parameter += sign * step * along
        shifted.append(torch.autograd.grad(task.losses(moved, batch).mean(), list(moved.parameters())))
    for exact, up, down in zip(product, *shifted, strict=True):
        torch.testing.assert_close(exact, (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_frozen_parts_stay_and_the_rest_is_trained():
    model = Transformer(**SMALL, freeze=("bert.embeddings", "*.layer.0.*"))
    task = token_task(model, Finetune(epochs=1, batch_size=8, weight_decay=0.1))
    start = task.network(3).state_dict()
    trained = task.recipe.train(task, Training(edit=Edit(), seed=3, numerics=Numerics())).network.state_dict()
    for name in start:
        stays = name.startswith(("bert.embeddings", "bert.encoder.layer.0"))
        assert torch.equal(start[name], trained[name]) == stays, name


def test_training_learns_the_task():
    task = token_task(Transformer(**{**SMALL, "hidden": 32}), Finetune(epochs=40, batch_size=8, learning_rate=1e-3))
    trained = task.recipe.train(task, Training(edit=Edit(), seed=3, numerics=Numerics()))
    labels = task.splits["train"].labels
    assert (task.outputs(trained.network, "train", np.arange(len(labels))).argmax(1) == labels).mean() > 0.9


def test_texts_are_words_between_a_start_and_an_end_token():
    model = Transformer(max_length=5, min_count=2)
    tokeniser = model.encoding(None).fit(["A b c d", "a b"])
    tokens = tokeniser.encode(["a b c d e"])
    assert [tokeniser.token_text(i) for i in tokens.ids] == ["[START]", "a", "b", "[UNK]", "[END]"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"hidden": 130}, "hidden 130 is not a multiple of heads 4"),
        ({"freeze": ["bert.encoder.layer.2"]}, "'bert.encoder.layer.2' matches no parameter"),
        ({"freeze": ["*"]}, "freezes every parameter"),
        ({"dropout": 1.0}, "less than 1"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"width": 3}, "unknown key 'width'"),
    ],
)
def test_options_that_make_no_model_are_refused(options, complaint):
    with pytest.raises(InputError, match=complaint.replace("*", r"\*")):
        parse_named(MODELS, {"name": "transformer", **options}, "c.yaml", "task.model")
