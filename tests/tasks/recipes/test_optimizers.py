import pytest
import torch
from torch import nn

from tasks.recipes.optimizers import make_optimizer, parameter_groups


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def test_weight_decay_spares_biases_and_normalisation_weights():
    model = network()
    decayed, spared = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0)
    assert {id(p) for p in decayed["params"]} == {id(model[layer].weight) for layer in (0, 1, 3)}
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (model[1].bias, model[2].weight, model[2].bias, model[3].bias)
    }


def test_frozen_parameters_are_in_no_group():
    model = network()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    model[3].requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert {id(p) for p in group["params"]} == {id(model[2].weight), id(model[2].bias)}


def by_the_book(name, weights, gradients, lr, momentum, decay, betas, eps):
    """The published update rules in float64."""
    m, v, buffer = 0, 0, 0
    for step, gradient in enumerate(gradients, 1):
        if name == "adamw":
            weights = weights - lr * decay * weights
        else:
            gradient = gradient + decay * weights
        if name == "sgd":
            buffer = momentum * buffer + gradient
            weights = weights - lr * buffer
        else:
            m = betas[0] * m + (1 - betas[0]) * gradient
            v = betas[1] * v + (1 - betas[1]) * gradient**2
            weights = weights - lr * (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    return weights


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_updates_are_the_published_ones(name):
    options = {"momentum": 0.9 if name == "sgd" else 0.0, "betas": (0.8, 0.95), "eps": 1e-6}
    layer = nn.Linear(7, 5, bias=False)
    start, gradients = layer.weight.detach().double(), torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(1))
    optimizer = make_optimizer(layer, name, learning_rate=0.05, weight_decay=0.1, **options)
    for gradient in gradients:
        layer.weight.grad = gradient.clone()
        optimizer.step()
    expected = by_the_book(
        name, start, gradients.double(), 0.05, options["momentum"], 0.1, options["betas"], options["eps"]
    )
    torch.testing.assert_close(layer.weight.detach().double(), expected, rtol=0, atol=1e-5)
