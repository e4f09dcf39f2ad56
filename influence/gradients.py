"""Gradient shards. A shard holds the per-example gradients of some rows of a split at some checkpoints.

They are computed in batches; each batch needs one forward and one backward pass per checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from influence.capture import Call, capture, check_supported, layer_gradients
from influence.checkpoint import NEEDS, Checkpoint
from influence.layers import Layers
from influence.products import LayerGradients, TokenGradients, cat_layers
from tasks.errors import InputError
from tasks.task import Task

BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The two factors of the last layer's weight gradient, for n examples.

    `activations` [n, H] are the inputs of the last layer; `logit_gradients` [n, n_classes] are d loss / d logits.
    """

    activations: Tensor
    logit_gradients: Tensor


@dataclass(frozen=True, eq=False)
class CheckpointGradients:
    """Per-example gradients at one checkpoint.

    Methods such as TracIn sum a score over checkpoints; `weight` is the factor of this checkpoint's term in that sum.

    Fields that no method needs are empty. embedding: gradients of the word embedding per position; layers: weight
    gradients by module name; last: the factors of the last layer's gradient; embedding_weights: the weights of the word
    embedding at this checkpoint, [vocabulary, dim] (not a copy).
    """

    weight: float
    embedding: TokenGradients | None = None
    layers: Mapping[str, LayerGradients] = field(default_factory=dict)
    last: LastLayer | None = None
    embedding_weights: Tensor | None = None


@dataclass(frozen=True, eq=False)
class GradientShard:
    """Gradients of n examples: their `ids` and `rows` int64 [n], and one CheckpointGradients per checkpoint.

    `layers` describes all layers of the network, also those whose gradients the shard does not hold.
    """

    ids: np.ndarray
    rows: np.ndarray
    checkpoints: tuple[CheckpointGradients, ...]
    layers: Layers = field(default_factory=Layers)

    def __len__(self) -> int:
        return len(self.ids)

    def weighted(self, terms: Sequence[tuple[int, float]]) -> GradientShard:
        """Return the gradients at some checkpoints only; `terms` lists (position in `checkpoints`, weight) for each of them."""
        chosen = tuple(replace(self.checkpoints[position], weight=weight) for position, weight in terms)
        return replace(self, checkpoints=chosen)


