"""Solves (H + damping I) x = g for the gradients g of queries, and computes scores from the solutions."""

from __future__ import annotations

import copy
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import loaded
from influence.parameters import Selection, choose_parameters
from influence.solvers import Solution, Solver
from tasks.base import Split
from tasks.errors import RefitError
from tasks.task import Task

log = logging.getLogger("refit")
Range = tuple[int, int]  # the positions [start, stop) of queries
Stored = Callable[[Checkpoint, Range], Solution | None]
QUERIES_AT_ONCE = 16


@dataclass(frozen=True)
class SolveOptions:
    """How a method solves for its queries: on which parameters, by which solver, and in batches of which size.

    `name` is that of the method, for log lines. `parameters` is "all", or patterns of parameter names. `batch_size`
    train rows are differentiated at once, along `pass_size` / rows vectors. `query_losses(task, network, split, rows,
    labels)` returns the loss of each query whose gradient is taken, [n]. `dropout` is the seed of the dropout masks in
    the derivatives of train losses, or None for evaluation mode. `queries_at_once` queries are solved together (None:
    all), which decides the last digits of their solutions.
    """

    name: str
    parameters: Literal["all"] | tuple[str, ...]
    solver: Solver
    batch_size: int
    pass_size: int
    query_losses: Callable[[Task, nn.Module, str, np.ndarray, np.ndarray], Tensor]
    dropout: int | None = None
    queries_at_once: int | None = None

    def ranges(self, n_queries: int) -> list[Range]:
        """Return the ranges of queries that are solved together: they cover [0, n_queries) and depend on no worker."""
        size = self.queries_at_once or max(n_queries, 1)
        return [(start, min(start + size, n_queries)) for start in range(0, n_queries, size)] or [(0, 0)]


@dataclass(frozen=True, eq=False)
class SolvedModel:
    """One scoring model: its `weight` in the mean over models, its curvature, and the solutions of consecutive ranges of the queries."""

    checkpoint: Checkpoint
    weight: float
    curvature: Curvature
    solutions: Sequence[Solution]

    @property
    def diverged(self) -> np.ndarray:
        """For which queries the solver diverged: bool [n_queries]."""
        return np.concatenate([solution.diverged for solution in self.solutions])

    def solution_of(self, query: int) -> Tensor:
        """Return s_q of one query, given by its position: [P]."""
        for solution in self.solutions:
            if query < len(solution.x):
                return solution.x[query]
            query -= len(solution.x)
        raise IndexError("there are fewer queries")


