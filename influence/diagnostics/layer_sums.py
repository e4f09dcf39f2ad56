"""Sums over examples of their gradients, layer by layer: sizes, and the mean cosine between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from influence.checkpoint import Checkpoint
from influence.gradients import GradientSource
from influence.layers import Layers
from influence.products import LayerGradients
from tasks.errors import InputError
from tasks.task import Task

N_CHECKED = 2  # a single example would not reveal a layer that has one row for the whole batch
PARTS = ("weight", "bias")
Part = tuple[str, str]  # layer, weight or bias


@dataclass(frozen=True)
class LayerSums:
    """Gradients of n examples at one checkpoint: `norms` float64 [n] by (layer, part), and their mean `cosine` by (layer, part).

    cosine = mean over pairs a != b of cos(g_a, g_b), 0 for a gradient that is exactly zero; NaN for fewer than 2 examples.
    """

    norms: Mapping[Part, np.ndarray]
    cosine: Mapping[Part, float]


def parts_of(task: Task, network: nn.Module) -> dict[Part, list[str]]:
    """Return (layer, part) -> the names of its parameters, for the layers with trained weights in forward order.

    The layer `all` has the parameters of all layers; `all_but_embedding` leaves out the word embedding. A part without
    parameters is left out.
    """
    layers, embedding = Layers.of(task, network), task.model.embedding_module(network)
    groups = {name: [m for m in inside if m not in layers.frozen] for name, inside in layers.groups.items()}
    every = [module for inside in groups.values() for module in inside]
    if embedding in every:
        groups["all_but_embedding"] = [module for module in every if module != embedding]
    groups["all"] = every
    there = dict(network.named_parameters())
    found = {
        (layer, part): [name for module in inside if (name := f"{module}.{part}") in there]
        for layer, inside in groups.items()
        for part in PARTS
    }
    return {part: names for part, names in found.items() if names}


def check_layers(task: Task, network: nn.Module, where: str) -> None:
    """Form the gradients of two train examples at a fresh network. Raises InputError with `where` for an unsupported layer."""
    state = {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}
    rows = np.arange(min(N_CHECKED, len(task.splits["train"])))
    try:
        layer_sums(task, network, Checkpoint("", 0, 1.0, 1.0, state), "train", rows, N_CHECKED)
    except InputError as error:
        raise InputError(where, f"{error.where}: {error.problem}") from error


def layer_sums(
    task: Task,
    network: nn.Module,
    checkpoint: Checkpoint,
    split: str,
    rows: np.ndarray,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> LayerSums:
    """Return the sums over `rows` of `split` of the gradients of -log p(gold label), computed `batch_size` rows at a time."""
    parts = parts_of(task, network)
    modules = Layers.of(task, network).choose("all")
    source = GradientSource(task, network, [checkpoint], frozenset({"layers"}), frozenset(modules), device)
    labels, running = task.splits[split].labels, _Running(parts, dict(network.named_parameters()), device)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        running.add(source.shard(split, batch, labels[batch], batch_size).checkpoints[0].layers)
    return LayerSums({part: running.norms(part) for part in parts}, {part: running.cosine(part) for part in parts})


@dataclass
class _Running:
    """The sums so far. `directions`: for each (layer, part) the sum of the unit gradients, a tensor per parameter."""

    parts: Mapping[Part, Sequence[str]]
    parameters: Mapping[str, Tensor]
    device: torch.device | str
    directions: dict[Part, dict[str, Tensor]] = field(default_factory=dict)
    seen: dict[Part, list[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, names in self.parts.items():
            like = {name: self.parameters[name].detach() for name in names}
            self.directions[part] = {name: torch.zeros_like(p, device=self.device) for name, p in like.items()}
            self.seen[part] = []

    def add(self, layers: Mapping[str, LayerGradients]) -> None:
        """Add the gradients of a batch of examples, by module."""
        squares = {name: _squares(layers, name) for names in self.parts.values() for name in names}
        for part, names in self.parts.items():
            norms = np.sqrt(np.sum([squares[name] for name in names], axis=0))
            self.seen[part].append(norms)
            inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
            for name, total in self.directions[part].items():
                _add(layers, name, total, torch.as_tensor(inverse, dtype=total.dtype, device=total.device))

    def norms(self, part: Part) -> np.ndarray:
        """Return the gradient norm of every example: float64 [n]."""
        return np.concatenate(self.seen[part]) if self.seen[part] else np.zeros(0)

    def cosine(self, part: Part) -> float:
        """Return the mean over pairs of different examples, from |sum_i u_i|^2 = sum_i |u_i|^2 + sum over pairs of u_a . u_b."""
        norms = self.norms(part)
        if len(norms) < 2:
            return float("nan")
        length = sum(total.double().square().sum().item() for total in self.directions[part].values())
        return (length - int((norms > 0).sum())) / (len(norms) * (len(norms) - 1))


def _squares(layers: Mapping[str, LayerGradients], parameter: str) -> np.ndarray:
    """Return the squared norm of the gradient of one parameter for every example: float64 [n]."""
    module, _, kind = parameter.rpartition(".")
    if kind == "weight":
        return layers[module].squared_norm()
    return _bias(layers[module]).double().square().sum(1).cpu().numpy()


def _add(layers: Mapping[str, LayerGradients], parameter: str, total: Tensor, weights: Tensor) -> None:
    """Add the weighted sum over examples of the gradient of one parameter to `total`."""
    module, _, kind = parameter.rpartition(".")
    if kind == "weight":
        layers[module].add_to(total, weights)
    else:
        total.add_(weights @ _bias(layers[module]))


def _bias(gradients: LayerGradients) -> Tensor:
    found = gradients.bias_gradients
    if found is None:
        raise ValueError("a module has a parameter `bias` of which no gradient is known")
    return found
