"""Workers that do not come: when a pool asks again, when it says so, and when it gives up. Imports no ray."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

from tasks.errors import RefitError

START_ATTEMPTS = 3  # starts in a row that may fail before the pool asks for less
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 600.0


class NoWorkerError(RefitError):
    """No worker could be had in time; what is finished is kept, and the same command goes on once the cluster has room."""

    is_resumable: ClassVar[bool] = True


@dataclass
class FailedStarts:
    """Starts in a row that failed by themselves. After `START_ATTEMPTS` of them comes a pause, which doubles each time."""

    n: int = 0
    message: str = ""
    n_pauses: int = 0
    again_at_s: float = -math.inf

    @property
    def are_many(self) -> bool:
        """Whether the pool should not ask for as many as it wants."""
        return self.n >= START_ATTEMPTS

    def add(self, message: str, now_s: float) -> None:
        """One more; those that fail during a pause do not make it longer."""
        self.n, self.message = self.n + 1, message
        if self.are_many and now_s >= self.again_at_s:
            self.again_at_s = now_s + min(FIRST_PAUSE_S * 2.0**self.n_pauses, LONGEST_PAUSE_S)
            self.n_pauses = min(self.n_pauses + 1, 30)

    def clear(self) -> None:
        """A start succeeded, or nothing is known any more."""
        self.n, self.message, self.n_pauses, self.again_at_s = 0, "", 0, -math.inf


class WaitClock:
    """For how long a pool has been without a worker, and without any answer."""

    def __init__(self, start_timeout_s: float | None, stuck_after_s: float):
        self._start_timeout_s, self._stuck_after_s = start_timeout_s, stuck_after_s
        self.begin()

    def begin(self) -> None:
        """Workers are wanted from now on."""
        self._alone_since_s = time.monotonic()
        self.heard()

    def heard(self) -> None:
        """Something was answered."""
        self._heard_at_s, self._warned = time.monotonic(), False

    def is_too_long(self, is_alone: bool) -> bool:
        """Whether the pool has been without a worker for longer than it may; `is_alone`: it is, and wants one."""
        now_s, limit_s = time.monotonic(), self._start_timeout_s
        if not is_alone:
            self._alone_since_s = now_s
        return is_alone and limit_s is not None and now_s - self._alone_since_s >= limit_s

    def is_stuck(self) -> bool:
        """Whether nothing was answered for so long that somebody should know; true once."""
        if self._warned or time.monotonic() - self._heard_at_s < self._stuck_after_s:
            return False
        self._warned = True
        return True


__all__ = ["START_ATTEMPTS", "FailedStarts", "NoWorkerError", "WaitClock"]
