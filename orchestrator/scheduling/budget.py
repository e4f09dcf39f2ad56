"""The budget of a campaign: provisioned machines are charged from the moment they appear, busy or idle.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

BOOT_S = 120.0
LOCAL = "local"
HOUR_S = 3600.0
LimitName = Literal["gpu_hours", "cost", "deadline"]


@dataclass(frozen=True)
class Node:
    """A provisioned machine. `kind` is its key in the price table: its node type, or `local` for the driver's own machine."""

    node_id: str
    kind: str
    n_gpus: float = 0.0
    market: str = ""  # spot | on-demand | "" if unknown

    @property
    def label(self) -> str:
        """`<kind>/<market>`, or the kind alone."""
        return f"{self.kind}/{self.market}" if self.market else self.kind


@dataclass(frozen=True)
class Prices:
    """Price of one hour of a whole node, by `<kind>/<market>`, `<kind>` or `default`; `boot_s` seconds of boot are charged too."""

    date: str
    currency: str
    per_hour: Mapping[str, float]
    boot_s: float = BOOT_S

    def lists(self, label: str) -> bool:
        """Return whether the table has a price for nodes of this label."""
        return self._listed(label) is not None

    def of(self, label: str) -> float:
        """Return the price of one hour. A label without a price gets the highest of the table, so that no budget is overrun unnoticed."""
        listed = self._listed(label)
        return max(self.per_hour.values()) if listed is None else listed

    def cost(self, node_hours: Mapping[str, float]) -> float:
        """Return the cost of these node-hours, given by label."""
        return sum(hours * self.of(label) for label, hours in node_hours.items())

    def _listed(self, label: str) -> float | None:
        keys = (label, label.partition("/")[0], "default")
        return next((self.per_hour[key] for key in keys if key in self.per_hour), None)


@dataclass(frozen=True)
class Limits:
    """The limits of a campaign over all its sessions; `deadline_utc_s` is in seconds since 1970. None means no limit."""

    max_gpu_hours: float | None = None
    max_cost: float | None = None
    deadline_utc_s: float | None = None


@dataclass
class Bill:
    """Hours that were provisioned: node-hours by label, and GPU-hours."""

    node_hours: dict[str, float] = field(default_factory=dict)
    gpu_hours: float = 0.0

    def add(self, fleet: Fleet, seconds: float) -> None:
        """Charge every node of a fleet for `seconds`."""
        hours = seconds / HOUR_S
        for label, count in fleet.counts.items():
            self.node_hours[label] = self.node_hours.get(label, 0.0) + count * hours
        self.gpu_hours += fleet.n_gpus * hours


@dataclass(frozen=True)
class Fleet:
    """The nodes present at one time: the number of each label, and the total number of GPUs."""

    counts: Mapping[str, float] = field(default_factory=dict)
    n_gpus: float = 0.0

    @staticmethod
    def of(nodes: Iterable[Node]) -> Fleet:
        """Count these nodes."""
        counts, n_gpus = {}, 0.0
        for node in nodes:
            counts[node.label] = counts.get(node.label, 0) + 1
            n_gpus += node.n_gpus
        return Fleet(counts, n_gpus)


