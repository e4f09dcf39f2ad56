"""Gradient cosines between train examples during training, which continues as if they had not been computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from influence.capture import capture, check_supported, layer_gradients
from influence.layers import Layers
from influence.products import LayerGradients, cosines
from tasks.task import Task

BATCH_SIZE = 64


def train_cosines(
    task: Task,
    network: nn.Module,
    probes: np.ndarray,
    examples: np.ndarray,
    layers: str | Sequence[str] = "all",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Return cos(grad -log p(label_q), grad -log p(label_i)) in evaluation mode: float64 [n_probes, n_examples].

    `probes`, `examples` are int64 rows of the train split. `layers` selects modules as in a method, weights and biases.
    Raises InputError for a layer that does not exist or has no per-example gradients.
    """
    found = Layers.of(task, network)
    names = found.choose(layers)
    task = found.task_for(task, names)
    modules = {name: network.get_submodule(name) for name in names}
    for name, module in modules.items():
        check_supported(name, module)
    products, squares = np.zeros((len(probes), len(examples))), np.zeros(len(examples))
    with frozen_for_evaluation(network):
        ours = [(part, TrainPass(task, network, modules, probes[part], device)) for part in _parts(len(probes))]
        probe_squares = np.concatenate([np.zeros(0), *(passed.squared_norms() for _, passed in ours)])
        for columns in _parts(len(examples)):
            theirs = TrainPass(task, network, modules, examples[columns], device)
            for name in modules:
                gradients = theirs.gradients(name)
                squares[columns] += gradients.squared_norm(bias=True)
                for rows, passed in ours:
                    # computed anew for each batch: keeping those of all layers would need the memory of n_probes
                    # networks
                    probe = passed.gradients(name)
                    products[rows, columns] += probe.dot(gradients, bias=True)  # pyright: ignore[reportArgumentType]
    return cosines(products, probe_squares, squares)


class TrainPass:
    """One forward and backward pass over some train rows, and the gradients of each module from it."""

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        modules: Mapping[str, nn.Module],
        rows: np.ndarray,
        device: torch.device | str,
    ):
        batch = task.batch("train", rows, device=device)
        _, self._calls = capture(modules, lambda: task.logits(network, batch), batch["labels"])
        self._modules = modules

    def gradients(self, name: str) -> LayerGradients:
        """Return the per-example gradients of one module."""
        return layer_gradients(name, self._modules[name], self._calls[name])

    def squared_norms(self) -> np.ndarray:
        """Return squared norms of the gradients over all modules, biases included: float64 [n_rows]."""
        return np.sum([self.gradients(name).squared_norm(bias=True) for name in self._modules], axis=0)


@contextmanager
def frozen_for_evaluation(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode and freeze all parameters inside; restore the mode of each module and the flag of each parameter after."""
    modes = [(module, module.training) for module in network.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in trained:
            parameter.requires_grad_(flag)


def _parts(n: int) -> list[slice]:
    return [slice(start, min(start + BATCH_SIZE, n)) for start in range(0, n, BATCH_SIZE)]
