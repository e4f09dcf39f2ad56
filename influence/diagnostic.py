"""The base class of diagnostics of scoring models, and what they are given. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.matrix import ScoreMatrix
from tasks.base import Component
from tasks.hooks import refuse_misspelt
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

Table = Mapping[str, Sequence[Any]]  # column -> one plain JSON value per row; None where there is no value


@dataclass(frozen=True)
class Panels:
    """A figure of a diagnostic's first table: one panel per column in `values`, with a dot for every row of the table.

    The column `rows` names the places on the vertical axis; rows of the table that agree in `rows` and `series` are
    averaged, and the values of `series` ("" for none) have different colours. `log`: those of `values` that are drawn
    on a logarithmic axis.
    """

    rows: str
    values: tuple[str, ...]
    series: str = ""
    log: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ScoredModels:
    """The input of a diagnostic: the scoring models of one group, with what was computed from them.

    `checkpoints` are ordered by model and then by step. `methods` and `scores` (label -> method, label -> score matrix)
    hold the labels that `Diagnostic.reads_scores_of` has returned.
    """

    task: Task
    checkpoints: Sequence[Checkpoint]
    queries: QueryBlock
    methods: Mapping[str, Method] = field(default_factory=dict)
    scores: Mapping[str, ScoreMatrix] = field(default_factory=dict)
    device: torch.device | str = "cpu"

    @property
    def models(self) -> list[list[Checkpoint]]:
        """The checkpoints of each scoring model, in the order of their steps."""
        specs = dict.fromkeys(checkpoint.spec_id for checkpoint in self.checkpoints)
        return [[one for one in self.checkpoints if one.spec_id == spec_id] for spec_id in specs]


class Diagnostic(Component):
    """Computes tables about scoring models from their checkpoints and scores; it trains nothing and changes no score.

    A subclass must define `compute`. The other methods and attributes are hooks with defaults; a misspelt hook is
    refused when the class is defined.

    `uses_queries`: the tables depend on the queries. `labels`: the columns of the first table that identify a row; the
    other numeric columns are values in MLflow. `explained`: one or two sentences for the report on how to read the
    tables. `figure`: the figure of the report, drawn from the first table; None for no figure.
    """

    uses_queries: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = ()
    explained: ClassVar[str] = ""
    figure: ClassVar[Panels | None] = None

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

    @abstractmethod
    def compute(self, models: ScoredModels) -> Mapping[str, Table]:
        """Return the tables by name, the main one first, with the name "". They depend on `models` and the options only."""
