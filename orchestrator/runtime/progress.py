"""Reports the progress of a campaign to a listener, at most a few times a second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.runtime.clock import Clock
from orchestrator.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionProgress:
    """Counts of specs, and times in seconds. `done` counts the specs in the ledger, earlier sessions included."""

    done: int
    total: int
    running: int
    failed: int  # attempts that failed in this session
    quarantined: int  # specs quarantined in this session
    stuck: int  # retrains that have run ten times as long as is typical
    seconds_per_retrain: float | None  # mean training time of the retrains that ended in this session
    eta_s: float | None  # time left at this session's rate; None until this session has written to the ledger
    elapsed_s: float


ProgressListener = Callable[[SessionProgress], None]


class ProgressMeter:
    """Calls a listener with the progress of the scheduler, at most every `interval_s` seconds."""

    def __init__(self, scheduler: Scheduler, listener: ProgressListener | None, clock: Clock, interval_s: float):
        self._scheduler, self._listener, self._clock, self._interval_s = scheduler, listener, clock, interval_s
        self._started = clock.now()
        self._done_before = scheduler.count("finished")
        self._next = self._started
        self._n_results, self._train_s, self._n_stuck = 0, 0.0, 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        return self._clock.now() - self._started

    @property
    def n_finished(self) -> int:
        """The number of specs that were written to the ledger in this session."""
        return self._scheduler.count("finished") - self._done_before

    def trained(self, seconds: float) -> None:
        """Count one retrain that ended after `seconds` of training."""
        self._n_results += 1
        self._train_s += seconds

    def report(self, *, now: bool = False) -> None:
        """Call the listener if `interval_s` has passed, or `now`. Its OSErrors are logged and never fail the campaign."""
        if self._listener is None or (self._clock.now() < self._next and not now):
            return
        self._next = self._clock.now() + self._interval_s
        state = self.progress()
        if state.stuck > self._n_stuck:
            log.warning(
                "%d retrains have run ten times as long as is typical; set compute.timeout_s to end such retrains",
                state.stuck,
            )
        self._n_stuck = state.stuck
        try:
            self._listener(state)
        except OSError as error:
            log.warning("progress could not be reported: %s", error)

    def progress(self) -> SessionProgress:
        """Return the current progress."""
        scheduler = self._scheduler
        left = len(scheduler) - scheduler.count("finished")
        return SessionProgress(
            done=scheduler.count("finished"),
            total=len(scheduler),
            running=scheduler.count("running"),
            failed=scheduler.failures.total(),
            quarantined=len(scheduler.quarantined),
            stuck=scheduler.n_stuck,
            seconds_per_retrain=self._train_s / self._n_results if self._n_results else None,
            eta_s=left * self.elapsed_s / self.n_finished if self.n_finished else None,
            elapsed_s=self.elapsed_s,
        )
