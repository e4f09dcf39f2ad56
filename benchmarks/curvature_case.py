"""The case of benchmarks/curvature.py: random texts and the convolutional classifier, as arrays that any process can read.

This module imports torch and numpy only, because the process that runs pyDVL does not have Refit's packages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

N_QUERIES, DEPTH, BATCH_SIZE, THREADS = 16, 100, 64, 2
SCALE = 200.0  # above half of the largest eigenvalue of any batch, so that the recursion does not diverge


class PlainCNN(nn.Module):
    """The network of the model `text_cnn` in plain torch: token ids [n, length] with 0 for padding -> logits [n, n_classes]."""

    def __init__(self, state: dict[str, np.ndarray]):
        super().__init__()
        weights = {name: torch.from_numpy(array) for name, array in state.items()}
        self.embedding = nn.Embedding(*weights["embedding.weight"].shape)
        for name in ("conv1", "conv2", "conv3"):
            n_out, n_in, kernel = weights[f"{name}.weight"].shape
            setattr(self, name, nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2))
        n_classes, width = weights["linear.weight"].shape
        self.linear = nn.Linear(width, n_classes)
        self.load_state_dict(weights)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids)
        real = (ids != 0).to(embedded.dtype)
        hidden = (embedded * real.unsqueeze(2)).transpose(1, 2)
        for conv in (self.conv1, self.conv2, self.conv3):
            hidden = conv(hidden).relu() * real.unsqueeze(1)
        return self.linear(hidden.amax(2))


def chosen(names: list[str], everything: bool) -> list[str]:
    """Return the parameters of the Hessian: all, or those of convolutions and linear layer."""
    return [name for name in names if everything or not name.startswith("embedding")]


def double_backward(network: nn.Module, names: list[str], ids: Tensor, labels: Tensor, vectors: Tensor) -> Tensor:
    """Return the Hessian of the mean loss times each of `vectors` [q, P] by torch.autograd.grad twice: [q, P]."""
    values = [dict(network.named_parameters())[name].requires_grad_() for name in names]
    loss = nn.functional.cross_entropy(network(ids), labels)
    gradients = torch.autograd.grad(loss, values, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    rows = [torch.autograd.grad(flat @ vector, values, retain_graph=True) for vector in vectors]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a case."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def state_of(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights of the network."""
    return {name.removeprefix("state/"): array for name, array in case.items() if name.startswith("state/")}


def processor_seconds(work: Callable[[], object]) -> dict[str, float]:
    """Return processor and wall-clock seconds of one call."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - begun}
