"""Whether a method can be computed on a network at all, found out on two training examples before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from influence.base import Checkpoint, Method, QueryBlock
from influence.curvature import Curvature
from influence.gradients import GradientSource
from influence.layers import Layers
from influence.parameters import Selection, choose_parameters
from tasks.base import Task
from tasks.errors import InputError

if TYPE_CHECKING:
    from influence.methods.influence_function import InfluenceFunction

N_EXAMPLES = 2  # one alone would not show a layer that has one row for the whole batch


def check_method(method: Method, task: Task, network: nn.Module, queries: QueryBlock | None, where: str) -> None:
    """Form the gradients that `method` needs of a fresh network, and choose the parameters that it solves on.

    `queries`: None where a model that is not trained yet judges them. Raises InputError with `where` (file and dotted key)
    when a chosen layer or parameter is not in the network, or its per-example gradients cannot be formed.
    """
    try:
        needs = method.needs - {"curvature"}
        if needs:
            _check_gradients(method, task, network, needs)
        if "curvature" in method.needs:
            _check_curvature(method, task, network, queries)  # type: ignore[arg-type]
    except InputError as error:
        if error.where.partition(".")[0] in type(method).model_fields:
            raise InputError(f"{where}.{error.where}", error.problem) from error
        raise InputError(where, f"{method.name}: {error.where}: {error.problem}") from error


def _check_gradients(method: Any, task: Task, network: nn.Module, needs: frozenset[str]) -> None:
    layers, chosen = Layers.of(task, network), []
    if "layers" in needs:
        chosen = method.chosen_layers(layers) if hasattr(method, "chosen_layers") else layers.choose("all")
    weights = {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}
    source = GradientSource(task, network, [Checkpoint("", 0, 1.0, 1.0, weights)], needs, frozenset(chosen))
    rows = np.arange(min(N_EXAMPLES, len(task.splits["train"])))
    source.shard("train", rows, task.splits["train"].labels[rows])


def _check_curvature(method: InfluenceFunction, task: Task, network: nn.Module, queries: QueryBlock | None) -> None:
    if queries is None and method.parameters == "all" and hasattr(task, "influence_parameters"):
        return  # the task chooses by the queries
    chosen = choose_parameters(task, network, method.parameters, queries)  # type: ignore[arg-type]
    check_size = getattr(method.solver, "check_size", None)
    if check_size is not None:
        check_size(Curvature(task, Selection(network, chosen), method.batch_size, method.pass_size))
