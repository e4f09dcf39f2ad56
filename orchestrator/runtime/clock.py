"""The clock of the driver, an interface so that tests can use a simulated one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Monotonic time, calendar time and sleeping."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        ...

    def utc(self) -> datetime:
        """Return the calendar time in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def utc(self) -> datetime:
        """Return the calendar time in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        time.sleep(seconds)