class QuerySolutions:
    """s_q = (H + damping I)^-1 grad L_q of every query at the weights of every scoring model.

    `diverged` bool [n_queries]: the solver diverged at some model. `diagnostics` are plain JSON values; for each model
    they hold the solver's diagnostics, with lists in the order of the queries.
    """

    def __init__(self, name: str, queries: QueryBlock, models: Sequence[SolvedModel]):
        self.models, self.n_queries = models, len(queries.ids)
        self.diverged = np.any([model.diverged for model in models], axis=0)
        self.diagnostics: dict[str, Any] = {
            "query_ids": [int(i) for i in queries.ids],
            "diverged": [int(i) for i in np.asarray(queries.ids)[self.diverged]],
            "models": [_diagnostics(model) for model in models],
        }
        _log(name, self.diagnostics)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Return (1/n) <s_q, grad l_i> of train rows, mean over models: float32 [n_queries, len(rows)]; NaN where diverged."""
        total = np.zeros((self.n_queries, len(rows)))
        for model in self.models:
            along = [model.curvature.derivatives(rows, solution.x) for solution in model.solutions]
            total += model.weight / len(model.curvature.ids) * torch.cat(along).double().cpu().numpy()
        total[self.diverged] = np.nan
        return total.astype(np.float32)

    def by_row(self, query: int, row: int) -> list[tuple[int, float]]:
        """Return (row of the parameter, its part of the score) of one pair, largest magnitude first, without zeros.

        Raises ValueError unless the selection is rows of one parameter.
        """
        total: dict[int, float] = {}
        for model in self.models:
            pieces, parts = model.curvature.selection.pieces, self._terms(model, query, row)
            if len(pieces) != 1 or pieces[0].rows is None:
                raise ValueError("contributions by row need rows of one parameter; other parameters are selected")
            for number, part in zip(pieces[0].rows.tolist(), parts.reshape(pieces[0].shape[0], -1).sum(1), strict=True):
                total[number] = total.get(number, 0.0) + float(part)
        if self.diverged[query]:
            return [(number, float("nan")) for number in total]
        return sorted(((n, part) for n, part in total.items() if part), key=lambda item: (-abs(item[1]), item[0]))

    def _terms(self, model: SolvedModel, query: int, row: int) -> np.ndarray:
        """Return the elementwise product of s_q and grad l_i, times the weight of the model / n: float64 [P]."""
        gradient = model.curvature.row_gradient(row)
        terms = (gradient.double() * model.solution_of(query).double()).cpu().numpy()
        return model.weight / len(model.curvature.ids) * terms


def in_float64(task: Task) -> Task:
    """Return a shallow copy of the task whose batches have all floating point entries in float64.

    The class of the copy is a subclass of the task's class that replaces `batch`. A wrapper around the task would not
    be enough, because the task's own methods would still call its `batch` in the dtype of the data.
    """

    def batch(_: Task, split: str, rows: np.ndarray, **options: Any) -> dict[str, Tensor]:
        """Return the task's batch of `rows`, floating point entries as float64."""
        found = task.batch(split, rows, **options)
        return {name: entry.double() if entry.is_floating_point() else entry for name, entry in found.items()}

    twin = copy.copy(task)
    # an attribute of the instance would take precedence over the method of the class
    getattr(twin, "__dict__", {}).pop("batch", None)
    kind = type(task)
    # the class adds no slots and no dictionary, since `__class__` can be assigned only between equal layouts
    members = {"__module__": kind.__module__, "__slots__": (), "batch": batch}
    made = types.new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(members))
    object.__setattr__(twin, "__class__", made)  # a frozen dataclass refuses its own __setattr__
    return twin


class QuerySolver:
    """Solves for ranges of some queries at the weights of scoring models, in float64 if the solver requires it.

    The parameters are chosen by all queries, also if only some of them are solved here. Raises InputError if a pattern
    matches no parameter.
    """

    def __init__(self, options: SolveOptions, task: Task, queries: QueryBlock, device: torch.device | str = "cpu"):
        self._options, self._queries, self._device = options, queries, device
        fresh = task.network(0)
        if options.solver.float64:
            task, fresh = in_float64(task), fresh.double()
        self._task, self._fresh = task, fresh
        self._chosen = choose_parameters(task, fresh, options.parameters, queries)

    def curvature(self, checkpoint: Checkpoint) -> Curvature:
        """Return the curvature of the train objective at the weights of one scoring model."""
        selection = Selection(loaded(self._fresh, checkpoint, self._device), self._chosen)
        options = self._options
        return Curvature(self._task, selection, options.batch_size, options.pass_size, options.dropout)

    def solve(self, curvature: Curvature, start: int, stop: int) -> Solution:
        """Return the solutions of queries [start, stop). Raises InputError if the solver refuses, RefitError if a gradient is not finite."""
        some, part = self._queries, slice(start, stop)
        queries = QueryBlock(some.split, some.ids[part], some.rows[part], some.labels[part])
        return self._options.solver.solve(curvature, _gradients(self._options, curvature, queries))