@dataclass
class Meter:
    """Charges nodes as time passes, and computes how long the budget lasts.

    A node is charged for every interval between two calls of `charge` if it is present at either end, so an interval in which it
    comes or goes is charged in full. It is also charged once for `boot_s`, the boot time before it appears. A node id that returns is the same
    machine and is not charged for a second boot. The driver's own machine (kind `local`) was not booted for the campaign and is
    charged for no boot. `prior_*` is what earlier sessions spent.
    """

    limits: Limits = Limits()
    prices: Prices | None = None
    prior_gpu_hours: float = 0.0
    prior_cost: float = 0.0
    bill: Bill = field(default_factory=Bill)
    _now_s: float | None = None
    _present: dict[str, Node] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _fleet: Fleet = Fleet()

    def charge(self, now_s: float, nodes: Sequence[Node]) -> None:
        """Charge the time up to `now_s`; `nodes` are those present at `now_s`."""
        elapsed_s = 0.0 if self._now_s is None else max(now_s - self._now_s, 0.0)
        here = {node.node_id: node for node in nodes}
        if here.keys() == self._present.keys():
            self.bill.add(self._fleet, elapsed_s)
        else:
            self.bill.add(Fleet.of({**self._present, **here}.values()), elapsed_s)
            self._enter(here)
        self._now_s = now_s if self._now_s is None else max(now_s, self._now_s)

    def charge_on(self, now_s: float) -> None:
        """Charge the nodes that were given to the last call of `charge` up to `now_s`."""
        self.charge(now_s, list(self._present.values()))

    def _enter(self, here: dict[str, Node]) -> None:
        new = [node for node in here.values() if node.node_id not in self._seen and node.kind != LOCAL]
        self.bill.add(Fleet.of(new), BOOT_S if self.prices is None else self.prices.boot_s)
        self._seen |= here.keys()
        self._present, self._fleet = here, Fleet.of(here.values())

    @property
    def gpu_hours(self) -> float:
        """GPU-hours spent, including earlier sessions."""
        return self.prior_gpu_hours + self.bill.gpu_hours

    @property
    def cost(self) -> float:
        """Money spent, including earlier sessions; without a price table, only that of earlier sessions."""
        return self.prior_cost + (self.prices.cost(self.bill.node_hours) if self.prices else 0.0)

    def nearest(self, utc_s: float) -> tuple[LimitName, float] | None:
        """Return the limit that is reached first at the present rate, and the seconds until then; None if no limit is ever reached."""
        found: list[tuple[float, LimitName]] = [
            (s, name) for name, s in self._seconds(utc_s).items() if s is not None and s < math.inf
        ]
        if not found:
            return None
        seconds, name = min(found)
        return name, seconds

    def seconds_left(self, utc_s: float) -> float | None:
        """Return the seconds until the first limit is reached at the present rate; None if no limit is ever reached.

        `utc_s` is the present time in seconds since 1970. The result is
        min((limit - spent) / rate over GPU-hours and cost, deadline - now), and 0 once a limit is reached.
        """
        nearest = self.nearest(utc_s)
        return None if nearest is None else nearest[1]

    def workers_within(self, gpus_per_worker: float, seconds: float, utc_s: float, market: str | None = None) -> float:
        """Return the largest number of GPU workers that the budget allows.

        It counts the workers that fit on the present nodes of their `market` (None: any market), and those that fit on
        nodes which could still boot and work for `seconds` before a limit is reached. If a worker uses no GPU, the result is infinite,
        because the number of such workers that fit on a node is unknown.

        A further node is assumed to be as large as the largest present node, and as expensive as the most expensive of the price table.
        """
        if gpus_per_worker <= 0:
            return math.inf
        sizes = [node.n_gpus for node in self._present.values()]
        largest = max([gpus_per_worker, *sizes])
        ours = [node.n_gpus for node in self._present.values() if market in (None, node.market) or node.kind == LOCAL]
        here = sum(_whole(size / gpus_per_worker) for size in ours)
        return here + _whole(largest / gpus_per_worker) * self._nodes_within(largest, seconds, utc_s)

    def _nodes_within(self, n_gpus: float, seconds: float, utc_s: float) -> float:
        limits, prices = self.limits, self.prices
        hours = ((BOOT_S if prices is None else prices.boot_s) + seconds) / HOUR_S
        found = [math.inf]
        if limits.max_gpu_hours is not None:
            found.append((limits.max_gpu_hours - self.gpu_hours - self._fleet.n_gpus * hours) / (n_gpus * hours))
        if limits.max_cost is not None and prices is not None:
            left = limits.max_cost - self.cost - prices.cost(self._fleet.counts) * hours
            found.append(left / (max(prices.per_hour.values()) * hours))
        if limits.deadline_utc_s is not None and limits.deadline_utc_s - utc_s < hours * HOUR_S:
            found.append(0.0)
        fewest = min(found)
        return fewest if fewest == math.inf else max(math.floor(fewest), 0)

    def _seconds(self, utc_s: float) -> dict[LimitName, float | None]:
        limits, prices = self.limits, self.prices
        cost_rate = prices.cost(self._fleet.counts) if prices else 0.0
        return {
            "gpu_hours": _lasts_s(limits.max_gpu_hours, self.gpu_hours, self._fleet.n_gpus),
            "cost": _lasts_s(limits.max_cost, self.cost, cost_rate),
            "deadline": None if limits.deadline_utc_s is None else max(limits.deadline_utc_s - utc_s, 0.0),
        }


def _whole(number: float) -> int:
    return math.floor(number + 1e-9)


def _lasts_s(limit: float | None, spent: float, per_hour: float) -> float | None:
    """Return the seconds until `spent`, which grows by `per_hour`, reaches the limit; infinity if it does not grow."""
    if limit is None:
        return None
    left = max(limit - spent, 0.0)
    if left == 0:
        return 0.0
    return left / per_hour * HOUR_S if per_hour > 0 else math.inf
