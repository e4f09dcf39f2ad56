"""How far a campaign is, for people: told at most a few times a second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.runtime.clock import Clock
from orchestrator.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionProgress:
    """Counts of specs, and times. `done` counts what is in the ledger, earlier sessions included."""

    done: int
    total: int
    running: int
    failed: int  # attempts that failed in this session
    quarantined: int  # specs given up in this session
    stuck: int  # retrains that run ten times as long as is typical
    seconds_per_retrain: float | None  # mean training time of this session's results
    eta_s: float | None  # at this session's rate; None until something is in the ledger
    elapsed_s: float


ProgressListener = Callable[[SessionProgress], None]


class ProgressMeter:
    """Tells a listener how far the scheduler is, at most every `interval_s`."""

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
        """Specs that came into the ledger in this session."""
        return self._scheduler.count("finished") - self._done_before

    def trained(self, seconds: float) -> None:
        """Count one result."""
        self._n_results += 1
        self._train_s += seconds

    def report(self, *, now: bool = False) -> None:
        """Tell the listener if it is time, or `now`. One that cannot write (OSError) never fails the campaign."""
        if self._listener is None or (self._clock.now() < self._next and not now):
            return
        self._next = self._clock.now() + self._interval_s
        state = self.progress()
        if state.stuck > self._n_stuck:
            log.warning(
                "%d retrains run ten times as long as is typical; compute.timeout_s would end them", state.stuck
            )
        self._n_stuck = state.stuck
        try:
            self._listener(state)
        except OSError as error:
            log.warning("progress could not be reported: %s", error)

    def progress(self) -> SessionProgress:
        """The state of things."""
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