class GradientSource:
    """Computes gradient shards: it holds one network per checkpoint, with the weights of that checkpoint.

    `needs` is the set of gradients that the shards must hold, a subset of influence.checkpoint.NEEDS. If it contains
    "layers", the argument `layers` names the modules whose weight gradients are captured. If `needs` is empty, `network`
    may be None and the shards hold no gradients. Raises InputError for a module whose per-example gradients cannot be
    computed, ValueError on an unknown need.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module | None,
        checkpoints: Sequence[Checkpoint],
        needs: frozenset[str],
        layers: frozenset[str] = frozenset(),
        device: torch.device | str = "cpu",
    ):
        unknown = needs - frozenset(NEEDS)
        if unknown:
            raise ValueError(f"needs {sorted(unknown)} are not among {', '.join(NEEDS)}")
        self.task, self.needs, self.device, self.layers = task, needs, device, Layers()
        self._networks: list[nn.Module] = []
        if not needs or network is None:
            return
        self.layers = Layers.of(task, network)
        self._chosen = sorted(layers) if "layers" in needs else []
        self._embedding = embedding_name(task, network) if "embedding" in needs else None
        self._last = last_name(task, network) if "last" in needs else None
        self._names = captured_modules(task, network, needs, self._chosen)
        for name in self._names:
            check_supported(name, network.get_submodule(name))
        self.task = self.layers.task_for(task, self._names)
        self.weights = [checkpoint.weight for checkpoint in checkpoints]
        self._networks = [loaded(network, checkpoint, device) for checkpoint in checkpoints]

    def shard(self, split: str, rows: np.ndarray, labels: np.ndarray, batch_size: int = BATCH_SIZE) -> GradientShard:
        """Return gradients of -log p(labels[i]) for rows[i] of `split`, in the order of `rows`.

        They are computed in batches of `batch_size` rows.
        """
        rows, labels = np.asarray(rows, np.int64), np.asarray(labels, np.int64)
        ids = self.task.splits[split].ids[rows]
        if not self._networks:
            return GradientShard(ids, rows, (), self.layers)
        cuts = [slice(start, start + batch_size) for start in range(0, max(len(rows), 1), batch_size)]
        batches = [self._batch(split, rows[cut], labels[cut]) for cut in cuts]
        checkpoints = tuple(_cat(parts) for parts in zip(*batches, strict=True))
        return GradientShard(ids, rows, checkpoints, self.layers)

    def _batch(self, split: str, rows: np.ndarray, labels: np.ndarray) -> list[CheckpointGradients]:
        batch = self.task.batch(split, rows, device=self.device)
        targets = torch.tensor(labels, device=self.device)
        pairs = zip(self._networks, self.weights, strict=True)
        return [self._gradients(network, weight, batch, targets) for network, weight in pairs]

    def _gradients(
        self, network: nn.Module, weight: float, batch: dict[str, Tensor], targets: Tensor
    ) -> CheckpointGradients:
        modules = {name: network.get_submodule(name) for name in self._names}
        _, calls = capture(modules, lambda: self.task.logits(network, batch), targets)
        wanted = [name for name in modules if name in self._chosen or name == self._embedding]
        found = {name: layer_gradients(name, modules[name], calls[name]) for name in wanted}
        embedding = found[self._embedding] if self._embedding else None
        assert embedding is None or isinstance(embedding, TokenGradients)
        last = _last_layer(self._last, calls[self._last]) if self._last else None
        words = modules[self._embedding].weight if self._embedding else None
        assert words is None or isinstance(words, Tensor)
        return CheckpointGradients(weight, embedding, {name: found[name] for name in self._chosen}, last, words)


def captured_modules(task: Task, network: nn.Module, needs: Collection[str], layers: Sequence[str]) -> list[str]:
    """Return the names of the modules whose calls are captured for `needs`; `layers` has those for the need "layers".

    Raises InputError if `needs` contains "embedding" and the model has no word embedding, or "last" and it has no last layer.
    """
    embedding = [embedding_name(task, network)] if "embedding" in needs else []
    last = [last_name(task, network)] if "last" in needs else []
    return [*(layers if "layers" in needs else []), *embedding, *last]


def embedding_name(task: Task, network: nn.Module) -> str:
    """Return the name of the word embedding. Raises InputError if the model has none."""
    name = task.model.embedding_module(network)
    if name is None:
        raise InputError(f"model {task.model.name}", "has no word embedding, which a method needs")
    return name


def last_name(task: Task, network: nn.Module) -> str:
    """Return the name of the layer onto the logits. Raises InputError if the model has none."""
    name = task.model.last_module(network)
    if name is None:
        raise InputError(f"model {task.model.name}", "has no last layer, which a method needs")
    return name


def loaded(network: nn.Module, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> nn.Module:
    """Return a copy of `network` with the checkpoint's weights, frozen and in evaluation mode.

    Raises ValueError if the weights do not fit.
    """
    network = copy.deepcopy(network)
    dtypes = {name: parameter.dtype for name, parameter in network.named_parameters()}
    state = {name: torch.tensor(array, dtype=dtypes.get(name)) for name, array in checkpoint.state.items()}
    result = network.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if name in dtypes]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"checkpoint {checkpoint.spec_id}@{checkpoint.step} does not fit the network: "
            f"missing {missing}, unexpected {result.unexpected_keys}"
        )
    return network.requires_grad_(False).eval().to(device)


def _last_layer(name: str, calls: Sequence[Call]) -> LastLayer:
    activations, deltas = calls[-1].inputs, calls[-1].deltas
    if deltas is None or activations.dim() != 2:
        raise InputError(
            f"layer {name}", f"the input of the last layer has shape {list(activations.shape)}; [n, H] is needed"
        )
    return LastLayer(activations, deltas)


def _cat(parts: Sequence[CheckpointGradients]) -> CheckpointGradients:
    first = parts[0]
    if len(parts) == 1:
        return first
    layers = {name: cat_layers([part.layers[name] for part in parts]) for name in first.layers}
    embedding = None
    if first.embedding is not None:
        embedding = TokenGradients.cat([part.embedding for part in parts if part.embedding is not None])
    lasts = [part.last for part in parts if part.last is not None]
    last = None
    if lasts:
        fields = ("activations", "logit_gradients")
        last = LastLayer(*(torch.cat([getattr(part, name) for part in lasts]) for name in fields))
    return CheckpointGradients(first.weight, embedding, layers, last, first.embedding_weights)
