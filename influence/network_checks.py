"""Checks on two training examples, before anything is trained, whether a method can be computed on a network."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import GradientSource, last_name
from influence.inverse_hessian import SolveOptions
from influence.last_layer import n_parameters
from influence.layers import Layers
from influence.parameters import Selection, choose_parameters
from influence.solvers import Exact
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.task import Task

N_EXAMPLES = 2  # a single example would not reveal a layer that has one row for the whole batch


class CheckedMethod(Protocol):
    """The part of a method that the check uses; `influence.base.Method` has all of it."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    def chosen_layers(self, layers: Layers) -> list[str]: ...

    def solve_options(self) -> SolveOptions: ...


def check_method(method: CheckedMethod, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
    """Form the gradients that `method` needs from a fresh network, and choose the parameters on which it solves.

    `queries` is None if a model that is not trained yet will select them. Raises InputError with `where` (file and
    dotted key) if a chosen layer or parameter is not in the network, or if its per-example gradients cannot be
    computed.
    """
    try:
        needs = method.needs - {"curvature"}
        if needs:
            _check_gradients(method, task, network, needs)
        if "curvature" in method.needs:
            _check_curvature(method.solve_options(), task, network, queries)
    except InputError as error:
        if error.where.partition(".")[0] in getattr(type(method), "model_fields", ()):
            raise InputError(f"{where}.{error.where}", error.problem) from error
        raise InputError(where, f"{method.name}: {error.where}: {error.problem}") from error


def check_last_layer(
    name: str, task: Task, network: nn.Module, bias: bool, max_parameters: int, where: str, block: str = ""
) -> None:
    """Check that the method called `name` can treat the last layer as a softmax regression.

    The layer must be linear, `task.losses` must be -log p(label) of its outputs, and its weights (with its biases if
    `bias`) at most `max_parameters`, an option of the method or of its `block`. Raises InputError with `where` (file
    and dotted key).
    """
    try:
        _form_gradients(task, network, frozenset({"last"}), frozenset())
        layer = last_name(task, network)
    except InputError as error:
        raise InputError(where, f"{name}: {error.where}: {error.problem}") from error
    if not isinstance(module := network.get_submodule(layer), nn.Linear):
        raise InputError(where, f"{name} needs a Linear last layer; {layer} is a {type(module).__name__}")
    if not module.weight.requires_grad:
        problem = f"{name} is about the weights of the last layer, but {layer} is frozen and no example changes it"
        raise InputError(where, f"{problem}; take it out of task.model.freeze")
    if (size := n_parameters(task, network, bias)) > max_parameters:
        key = ".".join([part for part in (where, block, "max_parameters") if part])
        problem = f"{max_parameters} is too small: the last layer has {size} parameters"
        raise InputError(key, f"{problem}; a matrix of {size} x {size} numbers takes {8e-9 * size**2:.1f} GB")
    if not _is_cross_entropy(task, network):
        raise InputError(where, f"{name} needs the train loss -log p(label) of the logits; the task has another loss")


def _is_cross_entropy(task: Task, network: nn.Module) -> bool:
    """Return whether `task.losses` are the cross-entropies of the logits, on two train rows in evaluation mode."""
    batch, was_training = (
        task.batch("train", _examples(task), device=next(network.parameters()).device),
        network.training,
    )
    network.eval()
    try:
        with torch.no_grad():
            losses = task.losses(network, batch)
            expected = functional.cross_entropy(task.logits(network, batch), batch["labels"], reduction="none")
    finally:
        network.train(was_training)
    return losses.shape == expected.shape and bool(torch.allclose(losses, expected, rtol=1e-4, atol=1e-6))


def _check_gradients(method: CheckedMethod, task: Task, network: nn.Module, needs: frozenset[str]) -> None:
    chosen = method.chosen_layers(Layers.of(task, network)) if "layers" in needs else []
    _form_gradients(task, network, needs, frozenset(chosen))


def _form_gradients(task: Task, network: nn.Module, needs: frozenset[str], chosen: frozenset[str]) -> None:
    weights = {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}
    source = GradientSource(task, network, [Checkpoint("", 0, 1.0, 1.0, weights)], needs, chosen)
    rows = _examples(task)
    source.shard("train", rows, task.splits["train"].labels[rows])


def _examples(task: Task) -> np.ndarray:
    return np.arange(min(N_EXAMPLES, len(task.splits["train"])))


def _check_curvature(options: SolveOptions, task: Task, network: nn.Module, queries: QueryBlock | None) -> None:
    if queries is None and options.parameters == "all" and overrides(task, Task.influence_parameters):
        return  # the task chooses by the queries, which are not known yet
    chosen = choose_parameters(task, network, options.parameters, queries)
    if isinstance(options.solver, Exact):
        options.solver.check_size(Curvature(task, Selection(network, chosen), options.batch_size, options.pass_size))
