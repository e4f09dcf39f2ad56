"""What a config file holds: its top level, what it needs to know of a campaign, and the config as it is once it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from influence.base import Method
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
    """The top level of a config file; component blocks are parsed by the class they name."""

    name: Label
    campaign: str
    task: dict[str, Any]
    queries: QueriesConfig | None = None
    measurement: str | dict[str, Any] = "gold_probability"
    scores: ScoresConfig = ScoresConfig()
    methods: list[dict[str, Any]] = Field(default_factory=list)
    observe: list[dict[str, Any]] = Field(default_factory=list)
    repeats: RepeatsConfig = RepeatsConfig(count=10)
    compute: ComputeConfig = ComputeConfig()
    prices: PricesConfig | None = None
    tracking: TrackingConfig | None = TrackingConfig()
    output: Annotated[str, StringConstraints(min_length=1)] = "runs"
    plugins: list[str] = Field(default_factory=list)


class QuerySettings(Settings):
    """The top level for a campaign that asks about queries: it must say which, and by which methods."""

    queries: QueriesConfig = Field(...)
    methods: list[dict[str, Any]] = Field(..., min_length=1)


CONTROLS = ("random", "random_same_label")  # labels that reports and figures treat as controls
ABOUT_QUERIES = ("queries", "measurement", "scores", "methods")  # keys that other campaigns do not take


class CampaignBlock(Component):
    """What a config and an experiment need to know of a campaign; `orchestrator.campaigns.base.Campaign` is the whole of it.

    `asks_queries`: the campaign asks which training examples influence some test points, by some methods; without queries there
    are no scoring models. `judges_own_model`: scores are judged on retrains of the model they came from. `gives_parents`: retrains
    of arms beyond the first start from a parent's weights. `adapts`: it can take as many repeats as `repeats.target_se` needs.
    """

    asks_queries: ClassVar[bool] = True
    judges_own_model: ClassVar[bool] = False
    gives_parents: ClassVar[bool] = False
    adapts: ClassVar[bool] = False

    def task_variants(self, task: Mapping[str, Any], where: str) -> Mapping[str, Mapping[str, Any]]:
        """Label of an arm -> what it changes in the block `task`: {dotted key: value}. By default one arm, the task as it stands.

        Raises InputError with `where` (the config file).
        """
        return {"": {}}

    def check(self, experiment: Any) -> None:
        """Refuse what does not fit the data, before anything is trained. Raises InputError."""

    def scoring_groups(self, experiment: Any, numerics: Numerics) -> list[Any]:
        """The scoring models of the experiment, in groups; none by default."""
        return []


@dataclass(frozen=True)
class LoadedConfig:
    """A config whose every block has been parsed by the class it names. `raw` is the resolved YAML.

    A campaign that asks no queries has no measurement and no methods.
    """

    path: Path
    raw: Mapping[str, Any]
    settings: Settings
    task: TaskConfig
    measurement: Any
    methods: Mapping[str, Method]
    campaign: CampaignBlock
    where: str  # how errors name this config
    overrides: tuple[str, ...] = ()
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})  # label -> changes of the task
    observers: tuple[ObserverConfig, ...] = ()

    @property
    def base_dir(self) -> Path:
        """Where relative data paths resolve: the config file's directory."""
        return self.path.parent
