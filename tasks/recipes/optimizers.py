"""Optimisers by name, with weight decay on the right parameters."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

OptimizerName = Literal["adam", "adamw", "bert_adam", "sgd"]
WRAPPED = (
    "add_param_group",
    "load_state_dict",
    "state_dict",
    "zero_grad",
)  # methods of Optimizer outside torch.compile


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trained parameters into those with `weight_decay` and those without (vectors: biases, normalisation weights)."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    network: nn.Module,
    name: OptimizerName,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> Optimizer:
    """Return the optimiser `name`; `fused` kernels give the same update, several times faster on wide embeddings."""
    import torch

    groups = parameter_groups(network, weight_decay)
    if name == "sgd":
        return without_compiler(torch.optim.SGD)(groups, lr=learning_rate, momentum=momentum, fused=True)
    if name == "bert_adam":
        from tasks.recipes.bert_adam import BertAdam

        return without_compiler(BertAdam)(groups, lr=learning_rate, betas=betas, eps=eps)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return without_compiler(kind)(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


@cache
def without_compiler(kind: Any) -> Any:
    """Return a subclass of the optimiser class `kind` with the same updates that does not import PyTorch's compiler.

    PyTorch wraps these methods so that torch.compile leaves them out, and the wrappers import the compiler at their first
    call: over a second of processor time in every process that trains. Refit compiles no training.
    """
    import torch

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in ("step", *WRAPPED)}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(kind.__name__, (kind,), methods)
