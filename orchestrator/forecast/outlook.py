"""Forecast of the time and cost of the remaining retrains from the durations of finished ones.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.scheduling.budget import HOUR_S, Prices
from orchestrator.stages.pilot import RetrainClass

# Mean time between preemptions of a spot node: an assumption, since clouds publish no reliable figure.
BETWEEN_PREEMPTIONS_S = 6 * HOUR_S
LEVEL = 0.95
Demand = Counter[RetrainClass | None]  # class -> number of retrains; None: the class is not known yet


@dataclass(frozen=True)
class Span:
    """A mean and its 95% range; `low` and `high` are None if fewer than two finished retrains are known."""

    mean: float
    low: float | None = None
    high: float | None = None

    def times(self, low: float, mean: float, high: float) -> Span:
        """Multiply low, mean and high by their own factors."""
        return Span(self.mean * mean, _product(self.low, low), _product(self.high, high))


def _product(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


@dataclass(frozen=True)
class History:
    """Seconds of finished retrains: the campaign's own by class, and `others` in its ledger of the same kind of training.

    `several_arms`: the campaign has several arms, so models whose weights are stored (scoring models, parents) may be trained very
    differently from the retrains of other arms, and do not stand in for them.
    """

    own: Mapping[RetrainClass, Sequence[float]] = field(default_factory=dict)
    others: Sequence[float] = ()
    several_arms: bool = False

    @property
    def n_known(self) -> int:
        """The number of finished retrains that the forecast uses."""
        return sum(map(len, self.own.values())) or len(self.others)

    def like(self, wanted: RetrainClass | None) -> tuple[Hashable, Sequence[float]]:
        """Return a name for the most similar finished retrains, and their seconds.

        Candidates, most similar first, are retrains of the class, of its arm, of the whole campaign, and of other campaigns. The
        first of the campaign's own candidates with at least two values is used, since a range needs two; otherwise the first with one.
        """
        found: dict[Hashable, Sequence[float]] = {}
        if wanted is not None:
            found[wanted] = self.own.get(wanted, ())
            found[wanted.arm] = [s for known, seconds in self.own.items() if known.arm == wanted.arm for s in seconds]
        found["own"] = [
            s for known, seconds in self.own.items() if not (self.several_arms and known.keeps_weights) for s in seconds
        ]
        kept = [name for name, seconds in found.items() if seconds]
        if not kept:
            return "others", self.others
        name = next((name for name in kept if len(found[name]) > 1), kept[0])
        return name, found[name]


def total_s(demand: Demand, history: History, between_preemptions_s: float = math.inf) -> Span | None:
    """Return the total seconds of training that `demand` takes; None if the history has no similar retrain.

    For N remaining retrains and n finished similar ones with mean m and variance v, the mean of the sum is N m and its variance
    N^2 v / n + N v: the first term is that of the estimated mean, the second that of the new retrains. The range is a t interval over
    all classes with the smallest degrees of freedom among them, cut off at 0. A preemption wastes half a retrain on average, so
    the seconds of every class are multiplied by 1 + m / (2 x time between preemptions).
    """
    wanted: Counter[Hashable] = Counter()
    values: dict[Hashable, Sequence[float]] = {}
    for kind, n in demand.items():
        name, values[name] = history.like(kind) if n else ("", ())
        wanted[name] += n
    wanted = +wanted
    if not all(values[name] for name in wanted):
        return None
    parts = [_part(n, values[name], between_preemptions_s) for name, n in wanted.items()]
    mean = sum(part[0] for part in parts)
    if min((len(values[name]) for name in wanted), default=2) < 2:
        return Span(mean)
    half = _t(min((len(values[name]) - 1 for name in wanted), default=1)) * math.sqrt(sum(part[1] for part in parts))
    return Span(mean, max(mean - half, 0.0), mean + half)


def _part(n: int, seconds: Sequence[float], between_preemptions_s: float) -> tuple[float, float]:
    """Return (mean, variance) of the total seconds of `n` more retrains like these."""
    known = len(seconds)
    mean = sum(seconds) / known
    variance = sum((s - mean) ** 2 for s in seconds) / max(known - 1, 1)
    waste = 1 + mean / (2 * between_preemptions_s)
    return n * mean * waste, (n * n / known + n) * variance * waste**2


def _t(df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + LEVEL) / 2))


@dataclass(frozen=True)
class WorkerPlan:
    """Workers and their assumed nodes: one node per GPU, or one per worker without GPUs. With a price table, boot time is included."""

    workers: int
    gpus_per_worker: float = 0.0
    market: str | None = None
    prices: Prices | None = None

    @property
    def between_preemptions_s(self) -> float:
        """Mean seconds between two preemptions of a node; infinite unless it is a spot machine."""
        return BETWEEN_PREEMPTIONS_S if self.market == "spot" else math.inf

    @property
    def boot_s(self) -> float:
        """Seconds until the nodes have booted; 0 without a price table."""
        return self.prices.boot_s if self.prices else 0.0

    def n_nodes(self, workers: int) -> int:
        """Return the number of nodes for this many workers."""
        return math.ceil(workers * self.gpus_per_worker) if self.gpus_per_worker else workers

    @property
    def per_hour(self) -> tuple[float, float]:
        """Lowest and highest price of one node-hour on this market; 0 without a price table."""
        per_hour = self.prices.per_hour if self.prices else {"": 0.0}
        fitting = [
            price
            for label, price in per_hour.items()
            if not self.market or label.partition("/")[2] in ("", self.market)
        ]
        found = fitting or list(per_hour.values())
        return min(found), max(found)


@dataclass(frozen=True)
class Outlook:
    """Wall-clock time, GPU-hours and cost of the remaining retrains; `cost` is None without a price table."""

    time_s: Span
    gpu_hours: Span
    cost: Span | None


def outlook(least: Demand, most: Demand, history: History, pool: WorkerPlan) -> Outlook | None:
    """Return time and cost of the demand `most`; the lower ends of their ranges are those of `least`. None if the history has no similar retrain.

    The time is the seconds of training divided by the number of workers (at most one per retrain), plus the boot time, which the
    lower end leaves out. Nodes are paid for the whole time. The range of the cost also covers the lowest and the highest price of the
    table; its mean uses the middle of the two.
    """
    seconds, lower = (total_s(demand, history, pool.between_preemptions_s) for demand in (most, least))
    if seconds is None or lower is None:
        return None
    workers = max(min(pool.workers, most.total()), 1)
    boot_s = pool.boot_s if most.total() else 0.0
    low, high = (None if s is None else s / workers for s in (lower.low, seconds.high))
    time_s = Span(seconds.mean / workers + boot_s, low, None if high is None else high + boot_s)
    gpus, nodes = workers * pool.gpus_per_worker / HOUR_S, pool.n_nodes(workers) / HOUR_S
    cheap, dear = pool.per_hour
    cost = time_s.times(nodes * cheap, nodes * (cheap + dear) / 2, nodes * dear) if pool.prices else None
    return Outlook(time_s, time_s.times(gpus, gpus, gpus), cost)
