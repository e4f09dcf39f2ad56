"""The last layer as a softmax regression on its inputs: one pass over the examples, then derivatives in closed form, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import BATCH_SIZE, GradientSource, last_name, loaded
from influence.inverse_hessian import QuerySolutions, SolvedModel, check_finite
from influence.parameters import Selection
from influence.solvers import Exact
from tasks.hooks import overrides
from tasks.task import Task

CPU_BATCH = 16  # the activations of an encoder then stay in a core's cache: 30% less time than with 64 rows


@dataclass(frozen=True, eq=False)
class LastLayerData:
    """What the last layer computes for n examples: its `inputs` [n, D] and its `logits` [n, C], float64; `labels` int64 [n].

    With a bias, the last of the D inputs is the constant 1. The loss of example i is -log softmax(logits_i)[labels_i].
    """

    inputs: Tensor
    logits: Tensor
    labels: Tensor

    @cached_property
    def probabilities(self) -> Tensor:
        """The softmax of the logits: [n, C]."""
        return self.logits.softmax(1)

    @cached_property
    def logit_gradients(self) -> Tensor:
        """The gradients of the losses with respect to the logits, p - e_label: [n, C]."""
        return self.probabilities - functional.one_hot(self.labels, self.logits.shape[1])


def read_train(
    task: Task, network: nn.Module, checkpoint: Checkpoint, bias: bool, device: torch.device | str
) -> LastLayerData:
    """Return the data of all train rows under their gold labels, in the order of the rows, from one forward pass.

    `network` is any network of the task; the weights are those of `checkpoint`. `bias`: with the constant input, if the
    layer has a bias. Raises InputError if the model has no last layer that gets one vector per example.
    """
    split = task.splits["train"]
    order = _by_length(task)
    found = _read(task, network, checkpoint, bias, device, "train", order, split.labels[order])
    places = torch.as_tensor(np.argsort(order), device=found.inputs.device)
    return LastLayerData(found.inputs[places], found.logits[places], found.labels[places])


def read_queries(
    task: Task, network: nn.Module, checkpoint: Checkpoint, bias: bool, device: torch.device | str, queries: QueryBlock
) -> LastLayerData:
    """Return the data of the queries under the labels of their query losses, as `read_train` does for train rows."""
    return _read(task, network, checkpoint, bias, device, queries.split, queries.rows, queries.labels)


def softmax_hessian(inputs: Tensor, probabilities: Tensor) -> Tensor:
    """Return (1/n) sum_i (diag(p_i) - p_i p_i^T) kron (a_i a_i^T) for `inputs` [n, D] and `probabilities` [n, C]: [C D, C D].

    It is the Hessian of the mean loss in the weights [C, D] of the last layer, row by row.
    """
    (n, width), n_classes = inputs.shape, probabilities.shape[1]
    hessian = inputs.new_empty(n_classes, width, n_classes, width)
    for c in range(n_classes):
        for k in range(c, n_classes):
            factors = probabilities[:, c] * (float(c == k) - probabilities[:, k])
            block = inputs.T @ (factors[:, None] * inputs) / n
            hessian[c, :, k], hessian[k, :, c] = block, block.T
    return hessian.view(n_classes * width, n_classes * width)


class LastLayerCurvature(Curvature):
    """The curvature of the train objective in the last layer, in closed form from `train`: no pass over the network.

    `selection` holds the layer's weight and, if `train` has the constant input, its bias. The penalty of the task, if it
    has one, is differentiated by torch.
    """

    def __init__(self, task: Task, selection: Selection, train: LastLayerData):
        super().__init__(task, selection)
        self.train, self.independent = train, False
        n_classes, width = selection.pieces[0].shape
        self._has_bias = train.inputs.shape[1] > width
        places = torch.arange(n_classes * train.inputs.shape[1], device=train.inputs.device).view(n_classes, -1)
        self._order = self._flat(places[None])[0]

    def dense(self) -> Tensor:
        """Return the Hessian of the train objective: float64 [P, P], symmetric."""
        hessian = softmax_hessian(self.train.inputs, self.train.probabilities)[self._order][:, self._order]
        if self.has_penalty:
            eye = torch.eye(len(self.theta), dtype=self.theta.dtype, device=self.theta.device)
            hessian += self.products(eye, np.zeros(0, np.int64)).double()
        return (hessian + hessian.T) / 2

    def derivatives(self, rows: np.ndarray, vectors: Tensor) -> Tensor:
        """Return <grad l_i, vector> of train rows along `vectors` [q, P]: float64 [q, len(rows)]."""
        at = torch.as_tensor(rows, device=self.train.inputs.device)
        inputs, deltas = self.train.inputs[at], self.train.logit_gradients[at]
        matrices = torch.empty_like(vectors)
        matrices[:, self._order] = vectors
        along = matrices.view(len(vectors), deltas.shape[1], -1) @ inputs.T
        return (along * deltas.T).sum(1)

    def gradients_of(self, data: LastLayerData) -> Tensor:
        """Return the gradients of the losses of `data`: float64 [n, P]."""
        return self._flat(data.logit_gradients[:, :, None] * data.inputs[:, None])

    def _flat(self, matrices: Tensor) -> Tensor:
        """Reorder [n, C, D] to [n, P]: the rows of the weight one after the other, then the bias, as in `selection`."""
        if not self._has_bias:
            return matrices.flatten(1)
        return torch.cat([matrices[:, :, :-1].flatten(1), matrices[:, :, -1]], 1)


def solve_last_layer(
    name: str,
    solver: Exact,
    bias: bool,
    task: Task,
    checkpoints: Sequence[tuple[Checkpoint, float]],
    queries: QueryBlock,
    device: torch.device | str = "cpu",
) -> QuerySolutions:
    """Solve for all queries at each (checkpoint, weight), on the last layer; `name` is that of the method, for log lines.

    Raises InputError if the solver refuses, RefitError if a gradient is not finite.
    """
    fresh, models = task.network(0), []
    for checkpoint, weight in checkpoints:
        train = read_train(task, fresh, checkpoint, bias, device)
        asked = read_queries(task, fresh, checkpoint, bias, device, queries)
        selection = Selection(loaded(fresh, checkpoint, device), dict.fromkeys(_parameters(task, fresh, bias)))
        curvature = LastLayerCurvature(task, selection, train)
        vectors = curvature.gradients_of(asked)
        check_finite("the gradient of the loss", vectors, queries.ids, task.splits[queries.split])
        models.append(SolvedModel(checkpoint, weight, curvature, [solver.solve(curvature, vectors)]))
    return QuerySolutions(name, queries, models)


def n_parameters(task: Task, network: nn.Module, bias: bool) -> int:
    """Return the number of weights of the last layer, with its biases if `bias`."""
    return sum(network.get_parameter(name).numel() for name in _parameters(task, network, bias))


def _parameters(task: Task, network: nn.Module, bias: bool) -> list[str]:
    """Return the names of the last layer's weight and, if `bias` and there is one, of its bias."""
    layer = last_name(task, network)
    has_bias = bias and network.get_submodule(layer).bias is not None
    return [f"{layer}.weight", *([f"{layer}.bias"] if has_bias else [])]


