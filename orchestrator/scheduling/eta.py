"""Typical duration of a retrain, from the finished ones, and whether the remaining time suffices for one more.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from orchestrator.scheduling.events import Tick

WINDOW = 128  # results kept per kind
LEVEL = 0.9  # quantile of the kept durations that counts as typical


class Durations:
    """Typical seconds of a retrain, by kind: the 90% quantile of the last `WINDOW` results.

    Only the last results count. Of a thousand retrains that begin together the fastest end first, and compared with those
    alone all others would be stragglers. The schedulers of one campaign may share one object.
    """

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._sorted: dict[str, list[float]] = {}

    def add(self, kind: str, seconds: float) -> None:
        """Add the duration of one result."""
        recent = self._recent.setdefault(kind, deque())
        ordered = self._sorted.setdefault(kind, [])
        if len(recent) == WINDOW:
            del ordered[bisect_left(ordered, recent.popleft())]
        recent.append(seconds)
        insort(ordered, seconds)

    def typical_s(self, kind: str) -> float | None:
        """Return the typical seconds of this kind; None before its first result."""
        ordered = self._sorted.get(kind)
        return ordered[int(LEVEL * (len(ordered) - 1) + 0.5)] if ordered else None

    @property
    def longest_s(self) -> float:
        """Typical seconds of the slowest kind; 0 before the first result."""
        return max((self.typical_s(kind) or 0.0 for kind in self._sorted), default=0.0)


class TimeLeft:
    """The time of the last tick and the time left then. Once used up, it stays used up, even if a later tick reports more."""

    def __init__(self, durations: Durations):
        self._durations = durations
        self.now_s = 0.0
        self.left_s: float | None = None  # until budget or deadline is used up; None: no limit
        self.up_since_s: float | None = None  # when budget or deadline was used up

    def tick(self, tick: Tick) -> None:
        """Record a tick."""
        self.now_s = tick.now_s
        self.left_s = tick.seconds_left if self.up_since_s is None else 0.0
        if self.up_since_s is None and self.left_s is not None and self.left_s <= 0:
            self.up_since_s = self.now_s

    def fits(self, kind: str) -> bool:
        """Return whether the time left suffices for a retrain of this kind; for a kind of unknown duration any time left suffices."""
        if self.left_s is None:
            return True
        typical_s = self._durations.typical_s(kind)
        return self.left_s > 0 and (typical_s is None or typical_s <= self.left_s)

    def suffices(self, kind: str, began_s: float, seconds: float) -> bool:
        """Return whether a retrain that began at `began_s` ends within `seconds` from now; True if the typical duration is unknown."""
        typical_s = self._durations.typical_s(kind)
        return typical_s is None or began_s + typical_s <= self.now_s + seconds
