"""The blocks of a config file with a fixed schema: queries, scores, repeats, compute and tracking."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Block(BaseModel):
    """A mapping in the config file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WhereConfig(Block):
    """Conditions on the queries, evaluated with the outputs of the first scoring model."""

    correct: bool | None = None
    probability: tuple[float, float] | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> WhereConfig:
        if self.probability and not 0 <= self.probability[0] < self.probability[1] <= 1:
            raise ValueError("probability: give two numbers with 0 <= low < high <= 1")
        return self


class QueriesConfig(Block):
    """The test points that are explained.

    Either `ids` lists them as in the data, or they are drawn from the measured rows of `split` that fulfil `where`:
    `per_class` of each class, or `count` (or `all`) in total.
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
            raise ValueError(
                "give exactly one of ids, per_class, count (where alone selects every point that fulfils it)"
            )
        if self.ids is not None and (not self.ids or len(set(self.ids)) != len(self.ids)):
            raise ValueError("ids: give at least one id, and each only once")
        if self.ids is not None and self.where is not None:
            raise ValueError("ids and where exclude each other; give one of them")
        return self


class ScoresConfig(Block):
    """The scoring models: their number, their seed, and the epochs whose weights methods use (default: the last epoch).

    `checkpoints`: 0 stands for the weights before the first update. `rows_per_shard`: number of train rows per score shard.
    """

    models: Annotated[int, Field(ge=1, le=1000)] = 1
    checkpoints: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    seed: Seed = 0
    rows_per_shard: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _distinct(self) -> ScoresConfig:
        if self.checkpoints is not None and (
            not self.checkpoints or len(set(self.checkpoints)) != len(self.checkpoints)
        ):
            raise ValueError("checkpoints: give at least one epoch, and each only once")
        return self


class RepeatsConfig(Block):
    """The number of repeats of every retrain, each with another seed: a count, literal seeds, or as `target_se` requires.

    `target_se`: a curve gets no further repeat once its standard error over seeds, for these queries, is at most this;
    at least `min` and at most `max` repeats are made. The papers use fixed numbers of repeats only.
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
            raise ValueError("seeds: give at least one seed, and each only once")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @property
    def is_adaptive(self) -> bool:
        """Whether the number of repeats depends on the results in the ledger."""
        return self.target_se is not None

    @property
    def most(self) -> int:
        """The largest possible number of repeats."""
        return len(self.seeds) if self.seeds is not None else self.count or self.max or 0


Market = Literal["spot", "on-demand"]


class MarketConfig(Block):
    """The market of the nodes for each role, by the node label ray.io/market-type; null allows any node.

    `tail`: the last retrains, once no more of them are left than there are workers.
    """

    gradients: Market | None = None
    retrains: Market | None = None
    tail: Market | None = None


class ComputeConfig(Block):
    """Workers, their resources, and limits. Only threads, device, micro-batch, length groups and frozen trunk are part of an identity."""

    workers: Annotated[int, Field(ge=1, le=100_000)] = 2
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    device: Literal["cpu", "cuda"] | None = None
    micro_batch: Annotated[int, Field(ge=0)] = 0
    length_group_cost: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    frozen_trunk: Literal["computed", "cached", "cached_half"] = "computed"
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
        """The number of threads of one worker: its CPUs rounded down, at least one."""
        return max(1, math.floor(self.cpus_per_worker))

    @property
    def trains_on(self) -> str:
        """The device that retrains run on: `device` if given, else a GPU if workers have one, else the CPU."""
        return self.device or ("cuda" if self.gpus_per_worker > 0 else "cpu")


class TrackingConfig(Block):
    """The tracking store for the MLflow projection of the ledger."""

    uri: str = "sqlite:///runs/mlflow.db"
