"""The base class of diagnostics of scoring models, and what they are given. Imports no torch."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.matrix import ScoreMatrix
from tasks.base import Component
from tasks.errors import InputError
from tasks.hooks import refuse_misspelt
from tasks.suggestions import did_you_mean, listed
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

Table = Mapping[str, Sequence[Any]]  # column -> one plain JSON value per row; None where there is no value


@dataclass(frozen=True)
class Panels:
    """A figure of a diagnostic's first table: one panel per column in `values`, with a dot for every row of the table.

    The column `rows`, or several together, names the places on the vertical axis; a larger dot is the
    mean of the rows of the table that agree in `rows` and `series`. The values of `series` ("" for none) have different colours. `log`: those of `values`
    that are drawn on a logarithmic axis. If the table has an interval of a value (<value>_ci_low, <value>_ci_high), it is
    drawn too.
    """

    rows: str | tuple[str, ...]
    values: tuple[str, ...]
    series: str = ""
    log: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scatter:
    """A figure of the table `table`: a dot at (`x`, `y`) for every row, and one panel per combination of values in `panels`.

    Each panel also has one line through the points (`x`, `line`) of its rows, in the order of `x`; `line` is the column with its
    heights, such as fitted values. The values of `series` ("" for none) have different colours.
    """

    table: str
    panels: tuple[str, ...]
    x: str
    y: str
    line: str
    series: str = ""


@dataclass(frozen=True)
class QueryMeans:
    """A table of means over queries with 95% intervals. Refit makes it from the diagnostic's table `of`, which has a column query_id.

    It has a row per combination of values in `by`, with the mean of each column in `values`; the values of one query are
    averaged first, so that every query counts equally. `totals`: those of `by` that also get rows for all their values
    together, which are called "all". `compared`: the one of `by` whose values are compared in pairs within each query,
    in a second table called `<name>_contrasts`; "" for none. `shares`: those of `values` that are shares of trials, and the
    column with the number of trials ("" for one trial per query); their intervals lie in [0, 1].
    """

    of: str
    by: tuple[str, ...]
    values: tuple[str, ...]
    totals: tuple[str, ...] = ()
    compared: str = ""
    shares: Mapping[str, str] = field(default_factory=dict)


class ScoresQueries(Protocol):
    """Computes the scores of a method for queries other than those of the campaign."""

    def __call__(
        self,
        task: Task,
        method: Method,
        checkpoints: Sequence[Checkpoint],
        queries: QueryBlock,
        device: torch.device | str,
    ) -> np.ndarray:
        """Return float32 [n_queries, n_train]; a row of NaN for a query without scores."""
        ...


@dataclass(frozen=True)
class ScoredModels:
    """The input of a diagnostic: the scoring models of one group, with what was computed from them.

    `checkpoints` are ordered by model and then by step. `methods` and `scores` (label -> method, label -> score matrix)
    hold the labels that `Diagnostic.reads_scores_of` has returned. `score_queries` computes the scores of further queries.
    """

    task: Task
    checkpoints: Sequence[Checkpoint]
    queries: QueryBlock
    methods: Mapping[str, Method] = field(default_factory=dict)
    scores: Mapping[str, ScoreMatrix] = field(default_factory=dict)
    device: torch.device | str = "cpu"
    score_queries: ScoresQueries | None = None

    @property
    def models(self) -> list[list[Checkpoint]]:
        """The checkpoints of each scoring model, in the order of their steps."""
        specs = dict.fromkeys(checkpoint.spec_id for checkpoint in self.checkpoints)
        return [[one for one in self.checkpoints if one.spec_id == spec_id] for spec_id in specs]

    @property
    def last(self) -> list[Checkpoint]:
        """The last checkpoint of each scoring model."""
        return [checkpoints[-1] for checkpoints in self.models]


class Diagnostic(Component):
    """Computes tables about scoring models from their checkpoints and scores; it trains nothing and changes no score.

    A subclass must define `compute`. The other methods and attributes are hooks with defaults; a misspelt hook is
    refused when the class is defined.

    `uses_queries`: the tables depend on the queries. `labels`: the columns of the first table that identify a row; the
    other numeric columns are values in MLflow. `explained`: one or two sentences for the report on how to read the
    tables. `figure`: the figure of the report, drawn from the first table, or for a Scatter from the table that it names;
    None for no figure. `query_means`: tables of means over queries by their name; the one called "" becomes the first table.
    `marked_table`: the name of a table with columns query_id, start, end (characters of the query's text) and `marked_column`,
    a number: the report then shows the text of every query with its tokens coloured by this number; "" for none.
    """

    uses_queries: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = ()
    explained: ClassVar[str] = ""
    figure: ClassVar[Panels | Scatter | None] = None
    query_means: ClassVar[Mapping[str, QueryMeans]] = MappingProxyType({})
    marked_table: ClassVar[str] = ""
    marked_column: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Diagnostic, cls.model_fields)

    def check(self, task: Task, base_dir: Path, methods: Mapping[str, Method], n_checkpoints: int, where: str) -> None:
        """Refuse options that do not fit the task, the methods with scores, or the number of checkpoints per model.

        It is called before anything is trained, without torch. Raises InputError with `where` (file and dotted key).
        """

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Refuse what can be checked only on a fresh network of the prepared task. Raises InputError with `where`."""

    def reads_scores_of(self, methods: Mapping[str, Method]) -> list[str]:
        """Return the labels of the methods whose scores it reads; by default none."""
        return []

    def functions(self) -> Mapping[str, str]:
        """Return option -> "module:function" of the user's own functions that it calls; their modules must be listed as plugins."""
        return {}

    @property
    def made_of(self) -> tuple[Any, ...]:
        """The diagnostic and the user's functions that it calls: everything whose source decides on the tables."""
        return (self, *map(function_named, self.functions().values()))

    @abstractmethod
    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return the tables by name, the main one first. They depend on `models` and the options only.

        The main one has the name ""; it is left out if `query_means` makes it.
        """


def function_named(name: str) -> Any:
    """Return a function "module:function" that the config has loaded (tasks.registry.load_function)."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def require_labels(labels: Sequence[str] | None, methods: Mapping[str, Method], where: str) -> None:
    """Raise InputError if one of `labels` is not the label of a method with scores, or if there is no method to diagnose.

    There is none if `labels` or `methods` is empty. `labels` may be None, by which a user leaves the choice to the diagnostic.
    """
    unknown = [label for label in labels or () if label not in methods]
    if unknown:
        there = f"allowed: {listed(methods)}{did_you_mean(unknown[0], methods)}"
        raise InputError(f"{where}.methods", f"{unknown[0]!r} is no method with scores; {there}")
    if not methods or labels == ():
        raise InputError(f"{where}.methods", "names no method with scores, so there is no ranking to diagnose")


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the table whose rows are `rows`; all of them have the same keys."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
