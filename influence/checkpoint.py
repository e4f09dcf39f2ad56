"""The inputs of influence methods besides the task: the weights of scoring models, the queries, and what methods can need.

A scoring model is trained on the whole train set, and methods compute their scores from its weights. A gradient shard
holds the per-example gradients of some rows of a split (influence.gradients.GradientShard).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The values that `Method.needs` may contain; each names something that the method needs for its scores. The first three
# say which gradients a gradient shard must hold. embedding: the gradient at the output of the word embedding for every
# position, with the token ids. layers: the weight gradients per layer and example. last: the input of the layer that
# computes the logits, and the gradient of the loss with respect to the logits. curvature: the shard holds no gradients
# for this need; the method itself solves a linear system with the Hessian for its queries (Method.solve).
NEEDS = ("embedding", "layers", "last", "curvature")


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one scoring model after one training step.

    `weight` = learning rate at that step / number of scoring models: the factor of its term in a sum over checkpoints.
    """

    spec_id: str
    step: int
    learning_rate: float
    weight: float
    state: Mapping[str, np.ndarray]  # parameter name -> array, which Ray's object store can share


@dataclass(frozen=True)
class QueryBlock:
    """The queries of a campaign.

    `split` holds them; `ids` are their ids and `rows` their rows in that split; `labels` (gold or predicted) define the
    query loss -log p(label).
    """

    split: str
    ids: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
