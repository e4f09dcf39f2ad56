"""The blocks of a config file that are no components: queries, scores, repeats, compute, tracking."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Block(BaseModel):
    """A mapping of the config file: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WhereConfig(Block):
    """Which measured points may be queries, judged by the first scoring model."""

    correct: bool | None = None
    probability: tuple[float, float] | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> WhereConfig:
        if self.probability and not 0 <= self.probability[0] < self.probability[1] <= 1:
            raise ValueError("probability: two numbers, 0 <= low < high <= 1")
        return self


class QueriesConfig(Block):
    """Which test points are explained.

    `ids` as the data has them, or a draw of `per_class` or `count` (or `all`) from the measured rows of `split`, after
    `where`.
    """

    split: str = "test"
    ids: tuple[int | str, ...] | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None
    count: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    seed: Seed = 0
    where: WhereConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> QueriesConfig:
        chosen = [name for name in ("ids", "per_class", "count") if getattr(self, name) is not None]
        if len(chosen) > 1 or (not chosen and self.where is None):
            raise ValueError("give exactly one of ids, per_class, count (where alone takes every point that fits)")
        if self.ids is not None and (not self.ids or len(set(self.ids)) != len(self.ids)):
            raise ValueError("ids: at least one, each once")
        if self.ids is not None and self.where is not None:
            raise ValueError("ids and where exclude each other")
        return self


class ScoresConfig(Block):
    """Scoring models: how many, from which seed, and the epochs whose weights multi-checkpoint methods use (default: the last)."""

    models: Annotated[int, Field(ge=1, le=1000)] = 1
    checkpoints: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    seed: Seed = 0
    rows_per_shard: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _distinct(self) -> ScoresConfig:
        if self.checkpoints is not None and (
            not self.checkpoints or len(set(self.checkpoints)) != len(self.checkpoints)
        ):
            raise ValueError("checkpoints: at least one epoch, each once")
        return self


class RepeatsConfig(Block):
    """How often every retrain is repeated with another seed: a count, literal seeds, or as often as `target_se` asks for.

    `target_se`: the standard error over seeds, for these queries, at which a curve needs no more repeats; at least `min`, at
    most `max` are made. Only the fixed designs are in the papers.
    """

    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    base_seed: Seed = 2021
    seeds: tuple[Seed, ...] | None = None
    min: Annotated[int, Field(ge=3, le=100_000)] | None = None
    max: Annotated[int, Field(ge=3, le=100_000)] | None = None
    target_se: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> RepeatsConfig:
        adaptive = [value is not None for value in (self.min, self.max, self.target_se)]
        if any(adaptive) and not all(adaptive):
            raise ValueError("give min, max and target_se together")
        if [self.count is not None, self.seeds is not None, all(adaptive)].count(True) != 1:
            raise ValueError("give one of count (with base_seed), seeds, or min, max and target_se (with base_seed)")
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) != len(self.seeds)):
            raise ValueError("seeds: at least one, each once")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @property
    def is_adaptive(self) -> bool:
        """Whether the ledger decides how many repeats there are."""
        return self.target_se is not None

    @property
    def most(self) -> int:
        """The largest number of repeats there can be."""
        return len(self.seeds) if self.seeds is not None else self.count or self.max or 0


Market = Literal["spot", "on-demand"]


class MarketConfig(Block):
    """Which machines of a cluster do what, by the label ray.io/market-type; null: any.

    `tail`: the last retrains, when there are no more of them than workers.
    """

    gradients: Market | None = None
    retrains: Market | None = None
    tail: Market | None = None


class ComputeConfig(Block):
    """Workers, what each gets, and when to give up. Not part of any identity but for threads, device and micro-batch."""

    workers: Annotated[int, Field(ge=1, le=100_000)] = 2
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    device: Literal["cpu", "cuda"] | None = None
    micro_batch: Annotated[int, Field(ge=0)] = 0
    retries: Annotated[int, Field(ge=0)] = 2
    preemptions: Annotated[int, Field(ge=0)] = 20
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    start_timeout_s: Annotated[float, Field(gt=0)] | None = 1800.0
    snapshot_s: Annotated[float, Field(gt=0)] | None = 300.0
    accelerator: Annotated[str, StringConstraints(min_length=1)] | None = None
    market: MarketConfig = MarketConfig()
    pending_workers: Annotated[int, Field(ge=1)] = 16
    idle_s: Annotated[float, Field(ge=0)] = 60.0
    recycle_after: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _cuda_needs_a_gpu(self) -> ComputeConfig:
        if self.device == "cuda" and not self.gpus_per_worker:
            raise ValueError("device cuda needs gpus_per_worker above 0")
        return self

    @property
    def threads(self) -> int:
        """Threads of one worker: the whole part of its CPUs, at least one."""
        return max(1, math.floor(self.cpus_per_worker))

    @property
    def trains_on(self) -> str:
        """The device retrains run on: a GPU where workers have one, unless `device` says otherwise."""
        return self.device or ("cuda" if self.gpus_per_worker > 0 else "cpu")


class TrackingConfig(Block):
    """Where MLflow keeps its projection of the ledger."""

    uri: str = "sqlite:///runs/mlflow.db"
