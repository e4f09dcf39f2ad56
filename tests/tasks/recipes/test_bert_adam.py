import numpy as np
import pytest
import torch
from torch import nn

from tasks.recipes.bert_adam import BertAdam
from tasks.recipes.optimizers import make_optimizer

SHAPES = {"large": (7, 5), "small": (3, 4), "vector": (4,)}
SCALES = {"large": 5.0, "small": 1e-3, "vector": 0.1}  # norms of about 30, 0.003 and 0.2: only the first is clipped


def by_the_book(start, gradients, lr, decay, betas=(0.9, 0.999), eps=1e-6):
    """pytorch_pretrained_bert 0.6.1's update rule for one tensor, in float64."""
    p, m, v = start.copy(), 0.0, 0.0
    for g in gradients:
        norm = np.sqrt((g**2).sum())
        if norm > 1:
            g = g / (norm + 1e-6)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (np.sqrt(v) + eps) + decay * p)
    return p


def parameters(dtype):
    random = np.random.default_rng(0)
    return {name: nn.Parameter(torch.tensor(random.normal(size=shape), dtype=dtype)) for name, shape in SHAPES.items()}


def gradients(n=20):
    random = np.random.default_rng(1)
    return {name: SCALES[name] * random.normal(size=(n, *shape)) for name, shape in SHAPES.items()}


def trained(dtype, layout=lambda gradient: gradient):
    weights = parameters(dtype)
    optimizer = make_optimizer(
        nn.ParameterDict(weights), "bert_adam", learning_rate=0.05, momentum=0.0, weight_decay=0.1, betas=(0.9, 0.999), eps=1e-6
    )  # fmt: skip
    for step in range(20):
        for name, weight in weights.items():
            weight.grad = layout(torch.tensor(gradients()[name][step], dtype=dtype))
        optimizer.step()
    return weights


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_updates_are_the_published_ones_where_a_tensor_is_clipped_and_where_not(dtype, atol):
    weights, start = trained(dtype), parameters(torch.float64)
    for name, scale in SCALES.items():
        norms = np.sqrt((gradients()[name].reshape(20, -1) ** 2).sum(1))
        assert (norms > 1).all() if scale > 1 else (norms < 1).all()
        decay = 0.1 if len(SHAPES[name]) > 1 else 0.0
        expected = by_the_book(start[name].detach().numpy(), gradients()[name], 0.05, decay)
        np.testing.assert_allclose(weights[name].detach().numpy(), expected, rtol=0, atol=atol)


def test_the_memory_layout_of_a_gradient_does_not_matter():
    def transposed(gradient):
        return gradient.t().contiguous().t() if gradient.ndim > 1 else gradient

    plain, other = trained(torch.float64), trained(torch.float64, transposed)
    for name in SHAPES:
        torch.testing.assert_close(other[name], plain[name], rtol=0, atol=1e-12)


def test_a_constant_gradient_moves_a_weight_by_the_known_multiples_of_the_rate():
    weight, moves = nn.Parameter(torch.zeros(1, dtype=torch.float64)), {}
    optimizer = BertAdam([weight], lr=1.0)
    for step in range(1, 251):
        before = weight.item()
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
        moves[step] = before - weight.item()
    assert [moves[step] for step in (1, 5, 10, 50, 250)] == pytest.approx([3.2, 5.8, 6.5, 4.5, 2.1], abs=0.05)
    assert max(moves, key=lambda step: moves[step]) in range(10, 14)


def test_parameters_without_a_gradient_stay():
    moved, kept = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = BertAdam([moved, kept], lr=0.1, weight_decay=0.1)
    moved.grad = torch.ones(2, 2)
    optimizer.step()
    assert (moved != 1).all()
    assert (kept == 1).all()
    assert kept not in optimizer.state


def test_a_rate_of_zero_moves_nothing_and_still_fills_the_moments():
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = BertAdam([weight], lr=0.0, weight_decay=0.1)
    weight.grad = torch.full((3, 2), 0.01)
    optimizer.step()
    assert (weight == 1).all()
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], torch.full((3, 2), 0.001))


def test_the_state_survives_saving_and_loading():
    def steps(optimizer, weight, n):
        for step in range(n):
            weight.grad = torch.full_like(weight, 0.1 + step)
            optimizer.step()

    whole, cut = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    steps(BertAdam([whole], lr=0.01), whole, 2)
    first = BertAdam([cut], lr=0.01)
    steps(first, cut, 1)
    second = BertAdam([cut], lr=0.5)
    second.load_state_dict(first.state_dict())
    cut.grad = torch.full_like(cut, 1.1)
    second.step()
    assert torch.equal(cut, whole)


def test_a_loss_that_step_computes_is_returned():
    weight = nn.Parameter(torch.ones(2))
    optimizer = BertAdam([weight], lr=0.1)

    def loss():
        optimizer.zero_grad()
        value = (weight**2).sum()
        value.backward()
        return value

    assert optimizer.step(loss) == 2.0
    assert (weight < 1).all()
