"""Handles workers that do not start: when a pool retries, when it warns and when it gives up. Imports no ray."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

from tasks.errors import RefitError

START_ATTEMPTS = 3  # failed starts in a row after which the pool starts one worker at a time
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 600.0


class NoWorkerError(RefitError):
    """No worker could be started in time. Finished work is kept, and the same command continues it later."""

    is_resumable: ClassVar[bool] = True


@dataclass
class FailedStarts:
    """Counts consecutive failed starts, except those lost with their node; after `START_ATTEMPTS` come growing pauses."""

    n: int = 0
    message: str = ""
    n_pauses: int = 0
    retry_at_s: float = -math.inf  # monotonic seconds

    @property
    def are_many(self) -> bool:
        """Whether so many starts have failed that the pool must limit its requests."""
        return self.n >= START_ATTEMPTS

    def add(self, message: str, now_s: float) -> None:
        """Count a failed start and begin a pause; a start that fails during a pause does not extend it."""
        self.n, self.message = self.n + 1, message
        if self.are_many and now_s >= self.retry_at_s:
            self.retry_at_s = now_s + min(FIRST_PAUSE_S * 2.0**self.n_pauses, LONGEST_PAUSE_S)
            self.n_pauses = min(self.n_pauses + 1, 30)

    def clear(self) -> None:
        """Forget the failures, since a start succeeded or they are out of date."""
        self.n, self.message, self.n_pauses, self.retry_at_s = 0, "", 0, -math.inf


class WaitClock:
    """Measures how long a pool has been without a worker, and how long without any answer."""

    def __init__(self, start_timeout_s: float | None, stuck_after_s: float):
        self._start_timeout_s, self._stuck_after_s = start_timeout_s, stuck_after_s
        self.begin()

    def begin(self) -> None:
        """Start both measurements, since workers are wanted from now on."""
        self._empty_since_s = time.monotonic()
        self.answered()

    def answered(self) -> None:
        """Record that an actor has answered."""
        self._answered_at_s, self._warned = time.monotonic(), False

    def is_too_long(self, is_empty: bool) -> bool:
        """Return whether the pool has been without a worker for too long; `is_empty`: it wants workers and has none."""
        now_s, limit_s = time.monotonic(), self._start_timeout_s
        if not is_empty:
            self._empty_since_s = now_s
        return is_empty and limit_s is not None and now_s - self._empty_since_s >= limit_s

    def is_stuck(self) -> bool:
        """Return True once when no actor has answered for `stuck_after_s`."""
        if self._warned or time.monotonic() - self._answered_at_s < self._stuck_after_s:
            return False
        self._warned = True
        return True


__all__ = ["START_ATTEMPTS", "FailedStarts", "NoWorkerError", "WaitClock"]
