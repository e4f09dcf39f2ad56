"""Checks on two training examples, before anything is trained, whether a method can be computed on a network."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from torch import nn

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import GradientSource
from influence.inverse_hessian import SolveOptions
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


def _check_gradients(method: CheckedMethod, task: Task, network: nn.Module, needs: frozenset[str]) -> None:
    chosen = method.chosen_layers(Layers.of(task, network)) if "layers" in needs else []
    weights = {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}
    source = GradientSource(task, network, [Checkpoint("", 0, 1.0, 1.0, weights)], needs, frozenset(chosen))
    rows = np.arange(min(N_EXAMPLES, len(task.splits["train"])))
    source.shard("train", rows, task.splits["train"].labels[rows])


def _check_curvature(options: SolveOptions, task: Task, network: nn.Module, queries: QueryBlock | None) -> None:
    if queries is None and options.parameters == "all" and overrides(task, Task.influence_parameters):
        return  # the task chooses by the queries, which are not known yet
    chosen = choose_parameters(task, network, options.parameters, queries)
    if isinstance(options.solver, Exact):
        options.solver.check_size(Curvature(task, Selection(network, chosen), options.batch_size, options.pass_size))
