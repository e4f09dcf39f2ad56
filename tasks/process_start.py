"""Finds the time at which this process started."""

from __future__ import annotations

import os
import time
from pathlib import Path

_START = 19  # field 22 of /proc/<pid>/stat, counted after the name of the process: start in ticks since boot


def process_start() -> float:
    """Return when this process started, in seconds since the epoch; without /proc, return the present time."""
    now = time.time()
    try:
        ticks = int(Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()[_START])
        seconds_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - max(0.0, seconds_ago)
