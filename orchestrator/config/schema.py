"""The top level of a config file, the properties of a campaign that configs need, and the parsed config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from influence.base import Method
from influence.diagnostic import Diagnostic
from orchestrator.config.blocks import (
    Block,
    ComputeConfig,
    Label,
    QueriesConfig,
    RepeatsConfig,
    ScoresConfig,
    TrackingConfig,
)
from orchestrator.spending.meter import PricesConfig
from tasks.base import Component, Numerics
from tasks.observer import ObserverConfig
from tasks.task import TaskConfig


class Settings(Block):
    """The top level of a config file. Blocks of components (task, methods ...) are parsed by the class that they name."""

    name: Label
    campaign: str
    task: dict[str, Any]
    queries: QueriesConfig | None = None
    measurement: str | dict[str, Any] = "gold_probability"
    scores: ScoresConfig = ScoresConfig()
    methods: list[dict[str, Any]] = Field(default_factory=list)
    observe: list[dict[str, Any]] = Field(default_factory=list)
    diagnose: list[dict[str, Any]] = Field(default_factory=list)
    repeats: RepeatsConfig = RepeatsConfig(count=10)
    compute: ComputeConfig = ComputeConfig()
    prices: PricesConfig | None = None
    tracking: TrackingConfig | None = TrackingConfig()
    output: Annotated[str, StringConstraints(min_length=1)] = "runs"
    plugins: list[str] = Field(default_factory=list)


class QuerySettings(Settings):
    """The top level for a campaign about queries, which must give the queries and the methods."""

    queries: QueriesConfig = Field(...)
    methods: list[dict[str, Any]] = Field(..., min_length=1)


CONTROLS = ("random", "random_same_label")  # labels that reports and figures treat as controls
ABOUT_QUERIES = (
    "queries",
    "measurement",
    "scores",
    "methods",
    "diagnose",
)  # keys that only campaigns about queries have


class CampaignBlock(Component):
    """The part of a campaign that a config and an experiment use; `orchestrator.campaigns.base.Campaign` extends it.

    `asks_queries`: the campaign asks which training examples influence its queries according to its methods; without
    queries there are no scoring models. `judges_own_model`: scores are judged by retrains of the model that they were
    computed from. `gives_parents`: the campaign gives a parent to every retrain of an arm other than the first. A parent is
    a model that was trained before in another arm; the retrain starts from its weights. `adapts`: the campaign supports
    `repeats.target_se`. `has_references`: every seed has a reference, a retrain that removes nothing. `fills`: defaults of
    the campaign for keys at the top level of the config.
    """

    asks_queries: ClassVar[bool] = True
    judges_own_model: ClassVar[bool] = False
    gives_parents: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    has_references: ClassVar[bool] = False
    fills: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def task_variants(self, task: Mapping[str, Any], where: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the label of each arm -> its changes of the block `task`, {dotted key: value}.

        By default there is one arm without changes. Raises InputError that names `where`, the config file.
        """
        return {"": {}}

    def check(self, experiment: Any) -> None:
        """Check the campaign's options against the data, before anything is trained. Raises InputError."""

    def also_scored(self, methods: Mapping[str, Method]) -> Mapping[str, Method]:
        """Return label -> what the score stage computes besides the scores of the configured `methods`; by default nothing.

        It is stored like scores. The labels must not be allowed as labels of methods, so they contain a space.
        """
        return {}

    def chosen_queries(self, arm: Any, outcomes: Sequence[Any]) -> Any:
        """Return the queries of a scoring group that has judges, as a QueryBlock, from the outcomes of the judges in their order.

        An outcome may be one that failed. Raises InputError if there is no query.
        """
        raise NotImplementedError

    def scoring_groups(self, experiment: Any, numerics: Numerics) -> list[Any]:
        """Return the scoring models of the experiment in groups; by default there are none."""
        return []


@dataclass(frozen=True)
class LoadedConfig:
    """A config whose blocks have been parsed by the classes that they name. `raw` is the YAML with overrides applied.

    Without queries there are no measurement and no methods.
    """

    path: Path
    raw: Mapping[str, Any]
    settings: Settings
    task: TaskConfig
    measurement: Any
    methods: Mapping[str, Method]
    campaign: CampaignBlock
    where: str  # name of this config in error messages
    overrides: tuple[str, ...] = ()
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})  # label -> changes of the task
    observers: tuple[ObserverConfig, ...] = ()
    diagnostics: Mapping[str, Diagnostic] = field(default_factory=dict)  # label -> diagnostic of the scoring models

    @property
    def base_dir(self) -> Path:
        """The directory of the config file, to which data paths are relative."""
        return self.path.parent
