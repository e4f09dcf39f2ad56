import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.models.text_cnn import LAYERS, TextCNN
from tests.fakes import token_task

MODEL = TextCNN(embedding_dim=8, filters=4)


def by_hand(network, ids):
    """Logits of one row without padding, position by position, in numpy."""
    weights = {name: weight.detach().numpy().astype(float) for name, weight in network.named_parameters()}
    hidden = weights["embedding.weight"][ids]
    for layer in LAYERS[1:4]:
        kernel = weights[f"{layer}.weight"]  # [filters, channels, width]
        half = kernel.shape[2] // 2
        padded = np.pad(hidden, ((half, half), (0, 0)))
        windows = np.stack([padded[start : start + kernel.shape[2]].T for start in range(len(ids))])
        hidden = np.maximum(np.einsum("pcw,fcw->pf", windows, kernel) + weights[f"{layer}.bias"], 0)
    return hidden.max(0) @ weights["linear.weight"].T + weights["linear.bias"]


def test_logits_are_those_of_the_formula_whatever_the_padding():
    task = token_task(MODEL, None)
    network = task.network(3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))  # biases too
    rows = np.arange(8)
    logits = MODEL.forward(network, task.batch("train", rows)).detach().numpy()
    np.testing.assert_allclose(
        logits, [by_hand(network, task.tokens["train"][row]) for row in rows], rtol=1e-5, atol=1e-5
    )


def test_the_papers_network_has_7074_parameters_beside_the_embedding():
    sizes = {name: weight.numel() for name, weight in TextCNN().build(4, 25_000, 0).named_parameters()}
    assert sizes.pop("embedding.weight") == 25_000 * 128
    assert sum(sizes.values()) == 7074
    assert sum(size for name, size in sizes.items() if name.endswith("bias")) == 34
    assert sizes["conv1.weight"] == 6400


def test_weights_start_in_their_ranges():
    network = TextCNN().build(4, 1000, 5)
    assert 0.049 < network["embedding"].weight.abs().max() <= 0.05
    bound = (6 / (128 * 5 + 10 * 5)) ** 0.5
    assert 0.95 * bound < network["conv1"].weight.abs().max() <= bound
    assert all((network[layer].bias == 0).all() for layer in LAYERS[1:])


def test_layers_are_those_of_the_paper_in_order():
    network = MODEL.build(3, 40, 0)
    assert MODEL.layer_modules(network) == ["embedding", "conv1", "conv2", "conv3", "linear"]
    assert (MODEL.embedding_module(network), MODEL.last_module(network)) == ("embedding", "linear")
    assert [network[layer].kernel_size for layer in LAYERS[1:4]] == [(5,), (5,), (1,)]


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (("embedding",), {"embedding.weight"}),
        (("conv*",), {f"conv{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}),
        (("*.bias",), {f"{layer}.bias" for layer in LAYERS[1:]}),
    ],
)
def test_frozen_layers_are_not_trained(patterns, frozen):
    network = TextCNN(freeze=patterns).build(3, 40, 0)
    assert {name for name, parameter in network.named_parameters() if not parameter.requires_grad} == frozen


def test_a_frozen_layer_starts_as_it_would_if_trained():
    free, frozen = MODEL.build(3, 40, 1), TextCNN(embedding_dim=8, filters=4, freeze=("embedding",)).build(3, 40, 1)
    assert all(torch.equal(one, other) for one, other in zip(free.parameters(), frozen.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kernel": 4}, "4 is even"),
        ({"filters": 0}, "greater than or equal to 1"),
        ({"embedding_dim": -1}, "greater than or equal to 1"),
        ({"max_length": 1}, "greater than or equal to 2"),
        ({"freeze": ("attention",)}, "'attention' matches no parameter"),
        ({"freeze": ("*",)}, "at least one must be trained"),
        ({"filter": 10}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_make_no_network_are_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        TextCNN(**options)


def test_the_encoding_has_the_models_options(tmp_path):
    encoding = TextCNN(max_length=50, lowercase=False, max_vocabulary=99, min_count=2).encoding(tmp_path)
    assert (encoding.max_length, encoding.lowercase, encoding.max_vocabulary, encoding.min_count) == (50, False, 99, 2)


def test_identity_follows_the_options(tmp_path):
    assert MODEL.identity_of_weights(tmp_path) == TextCNN(embedding_dim=8, filters=4).identity_of_weights(tmp_path)
    assert MODEL.identity_of_weights(tmp_path) != TextCNN(embedding_dim=8, filters=5).identity_of_weights(tmp_path)
