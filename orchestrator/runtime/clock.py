"""Time as the driver sees it, so that tests can have their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Now, today, and waiting."""

    def now(self) -> float:
        """Seconds, monotonic."""
        ...

    def utc(self) -> datetime:
        """The date, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds, monotonic."""
        return time.monotonic()

    def utc(self) -> datetime:
        """The date, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)
