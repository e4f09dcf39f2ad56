"""One forward and one backward pass that record the inputs of chosen modules and the loss gradients at their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from influence.products import ElementGradients, LayerGradients, PositionGradients, TokenGradients
from tasks.errors import InputError


@dataclass
class Call:
    """One call of a module: its input, its output, and the gradient of the summed loss at the output."""

    inputs: Tensor
    outputs: Tensor
    version: int
    deltas: Tensor | None = None


def capture(
    modules: Mapping[str, nn.Module], forward: Callable[[], Tensor], labels: Tensor
) -> tuple[Tensor, dict[str, list[Call]]]:
    """Return logits [n, n_classes] and the calls of each module, with gradients of sum_i -log p(labels[i]).

    The parameters of the network must be frozen: gradients then flow to module outputs only, and no further back than
    the first of `modules`. Raises InputError if a module is not used in the forward pass, or if its output is
    overwritten.
    """
    with recording(modules, len(labels)) as calls, torch.enable_grad():
        logits = forward()
    check_calls(calls, len(labels))
    flat = [call for found in calls.values() for call in found]
    if flat:
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        deltas = torch.autograd.grad(loss, [call.outputs for call in flat], allow_unused=True)
        for call, delta in zip(flat, deltas, strict=True):
            call.outputs = call.outputs.detach()
            call.deltas = torch.zeros_like(call.outputs) if delta is None else delta
    return logits.detach(), calls


@contextmanager
def recording(modules: Mapping[str, nn.Module], n: int, in_graph: bool = False) -> Iterator[dict[str, list[Call]]]:
    """Record the calls of the modules in the forward passes made inside, one row per example.

    With `in_graph` the inputs are not detached.
    """
    calls: dict[str, list[Call]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(_recorder(calls[name], n, in_graph), with_kwargs=True)
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _recorder(calls: list[Call], n: int, in_graph: bool) -> Callable[..., Tensor]:
    def record(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        inputs = args[0] if args else next(iter(kwargs.values()))
        inputs = inputs if in_graph else inputs.detach()
        if len(output) == 1 < n:  # one row for the whole batch, as for position embeddings: repeat it per example
            output, inputs = output.expand(n, *output.shape[1:]), inputs.expand(n, *inputs.shape[1:])
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        calls.append(Call(inputs, output, output._version))
        return output

    return record


def check_calls(calls: Mapping[str, list[Call]], n: int) -> None:
    """Raise InputError if a module was not called, its output was overwritten, or it does not have `n` rows."""
    for name, found in calls.items():
        if not found:
            raise InputError(f"layer {name}", "the forward pass does not call it; choose other layers")
        for call in found:
            if call.outputs._version != call.version:
                raise InputError(f"layer {name}", "its output is overwritten in place, so its gradient is lost")
            if len(call.inputs) != n or len(call.outputs) != n:
                shape = list(call.outputs.shape)
                raise InputError(f"layer {name}", f"its output {shape} does not have one row per example ({n})")


def layer_gradients(name: str, module: nn.Module, calls: list[Call]) -> LayerGradients:
    """Return per-example gradients of a module's weights, summed over its calls.

    Raises InputError for an unsupported kind of module.
    """
    parts = [_of_call(name, module, call.inputs, call.deltas) for call in calls if call.deltas is not None]
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, TokenGradients):
        return TokenGradients(
            first.n, *(torch.cat([getattr(p, f) for p in parts]) for f in ("rows", "tokens", "vectors"))
        )
    if isinstance(first, PositionGradients):
        inputs, deltas = (torch.cat([getattr(p, f) for p in parts], 1) for f in ("inputs", "deltas"))
        return PositionGradients(inputs, deltas, first.has_bias)
    weights, biases = ([getattr(p, f) for p in parts] for f in ("weight", "bias"))
    return ElementGradients(torch.stack(weights).sum(0), None if first.bias is None else torch.stack(biases).sum(0))


def check_supported(name: str, module: nn.Module) -> None:
    """Raise InputError naming a module whose per-example gradients cannot be computed."""
    problem = _problem(module)
    if problem:
        raise InputError(
            f"layer {name}",
            f"per-example gradients of {problem} are not supported; supported: Linear, Conv1d, LayerNorm, Embedding",
        )


def _problem(module: nn.Module) -> str | None:
    if isinstance(module, nn.Embedding):
        return "an Embedding with max_norm" if module.max_norm is not None else None
    if isinstance(module, nn.Conv1d):
        plain = module.groups == 1 and module.padding_mode == "zeros"
        return None if plain else "a Conv1d with groups or with padding other than zeros"
    return None if isinstance(module, (nn.Linear, nn.LayerNorm)) else f"a {type(module).__name__}"


def _of_call(name: str, module: nn.Module, inputs: Tensor, deltas: Tensor) -> LayerGradients:
    check_supported(name, module)
    if isinstance(module, nn.Embedding):
        return TokenGradients.of_positions(inputs.flatten(1), deltas.flatten(1, -2), module.padding_idx)
    if isinstance(module, nn.Conv1d):
        return PositionGradients(
            windows(module, inputs, deltas.shape[2]), deltas.transpose(1, 2), module.bias is not None
        )
    if isinstance(module, nn.LayerNorm):
        return _layer_norm(module, inputs, deltas)
    n = len(inputs)
    positions = [x.reshape(n, -1, x.shape[-1]) for x in (inputs, deltas)]
    return PositionGradients(positions[0], positions[1], module.bias is not None)


def windows(conv: nn.Conv1d, inputs: Tensor, length: int) -> Tensor:
    """Return the input of the convolution at each output position: [n, length, channels * kernel], in the order of its weight."""
    (kernel,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
    if isinstance(conv.padding, str):
        before = dilation * (kernel - 1) // 2 if conv.padding == "same" else 0
        pad = (before, dilation * (kernel - 1) - before if conv.padding == "same" else 0)
    else:
        pad = (conv.padding[0], conv.padding[0])
    padded, reach = functional.pad(inputs, pad), stride * (length - 1) + 1
    # torch's unfold gives the same result in 10 times the time on a CPU
    shifts = [padded[:, :, start : start + reach : stride] for start in range(0, dilation * kernel, dilation)]
    return torch.stack(shifts, 2).reshape(len(inputs), -1, length).transpose(1, 2)


def _layer_norm(norm: nn.LayerNorm, inputs: Tensor, deltas: Tensor) -> ElementGradients:
    normed = functional.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
    weight, bias = (x.reshape(len(x), -1, norm.weight.numel()).sum(1) for x in (normed * deltas, deltas))
    return ElementGradients(weight, None if norm.bias is None else bias)
