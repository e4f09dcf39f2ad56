"""Differentiable influences against explicit gradients, the paper's formula and finite differences, in float64."""

import numpy as np
import pytest
import torch
from small_task import SmallBert, SmallCNN, SmallTask
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.influence_loss import Chosen, gradient_cosines, hidden_cosines, influence_loss
from tasks.errors import InputError

N_PROBES, SIZE = 3, 5  # a probe, two of its confound, two of the other
WEIGHTS = torch.tensor([[0.5, 0.5, -0.5, -0.5], [1.0, 0.0, -0.5, -0.5], [0.5, 0.5, 0.0, -1.0]], dtype=torch.float64)


@pytest.fixture(params=[SmallCNN(), SmallBert()], ids=lambda model: model.name)
def case(request):
    """A task, a network far from its initial weights, and a batch whose groups share a label."""
    task = SmallTask(request.param, dtype=torch.float64)
    network = task.network(3).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    labels = task.splits["train"].labels
    rows = np.concatenate([np.flatnonzero(labels == label)[:SIZE] for label in range(N_PROBES)])
    return task, network, task.batch("train", rows)


def explicit_gradients(task, network, batch):
    """Every example's gradient over all parameters, by autograd, in the graph: [n, n_parameters]."""
    parameters = list(network.parameters())
    found = []
    with sdpa_kernel(SDPBackend.MATH):
        losses = task.losses(network, batch)
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        pairs = zip(gradients, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    return torch.stack(found)


def gradient_of(loss, network):
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def all_cosines(task, network, batch):
    return gradient_cosines(task, network, batch, Chosen.of(task, network, "all"), N_PROBES)


def test_cosines_equal_those_of_explicit_gradients(case):
    gradients = explicit_gradients(*case).view(N_PROBES, SIZE, -1)
    expected = torch.nn.functional.cosine_similarity(gradients[:, 1:], gradients[:, :1], dim=-1)
    torch.testing.assert_close(all_cosines(*case), expected, rtol=0, atol=1e-12)


def paper_gradient(task, network, batch):
    """sum over probes of 2 (I_A - I_B) (grad I_A - grad I_B), with grad I = p + q - r - s (appendix B)."""
    gradients = explicit_gradients(task, network, batch).view(N_PROBES, SIZE, -1)

    def hvp(gradient, vector):
        return gradient_of_kept(gradient @ vector.detach(), network)

    total = 0.0
    for probe, weights in enumerate(WEIGHTS):
        difference, slope = 0.0, 0.0
        g_probe = gradients[probe, 0]
        for weight, g_train in zip(weights, gradients[probe, 1:], strict=True):
            dot, norm_t, norm_p = (g_train @ g_probe).item(), g_train.norm().item(), g_probe.norm().item()
            p = hvp(g_train, g_probe) / (norm_t * norm_p)
            q = hvp(g_probe, g_train) / (norm_t * norm_p)
            r = dot / (norm_t**3 * norm_p) * hvp(g_train, g_train)
            s = dot / (norm_t * norm_p**3) * hvp(g_probe, g_probe)
            difference += weight.item() * dot / (norm_t * norm_p)
            slope = slope + weight.item() * (p + q - r - s)
        total = total + 2 * difference * slope
    return total


def gradient_of_kept(scalar, network):
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def test_gradient_of_the_loss_equals_the_papers_formula(case):
    found = gradient_of(influence_loss(all_cosines(*case), WEIGHTS).sum(), case[1])
    expected = paper_gradient(*case)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_gradient_of_the_loss_equals_finite_differences(case):
    _task, network, _batch = case
    found = gradient_of(influence_loss(all_cosines(*case), WEIGHTS).sum(), network)
    generator, step = torch.Generator().manual_seed(1), 1e-6
    start = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    for _ in range(3):
        direction = torch.randn(len(start), generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * step * direction, network.parameters())
            values.append(influence_loss(all_cosines(*case), WEIGHTS).sum().item())
        slope = (values[0] - values[1]) / (2 * step)
        assert (found @ direction).item() == pytest.approx(slope, rel=1e-5)


def test_hidden_cosines_equal_gradient_cosines_on_the_labels_row(case):
    task, network, batch = case
    by_row = gradient_cosines(task, network, batch, Chosen.of(task, network, "label_row"), N_PROBES)
    by_state = hidden_cosines(task, network, batch, N_PROBES)
    torch.testing.assert_close(by_state, by_row, rtol=0, atol=1e-12)
    gradients = [gradient_of(influence_loss(found, WEIGHTS).sum(), network) for found in (by_row, by_state)]
    assert gradients[1].norm() > 1e-6
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-12)


def test_chosen_layers_are_the_only_ones_that_count(case):
    task, network, batch = case
    name = task.model.last_module(network)
    found = gradient_cosines(task, network, batch, Chosen.of(task, network, "last"), N_PROBES)
    names = [key for key, _ in network.named_parameters()]
    sizes = [parameter.numel() for parameter in network.parameters()]
    keep = torch.cat([torch.full((n,), key.startswith(name)) for key, n in zip(names, sizes, strict=True)])
    gradients = explicit_gradients(task, network, batch)[:, keep].view(N_PROBES, SIZE, -1)
    expected = torch.nn.functional.cosine_similarity(gradients[:, 1:], gradients[:, :1], dim=-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_frozen_parameters_do_not_count(case):
    task, network, batch = case
    frozen = next(iter(network.parameters()))
    frozen.requires_grad_(False)
    gradients = []
    trained = [p for p in network.parameters() if p.requires_grad]
    for loss in task.losses(network, batch):
        parts = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        gradients.append(torch.cat([g.flatten() for g in parts if g is not None]))
    grouped = torch.stack(gradients).view(N_PROBES, SIZE, -1)
    expected = torch.nn.functional.cosine_similarity(grouped[:, 1:], grouped[:, :1], dim=-1)
    torch.testing.assert_close(all_cosines(*case), expected, rtol=0, atol=1e-12)


def test_a_zero_gradient_has_cosine_zero_and_a_finite_slope(case):
    task, network, _batch = case
    last = network.get_submodule(task.model.last_module(network))
    with torch.no_grad():  # so sure of label 0 that p rounds to 1 and its loss has no gradient
        last.weight.zero_()
        last.bias.copy_(torch.tensor([2000.0, 0.0, -2000.0]))
    cosines = all_cosines(*case)
    assert (cosines[0] == 0).all()
    assert torch.isfinite(gradient_of(influence_loss(cosines, WEIGHTS).sum(), network)).all()


def test_a_parameter_outside_known_layers_is_refused_by_name():
    task = SmallTask(SmallCNN())
    network = task.network(0)
    network["scale"] = torch.nn.PReLU()
    with pytest.raises(InputError, match=r"scale\.weight does not belong to exactly one Linear"):
        Chosen.of(task, network, "all")
