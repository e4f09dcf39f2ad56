"""Influences that training can differentiate: cosines of per-example gradients, and the loss over them.

No parameter gradient is ever formed. For a layer with inputs X [T, I] and output gradients D [T, O], an example's
weight gradient is sum_t D_t X_t^T, so the inner product of the gradients of two examples is sum_ts (X_t . X'_s)(D_t .
D'_s). X and D of all examples come from one forward and one backward pass and stay in the graph. One more backward pass
through both gives the gradient of any function of the products: the paper's p + q - r - s of every pair at once, where
a loop over pairs takes four Hessian-vector products per pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence.capture import Call, check_calls, check_supported, recording, windows
from influence.layers import Layers
from tasks.base import Batch
from tasks.errors import InputError
from tasks.task import Task

LABEL_ROW = "label_row"


@dataclass(frozen=True)
class Chosen:
    """The modules on whose parameters the influence is defined.

    `label_row`: of the last module, only the row of the label counts.
    """

    modules: Mapping[str, nn.Module]
    label_row: bool = False

    @staticmethod
    def of(task: Task, network: nn.Module, parameters: str | Sequence[str]) -> Chosen:
        """Choose modules by `parameters`: `all` that are trained, `label_row`, or any value of a method's `layers` option.

        Raises InputError for a layer that does not exist, or for a parameter whose per-example gradient cannot be
        computed.
        """
        if parameters == LABEL_ROW:
            name = task.model.last_module(network)
            return Chosen({name: network.get_submodule(name)}, label_row=True)
        modules = {name: network.get_submodule(name) for name in Layers.of(task, network).choose(parameters)}
        for name, module in modules.items():
            check_supported(name, module)
            if not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                raise InputError("task.recipe.parameters", f"layer {name} is frozen; choose layers that are trained")
        if parameters == "all":
            _check_complete(network, modules)
        return Chosen(modules)


def _check_complete(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    owned = [id(parameter) for module in modules.values() for parameter in module.parameters(recurse=False)]
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and owned.count(id(parameter)) != 1:
            problem = (
                f"{name} does not belong to exactly one Linear, Conv1d, LayerNorm or Embedding; choose layers by name"
            )
            raise InputError("task.recipe.parameters", problem)


def gradient_cosines(task: Task, network: nn.Module, batch: Batch, chosen: Chosen, n_probes: int) -> Tensor:
    """Return cos(grad l_j, grad l_probe) of the examples of each group: [n_probes, size - 1], differentiable.

    `batch` [n_probes * size] holds the groups one after the other, the probe first in each. l is the train loss. The
    cosine is 0 if a gradient's squared norm is below the smallest normal number. Han and Tsvetkov 2021, section 2
    ("Gradient cosine").
    """
    loss, calls = _calls(chosen.modules, len(batch["labels"]), lambda: task.losses(network, batch).sum())
    outputs = [call.outputs for found in calls.values() for call in found]
    deltas = iter(torch.autograd.grad(loss, outputs, create_graph=True, allow_unused=True))
    dots = squares = loss.new_zeros(())
    for name, found in calls.items():
        pairs = zip(found, deltas, strict=False)  # one iterator serves all modules
        with_deltas = [(call.inputs, delta) for call, delta in pairs if delta is not None]
        if with_deltas:
            products = _products(chosen, name, with_deltas, batch["labels"], n_probes)
            dots, squares = dots + products[0], squares + products[1]
    return _cosines(dots, squares)


def hidden_cosines(task: Task, network: nn.Module, batch: Batch, n_probes: int) -> Tensor:
    """Return cos(h_j, h_probe) of the inputs of the layer onto the logits: [n_probes, size - 1], differentiable.

    Within groups of one label this equals the gradient cosine on the label's row of that layer: grad = (p(y) - 1) h,
    and the factor cancels. Han and Tsvetkov 2021, section 4.1.
    """
    name = task.model.last_module(network)
    modules = {name: network.get_submodule(name)}
    _, calls = _calls(modules, len(batch["labels"]), lambda: task.logits(network, batch))
    hidden = calls[name][-1].inputs.reshape(n_probes, len(batch["labels"]) // n_probes, -1)
    return _cosines((hidden * hidden[:, :1]).sum(-1), hidden.square().sum(-1))


def influence_loss(cosines: Tensor, weights: Tensor) -> Tensor:
    """Return the influence loss of each probe: [n_probes].

    J = (sum_j w_j I_j)^2, with w_j = 1 / n_same for the same-confound group, -1 / n_other for the other one: the
    squared difference of the two groups' mean influences. Han and Tsvetkov 2021, section 4. cosines, weights [n_probes,
    size - 1].
    """
    return (cosines * weights).sum(-1).square()


def _calls(
    modules: Mapping[str, nn.Module], n: int, forward: Callable[[], Tensor]
) -> tuple[Tensor, dict[str, list[Call]]]:
    """Return the result of `forward`, and the calls of the modules in the graph.

    Attention is computed by plain matrix products, because its fused kernels have no second derivative.
    """
    with recording(modules, n, in_graph=True) as calls, sdpa_kernel(SDPBackend.MATH):
        found = forward()
    check_calls(calls, n)
    return found, calls


def _products(
    chosen: Chosen, name: str, calls: Sequence[tuple[Tensor, Tensor]], labels: Tensor, n_probes: int
) -> tuple[Tensor, Tensor]:
    """Return inner products of the examples' gradients of one module with the probe's and with themselves: two [n_probes, size]."""
    module = chosen.modules[name]
    if isinstance(module, nn.LayerNorm):
        return _of_vectors(_layer_norm_gradients(module, calls), n_probes)
    inputs = torch.cat([_positions(module, x, d) for x, d in calls], 1)
    deltas = torch.cat([_deltas(module, d) for _, d in calls], 1)
    if chosen.label_row:
        deltas = deltas.gather(2, labels.view(-1, 1, 1).expand(-1, deltas.shape[1], 1))
    bias = getattr(module, "bias", None)
    with_bias = bias is not None and bias.requires_grad and not chosen.label_row
    inputs, deltas = (x.view(n_probes, -1, *x.shape[1:]) for x in (inputs, deltas))
    probe, own = (_kernel(module, inputs, other, with_bias) for other in (inputs[:, :1], inputs))
    dots = (probe * (deltas @ deltas[:, :1].mT)).sum((-1, -2))
    return dots, (own * (deltas @ deltas.mT)).sum((-1, -2))


def _kernel(module: nn.Module, inputs: Tensor, others: Tensor, with_bias: bool) -> Tensor:
    """Return the factor of D_t . D'_s in the inner product: [n_probes, size, T, T].

    It is X_t . X'_s for a weight, plus 1 for a bias; for an embedding it is 1 if both positions hold the same id, else
    0.
    """
    if isinstance(module, nn.Embedding):
        same = inputs.unsqueeze(-1) == others.unsqueeze(-2)
        return same if module.padding_idx is None else same & (inputs != module.padding_idx).unsqueeze(-1)
    products = inputs @ others.mT if module.weight.requires_grad else inputs.new_zeros(())  # type: ignore[union-attr]
    return products + 1 if with_bias else products


def _positions(module: nn.Module, inputs: Tensor, deltas: Tensor) -> Tensor:
    """Return the inputs [n, T, I] at every output position; for an embedding the ids [n, T]."""
    if isinstance(module, nn.Embedding):
        return inputs.flatten(1)
    if isinstance(module, nn.Conv1d):
        return windows(module, inputs, deltas.shape[2])
    return inputs.reshape(len(inputs), -1, inputs.shape[-1])


def _deltas(module: nn.Module, deltas: Tensor) -> Tensor:
    """Return the output gradients [n, T, O]."""
    if isinstance(module, nn.Conv1d):
        return deltas.transpose(1, 2)
    return deltas.reshape(len(deltas), -1, deltas.shape[-1])


def _layer_norm_gradients(norm: nn.LayerNorm, calls: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the gradients of weight and bias, as far as they are trained, concatenated: [n, d]."""
    parts = []
    for values, trained in ((norm.weight, 0), (norm.bias, 1)):
        if values is None or not values.requires_grad:
            continue
        factors = [
            functional.layer_norm(x, norm.normalized_shape, eps=norm.eps) * d if not trained else d for x, d in calls
        ]
        parts.append(torch.stack([f.reshape(len(f), -1, values.numel()).sum(1) for f in factors]).sum(0))
    return torch.cat(parts, 1)


def _of_vectors(gradients: Tensor, n_probes: int) -> tuple[Tensor, Tensor]:
    grouped = gradients.view(n_probes, -1, gradients.shape[1])
    return (grouped * grouped[:, :1]).sum(-1), grouped.square().sum(-1)


def _cosines(dots: Tensor, squares: Tensor) -> Tensor:
    """Return dots / (norm * the probe's norm), without the probe's own; 0, without gradient, if a norm is zero."""
    known = squares > torch.finfo(squares.dtype).tiny
    norms = torch.where(known, squares, 1.0).sqrt()
    both = known & known[:, :1]
    return torch.where(both, dots / (norms * norms[:, :1]), 0.0)[:, 1:]
