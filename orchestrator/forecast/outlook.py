"""How long retrains still to do will take, and what that costs: from the seconds of retrains that are done. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.scheduling.budget import HOUR_S, Prices
from orchestrator.stages.pilot import RetrainClass

BETWEEN_PREEMPTIONS_S = 6 * HOUR_S  # of one spot node; an assumption: clouds publish no figure that holds for an hour
LEVEL = 0.95
Demand = Counter[RetrainClass | None]  # how many retrains of each class; None: which is not known yet


@dataclass(frozen=True)
class Span:
    """A figure and its 95% range; no range where fewer than two retrains tell."""

    mean: float
    low: float | None = None
    high: float | None = None

    def times(self, low: float, mean: float, high: float) -> Span:
        """Each by its own factor."""
        return Span(self.mean * mean, _product(self.low, low), _product(self.high, high))


def _product(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


@dataclass(frozen=True)
class History:
    """Seconds of finished retrains: the campaign's own by class, and `others` of its ledger that train as it does.

    `several_arms`: then models whose weights are stored may be trained in quite another way than retrains of other arms.
    """

    own: Mapping[RetrainClass, Sequence[float]] = field(default_factory=dict)
    others: Sequence[float] = ()
    several_arms: bool = False

    @property
    def n_known(self) -> int:
        """How many retrains tell."""
        return sum(map(len, self.own.values())) or len(self.others)

    def like(self, wanted: RetrainClass | None) -> tuple[Hashable, Sequence[float]]:
        """The seconds nearest in kind to a class, and what names them: of its class, its arm, any retrain, other campaigns.

        The first of the campaign's own with two values, so that there is a range; else the first with one.
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
    """Seconds of training that `demand` takes; None if the history has nothing like it.

    For N retrains to do like n that took m seconds on average, with variance v: mean N m; variance of the sum N^2 v / n + N v, that of
    the mean and of the new ones; t interval over all classes with the fewest degrees of freedom among them, not below 0.
    A machine taken away costs half a retrain on average: every class counts (1 + m / (2 x time between preemptions)) times.
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
    """(mean, variance) of the seconds of `n` more retrains like these."""
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
    """Workers and the nodes they are taken to run on: one a GPU, or one a worker where they have none; booted if there are prices."""

    workers: int
    gpus_per_worker: float = 0.0
    market: str | None = None
    prices: Prices | None = None

    @property
    def between_preemptions_s(self) -> float:
        """Time between two preemptions of a node; infinite but for spot machines."""
        return BETWEEN_PREEMPTIONS_S if self.market == "spot" else math.inf

    @property
    def boot_s(self) -> float:
        """Time until the nodes are there."""
        return self.prices.boot_s if self.prices else 0.0

    def n_nodes(self, workers: int) -> int:
        """Nodes under this many workers."""
        return math.ceil(workers * self.gpus_per_worker) if self.gpus_per_worker else workers

    @property
    def per_hour(self) -> tuple[float, float]:
        """Least and highest price of an hour of a node on this market; 0 without prices."""
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
    """What retrains still to do will take: wall-clock time, GPU-hours and money."""

    time_s: Span
    gpu_hours: Span
    cost: Span | None


def outlook(least: Demand, most: Demand, history: History, pool: WorkerPlan) -> Outlook | None:
    """Time and cost of `most`, ranging down to those of `least`; None if the history has nothing like it.

    Time: seconds of training / workers, no more workers than retrains, and the boot but in the lower bound. Nodes are paid for the
    whole time. Costs range over the prices of the table too; their mean is at the middle of the prices.
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
