"""Decides when a running training is stored as a snapshot, and stops it on request."""

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
    """The snapshots of one attempt of a retrain; implements tasks.recipe.Snapshots.

    The first snapshot is stored once the training has run for `after_s` seconds (None: none is stored at intervals), so
    that short retrains cost nothing. From then on the interval is sqrt(2 c M), which minimises the time lost to writing
    and to repeated updates (Young 1974): c is the time that the last snapshot took, M = 3600 s the assumed time between
    preemptions. The interval is at least `after_s` / 10, because on a fast disk the formula would write every few
    seconds for little benefit. A resumed training is known to be long; its first interval is `after_s` / 10.

    `asked`: plain JSON values that describe what is recorded besides the spec; a snapshot made with other values is not
    used. `give_back`: once set, the training is stored and stops at its next update. `may_exist`: whether an earlier
    attempt may have stored a snapshot; if not, the store is not read.
    """

    store: SnapshotStore
    after_s: float | None
    clock: Clock
    give_back: threading.Event | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    may_exist: bool = True
    seconds_before: float = 0.0  # training time of the attempts that led to the resumed snapshot

    def __post_init__(self) -> None:
        self._started_s = self.clock.now()
        self._due_s = self._started_s + (math.inf if self.after_s is None else self.after_s)

    @property
    def seconds(self) -> float:
        """The training time so far, including that of the attempts that led to the resumed snapshot."""
        return self.seconds_before + self.clock.now() - self._started_s

    def resume(self) -> Snapshot | None:
        """Return the stored snapshot; None if there is none, or it was made with other values of `asked`.

        Raises StoreAwayError if the store stays unavailable for minutes: starting from the beginning would overwrite a
        snapshot that may hold hours of training.
        """
        stored = patient(self.store.load, clock=self.clock)() if self.may_exist else None
        if stored is None or stored.facts.get("asked") != self.asked:
            return None
        self.seconds_before = stored.facts["seconds"]
        self._due_s = self.clock.now() + self._interval_s(0.0)
        return Snapshot(stored.tensors, stored.facts["training"])

    def passed(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Store the training after update `step` if a snapshot is due or a stop is requested.

        Raises GivenBack if a stop is requested.
        """
        stop = self.give_back is not None and self.give_back.is_set()
        if stop or self.clock.now() >= self._due_s:
            self._save(snapshot)
        if stop:
            raise GivenBack(f"stopped on request after update {step}")

    def _save(self, snapshot: Callable[[], Snapshot]) -> None:
        began_s, seconds = self.clock.now(), self.seconds
        found = snapshot()
        facts = {"asked": self.asked, "seconds": seconds, "training": found.facts}
        try:
            self.store.save(Snapshot(found.tensors, facts))
        except OSError as error:  # a full disk or an unavailable store must not end the training
            if is_alarm(error):
                raise
            log.warning("a snapshot could not be written: %s: %s", type(error).__name__, error)
        ended_s = self.clock.now()
        self._due_s = ended_s + self._interval_s(ended_s - began_s)

    def _interval_s(self, cost_s: float) -> float:
        if self.after_s is None:
            return math.inf
        return max(SHORTEST_FRAC * self.after_s, math.sqrt(2 * cost_s * BETWEEN_PREEMPTIONS_S))
