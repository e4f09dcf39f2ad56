"""When a training in progress is stored, and when it gives itself back."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.runtime.clock import Clock
from orchestrator.runtime.patience import is_alarm, patient
from tasks.errors import GivenBack
from tasks.recipe import Snapshot, SnapshotStore

log = logging.getLogger(__name__)

BETWEEN_PREEMPTIONS_S = 3600.0
SHORTEST_FRAC = 0.1


@dataclass
class TimedSnapshots:
    """Decides for one attempt of a retrain; implements tasks.recipe.Snapshots.

    The first snapshot comes once the training has run for `after_s` (None: never), so that short retrains pay nothing. From
    then on the interval is sqrt(2 c M), which loses least to writing and to repeating together (Young 1974): c seconds is
    what the last one took, M the time between preemptions, an hour assumed. It is never below `after_s` / 10: on a fast
    disk the formula would write every few seconds, which wears the store for little. A training that was resumed is known
    to be long and has its first after `after_s` / 10.

    `asked`: plain JSON values, what is asked of the retrain besides its spec: a snapshot made for something else is not
    used. `give_back`: once set, the training is stored and stops at the next update. `may_exist`: whether an earlier attempt
    may have stored anything; if not, nothing is read.
    """

    store: SnapshotStore
    after_s: float | None
    clock: Clock
    give_back: threading.Event | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    may_exist: bool = True
    seconds_before: float = 0.0  # of the attempts that the resumed snapshot stands on

    def __post_init__(self) -> None:
        self._started_s = self.clock.now()
        self._due_s = self._started_s + (math.inf if self.after_s is None else self.after_s)

    @property
    def seconds(self) -> float:
        """What the training has taken so far, earlier attempts included."""
        return self.seconds_before + self.clock.now() - self._started_s

    def resume(self) -> Snapshot | None:
        """The stored snapshot; None if there is none for what is asked.

        Raises StoreAwayError if the store is away for minutes: to start anew would overwrite what may be hours of work.
        """
        stored = patient(self.store.load, clock=self.clock)() if self.may_exist else None
        if stored is None or stored.facts.get("asked") != self.asked:
            return None
        self.seconds_before = stored.facts["seconds"]
        self._due_s = self.clock.now() + self._interval_s(0.0)
        return Snapshot(stored.tensors, stored.facts["training"])

    def passed(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Store the training if it is time to, or if it is to be given back; then raises GivenBack."""
        stop = self.give_back is not None and self.give_back.is_set()
        if stop or self.clock.now() >= self._due_s:
            self._save(snapshot)
        if stop:
            raise GivenBack(f"given back after update {step}")

    def _save(self, snapshot: Callable[[], Snapshot]) -> None:
        began_s, seconds = self.clock.now(), self.seconds
        found = snapshot()
        facts = {"asked": self.asked, "seconds": seconds, "training": found.facts}
        try:
            self.store.save(Snapshot(found.tensors, facts))
        except OSError as error:  # full disk, store away: the training is worth more than its snapshot
            if is_alarm(error):
                raise
            log.warning("a snapshot could not be written: %s: %s", type(error).__name__, error)
        ended_s = self.clock.now()
        self._due_s = ended_s + self._interval_s(ended_s - began_s)

    def _interval_s(self, cost_s: float) -> float:
        if self.after_s is None:
            return math.inf
        return max(SHORTEST_FRAC * self.after_s, math.sqrt(2 * cost_s * BETWEEN_PREEMPTIONS_S))
