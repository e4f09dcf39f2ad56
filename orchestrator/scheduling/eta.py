"""How long a retrain takes, judged by those that are done, and whether the time that is left suffices. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from orchestrator.scheduling.events import Tick

WINDOW = 128  # results of a kind that are remembered
LEVEL = 0.9


class Durations:
    """Typical seconds of a retrain, by kind: what nine in ten of the last `WINDOW` results did not exceed.

    The last results, not all: of a thousand retrains that begin together the quickest end first, and by them the
    others would all be stragglers. May be shared by the schedulers of one campaign.
    """

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._sorted: dict[str, list[float]] = {}

    def add(self, kind: str, seconds: float) -> None:
        """Count one result."""
        recent = self._recent.setdefault(kind, deque())
        ordered = self._sorted.setdefault(kind, [])
        if len(recent) == WINDOW:
            del ordered[bisect_left(ordered, recent.popleft())]
        recent.append(seconds)
        insort(ordered, seconds)

    def typical_s(self, kind: str) -> float | None:
        """Seconds; None before the first result of this kind."""
        ordered = self._sorted.get(kind)
        return ordered[int(LEVEL * (len(ordered) - 1) + 0.5)] if ordered else None

    @property
    def longest_s(self) -> float:
        """Typical seconds of the kind that takes longest; 0 before the first result."""
        return max((self.typical_s(kind) or 0.0 for kind in self._sorted), default=0.0)


class TimeLeft:
    """The last tick, and what it allows. What is used up does not come back, whatever later ticks say."""

    def __init__(self, durations: Durations):
        self._durations = durations
        self.now_s = 0.0
        self.left_s: float | None = None  # of budget and deadline; None: no limit
        self.up_since_s: float | None = None  # when they were used up

    def tick(self, tick: Tick) -> None:
        """Time has passed."""
        self.now_s = tick.now_s
        self.left_s = tick.seconds_left if self.up_since_s is None else 0.0
        if self.up_since_s is None and self.left_s is not None and self.left_s <= 0:
            self.up_since_s = self.now_s

    def fits(self, kind: str) -> bool:
        """Whether a retrain of this kind may begin; of one whose length nobody knows yet, as long as there is any time."""
        if self.left_s is None:
            return True
        typical_s = self._durations.typical_s(kind)
        return self.left_s > 0 and (typical_s is None or typical_s <= self.left_s)

    def suffices(self, kind: str, began_s: float, seconds: float) -> bool:
        """Whether `seconds` from now are enough for a retrain that began then; True if nobody knows."""
        typical_s = self._durations.typical_s(kind)
        return typical_s is None or began_s + typical_s <= self.now_s + seconds