def _read(
    task: Task,
    network: nn.Module,
    checkpoint: Checkpoint,
    bias: bool,
    device: torch.device | str,
    split: str,
    rows: np.ndarray,
    labels: np.ndarray,
) -> LastLayerData:
    source = GradientSource(task, network, [checkpoint], frozenset({"last"}), device=device)
    size = CPU_BATCH if torch.device(device).type == "cpu" else BATCH_SIZE
    last = source.shard(split, rows, labels, size).checkpoints[0].last
    assert last is not None
    state = {
        name: torch.tensor(checkpoint.state[name], dtype=torch.float64, device=device)
        for name in _parameters(task, network, bias=True)
    }
    weight, *offsets = state.values()
    inputs = last.activations.double()
    # probabilities in float32 would not sum to one, and the gradient would leave the range of the Hessian
    logits = inputs @ weight.T + sum(offsets)
    if bias and offsets:
        inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
    return LastLayerData(inputs, logits, torch.as_tensor(labels, dtype=torch.int64, device=device))


def _by_length(task: Task) -> np.ndarray:
    """Return the train rows by number of tokens, then by id.

    Batches of equal lengths need little padding, and the batches do not depend on the order of the train set.
    """
    ids = task.splits["train"].ids
    if not overrides(task, Task.token_counts):
        return np.argsort(ids)
    lengths = np.asarray(task.token_counts("train").sum(axis=1)).ravel()
    return np.lexsort((ids, lengths))
