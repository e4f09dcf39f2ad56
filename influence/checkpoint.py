"""What methods are given besides the task: the weights of scoring models, the queries, and what a gradient shard can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# embedding: per-position gradients of the word embedding output with token ids; layers: weight gradients per layer and example;
# last: activations into and loss gradients at the logits; curvature: nothing in the shard, the method solves for its queries first.
NEEDS = ("embedding", "layers", "last", "curvature")


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one scoring model at one step.

    `weight` = learning rate at that step / number of scoring models: the factor of its term in a sum over checkpoints.
    """

    spec_id: str
    step: int
    learning_rate: float
    weight: float
    state: Mapping[str, np.ndarray]  # parameter name -> array; object-store friendly


@dataclass(frozen=True)
class QueryBlock:
    """The queries of a campaign: `split`, their `ids`, `rows` in that split, and the `labels` whose -log p is the query loss (gold or predicted)."""

    split: str
    ids: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
