"""Stragglers: retrains that run much longer than is typical, and may get a second attempt on an idle worker.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from orchestrator.scheduling.eta import Durations
from orchestrator.scheduling.policies import Timing
from orchestrator.scheduling.waiting import Fits


class Tail:
    """The running specs with a single attempt, and those of them that are overdue.

    A failed attempt is not charged while a second attempt of its spec still runs, so every charged attempt has at most one
    second attempt. A spec with two attempts therefore leaves this collection, and returns to it only when it has failed and is
    submitted again.

    Each attempt costs O(1); a tick looks only at the oldest attempts of each kind.
    """

    def __init__(self, timing: Timing, durations: Durations):
        self._timing, self._durations = timing, durations
        self._young: dict[str, OrderedDict[str, float]] = {}  # kind -> spec -> start time, oldest first
        self._overdue: OrderedDict[str, str] = OrderedDict()  # spec -> kind

    def __iter__(self) -> Iterator[str]:
        yield from self._overdue
        for young in self._young.values():
            yield from young

    def begin(self, spec_id: str, kind: str, now_s: float) -> None:
        """Add a spec whose first attempt begins."""
        self._young.setdefault(kind, OrderedDict())[spec_id] = now_s

    def end(self, spec_id: str, kind: str) -> None:
        """Remove a spec that no longer runs, or has its second attempt."""
        self._overdue.pop(spec_id, None)
        self._young.get(kind, {}).pop(spec_id, None)

    def tick(self, now_s: float) -> None:
        """Mark the specs that have become stragglers as overdue; they stay overdue."""
        for kind, young in self._young.items():
            limit_s = self._limit_s(kind) if young else None
            while young and limit_s is not None and now_s - next(iter(young.values())) > limit_s:
                self._overdue[young.popitem(last=False)[0]] = kind

    def _limit_s(self, kind: str) -> float | None:
        typical_s = self._durations.typical_s(kind)
        if typical_s is None:
            return None
        return max(self._timing.straggler_min_s, self._timing.straggler_factor * typical_s)

    def is_stuck(self, kind: str, seconds: float) -> bool:
        """Return whether an attempt that has run for `seconds` is stuck (see Timing); False while the typical duration is unknown."""
        typical_s, timing = self._durations.typical_s(kind), self._timing
        return typical_s is not None and seconds > timing.stuck_factor * max(typical_s, timing.straggler_min_s)

    def n_overdue(self, fits: Fits) -> int:
        """Return the number of overdue specs whose kind fits into the time left."""
        return sum(map(fits, self._overdue.values()))

    def overdue(self, fits: Fits) -> str | None:
        """Return the spec of a fitting kind that has been overdue for longest; None if there is none."""
        return next((spec_id for spec_id, kind in self._overdue.items() if fits(kind)), None)