def solve_queries(
    options: SolveOptions,
    task: Task,
    checkpoints: Sequence[tuple[Checkpoint, float]],
    queries: QueryBlock,
    device: torch.device | str = "cpu",
    stored: Stored = lambda checkpoint, part: None,
) -> QuerySolutions:
    """Solve for all queries at each (checkpoint, weight), one range of queries after the other.

    `stored` returns solutions that are known already, on any device, or None. Raises InputError if the solver refuses or
    a pattern matches no parameter, RefitError if a gradient is not finite.
    """
    solver, models = QuerySolver(options, task, queries, device), []
    for checkpoint, weight in checkpoints:
        curvature, solutions = solver.curvature(checkpoint), []
        for part in options.ranges(len(queries.rows)):
            found = stored(checkpoint, part) or solver.solve(curvature, *part)
            solutions.append(replace(found, x=found.x.to(curvature.theta.device)))
        models.append(SolvedModel(checkpoint, weight, curvature, solutions))
    return QuerySolutions(options.name, queries, models)


def _gradients(options: SolveOptions, curvature: Curvature, queries: QueryBlock) -> Tensor:
    """Return grad L_q of every query: [n_queries, P]."""
    found, asked = [curvature.theta.new_zeros(0, len(curvature.theta))], curvature.task.splits[queries.split]
    for start in range(0, len(queries.rows), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        rows, labels = np.asarray(queries.rows[part], np.int64), np.asarray(queries.labels[part], np.int64)
        losses = _losses(options, curvature, queries.split, rows, labels)
        with torch.no_grad():
            check_finite("the loss", losses(curvature.selection.network)[:, None], queries.ids[part], asked)
        found.append(curvature.gradients(losses))
        check_finite("the gradient of the loss", found[-1], queries.ids[part], asked)
    return torch.cat(found)


def check_finite(what: str, values: Tensor, ids: np.ndarray, split: Split) -> None:
    """Raise RefitError naming the first query whose row of `values` [n_queries, ...] is not finite."""
    bad = ~values.isfinite().all(1).cpu().numpy()
    if bad.any():
        raise RefitError(f"{what} of query {split.shown_id(np.asarray(ids)[bad][0])} is not finite")


def _losses(
    options: SolveOptions, curvature: Curvature, split: str, rows: np.ndarray, labels: np.ndarray
) -> Callable[[Any], Tensor]:
    return lambda network: options.query_losses(curvature.task, network, split, rows, labels)


def _diagnostics(model: SolvedModel) -> dict[str, Any]:
    point, curvature = model.checkpoint, model.curvature
    where = {"spec_id": point.spec_id, "step": point.step, "n_parameters": len(curvature.theta)}
    joined = joined_diagnostics([solution.diagnostics for solution in model.solutions])
    return {**where, "n_train_touching": int(curvature.touching.sum()), **joined}


def joined_diagnostics(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the diagnostics of one solver over consecutive ranges of queries as those over all queries.

    Lists have one entry per query and are joined; counts of products are added up; everything else is the same in all.
    """
    joined = dict(parts[0])
    for part in parts[1:]:
        for key, value in part.items():
            if isinstance(value, list):
                joined[key] = joined[key] + value
            elif isinstance(value, dict):
                joined[key] = {name: joined[key][name] + count for name, count in value.items()}
    return joined


def _log(name: str, diagnostics: dict[str, Any]) -> None:
    n_queries = len(diagnostics["query_ids"])
    for model in diagnostics["models"]:
        known = [residual for residual in model["residual"] if residual is not None]
        log.info(
            "%s: %d queries solved by %s on %d parameters, effective damping %g, largest residual %s",
            *(
                name,
                n_queries,
                model["solver"],
                model["n_parameters"],
                model["effective_damping"],
                f"{max(known):.2g}" if known else "unknown",
            ),
        )
        unfinished = n_queries - sum(model.get("converged", [True] * n_queries))
        if unfinished > len(diagnostics["diverged"]):
            log.warning("%s: %d of %d queries did not converge", name, unfinished, n_queries)
    if diagnostics["diverged"]:
        ids = ", ".join(map(str, diagnostics["diverged"][:10]))
        log.warning(
            "%s: the solver diverged for %d of %d queries, which have no scores (%s): raise the damping, or the scale",
            *(name, len(diagnostics["diverged"]), n_queries, ids),
        )
