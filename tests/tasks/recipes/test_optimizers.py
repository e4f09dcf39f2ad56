"""Optimisers without PyTorch's compiler: the same updates, and the compiler is never imported."""

import subprocess
import sys
from typing import get_args

import pytest
import torch

from tasks.recipes.bert_adam import BertAdam
from tasks.recipes.optimizers import OptimizerName, make_optimizer, without_compiler

OPTIONS = {
    torch.optim.SGD: {"momentum": 0.9, "fused": True},
    torch.optim.Adam: {"weight_decay": 0.1, "fused": True},
    torch.optim.AdamW: {"weight_decay": 0.1, "fused": True},
    BertAdam: {"weight_decay": 0.1},
}


def weights_after_updates(kind, options):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    optimizer = kind(network.parameters(), lr=0.05, **options)
    for _ in range(4):
        optimizer.zero_grad()
        network(torch.ones(3, 5)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step(lambda: network(torch.ones(3, 5)).sum())
    return [weight.detach() for weight in network.parameters()]


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
def test_the_updates_are_those_of_the_wrapped_class_to_the_bit(kind):
    expected = weights_after_updates(kind, OPTIONS[kind])
    found = weights_after_updates(without_compiler(kind), OPTIONS[kind])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_gradient_of_the_update_is_not_recorded():
    assert not any(weight.requires_grad for weight in weights_after_updates(without_compiler(torch.optim.Adam), {}))


def test_options_are_those_of_the_wrapped_class():
    optimizer = make_optimizer(
        torch.nn.Linear(3, 2), "adamw", learning_rate=0.1, momentum=0, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-3
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert optimizer.defaults["eps"] == 1e-3


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_training_does_not_import_the_compiler(name):
    program = f"""
import sys, torch
from tasks.recipes.optimizers import make_optimizer
network = torch.nn.Linear(3, 2)
optimizer = make_optimizer(
    network, {name!r}, learning_rate=0.1, momentum=0, weight_decay=0.1, betas=(0.9, 0.99), eps=1e-8
)
for _ in range(2):
    optimizer.zero_grad()
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
