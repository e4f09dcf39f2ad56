"""Stragglers: retrains that run much longer than is typical, and may get a second attempt on a worker that idles. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from orchestrator.scheduling.eta import Durations
from orchestrator.scheduling.policies import Timing
from orchestrator.scheduling.waiting import Fits


class Tail:
    """Specs with a single attempt. One that fails while another runs costs nothing, so each charged attempt gets one more at most:
    a spec that was given a second attempt comes back here only after it has failed and been submitted anew.

    O(1) per attempt; a tick looks at the oldest attempt of each kind.
    """

    def __init__(self, timing: Timing, durations: Durations):
        self._timing, self._durations = timing, durations
        self._young: dict[str, OrderedDict[str, float]] = {}  # kind -> spec -> when it began, oldest first
        self._overdue: OrderedDict[str, str] = OrderedDict()  # spec -> kind

    def __iter__(self) -> Iterator[str]:
        yield from self._overdue
        for young in self._young.values():
            yield from young

    def begin(self, spec_id: str, kind: str, now_s: float) -> None:
        """A first attempt begins."""
        self._young.setdefault(kind, OrderedDict())[spec_id] = now_s

    def end(self, spec_id: str, kind: str) -> None:
        """A spec runs no more, or has its second attempt."""
        self._overdue.pop(spec_id, None)
        self._young.get(kind, {}).pop(spec_id, None)

    def tick(self, now_s: float) -> None:
        """Find out which have become overdue; they stay so."""
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
        """Whether an attempt that has taken so long is far beyond a straggler; False while nobody knows what is typical."""
        typical_s, timing = self._durations.typical_s(kind), self._timing
        return typical_s is not None and seconds > timing.stuck_factor * max(typical_s, timing.straggler_min_s)

    def n_overdue(self, fits: Fits) -> int:
        """How many could use a second attempt."""
        return sum(map(fits, self._overdue.values()))

    def overdue(self, fits: Fits) -> str | None:
        """The spec that has been overdue for longest, of the kinds that fit."""
        return next((spec_id for spec_id, kind in self._overdue.items() if fits(kind)), None)
