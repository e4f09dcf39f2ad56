"""The saliency of the tokens of an example: the gradient of the loss with respect to a word embedding times the embedding.

Han et al. 2020, section 2.1; Shrikumar et al. 2017 (gradient x input).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from influence.capture import capture
from influence.checkpoint import Checkpoint
from influence.gradients import embedding_name, loaded
from tasks.task import Task


def token_saliency(
    task: Task,
    checkpoints: Sequence[Checkpoint],
    split: str,
    rows: np.ndarray,
    labels: np.ndarray,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> list[np.ndarray]:
    """Return the saliency of every position of every row, special tokens and padding included: float64 [length] per row.

        saliency_t = -sum_j (d l / d e_tj) e_tj,    l = -log p(label)

    e_t is the output of the word embedding at position t, before position embeddings and normalisation. A positive value
    supports the label: to first order, the loss would rise by it if e_t became zero. The mean over `checkpoints`, without
    normalisation. `labels` int64 [n_rows]. Raises InputError if the model has no word embedding.
    """
    rows, labels = np.asarray(rows, np.int64), np.asarray(labels, np.int64)
    task = task.with_whole_network()  # the word embedding lies below a frozen trunk
    fresh = task.network(0)
    name = embedding_name(task, fresh)
    total: list[np.ndarray] = []
    cuts = [slice(start, start + batch_size) for start in range(0, len(rows), batch_size)]
    for checkpoint in checkpoints:
        network = loaded(fresh, checkpoint, device)
        batches = [_of_batch(task, network, name, split, rows[cut], labels[cut], device) for cut in cuts]
        found = [values for batch in batches for values in batch]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return [values / len(checkpoints) for values in total]


def normalised(saliency: np.ndarray) -> np.ndarray:
    """Return the saliency divided by its L1 norm over the positions of the example; zeros stay zero."""
    size = np.abs(saliency).sum()
    return saliency / size if size > 0 else saliency


def class_probabilities(
    task: Task, checkpoints: Sequence[Checkpoint], split: str, rows: np.ndarray, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return the class probabilities of `rows`, the mean over `checkpoints`: float64 [n_rows, n_classes]."""
    fresh, rows = task.network(0), np.asarray(rows, np.int64)
    total = np.zeros((len(rows), len(task.splits[split].classes)))
    for checkpoint in checkpoints:
        logits = task.outputs(loaded(fresh, checkpoint, device), split, rows, device=device).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        total += odds / odds.sum(axis=1, keepdims=True)
    return total / max(len(checkpoints), 1)


def _of_batch(
    task: Task,
    network: torch.nn.Module,
    name: str,
    split: str,
    rows: np.ndarray,
    labels: np.ndarray,
    device: torch.device | str,
) -> np.ndarray:
    """Return the saliency at every position of a batch: float64 [n_rows, length]."""
    batch, targets = task.batch(split, rows, device=device), torch.tensor(labels, device=device)
    _, calls = capture({name: network.get_submodule(name)}, lambda: task.logits(network, batch), targets)
    parts = [-(call.deltas * call.outputs).double().sum(-1) for call in calls[name] if call.deltas is not None]
    return torch.stack(parts).sum(0).cpu().numpy()
