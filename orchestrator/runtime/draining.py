"""Which nodes are about to be taken away. Imports no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

UNKNOWN_S = 30.0  # what the clouds that say least leave: GCP's notice
Draining = Callable[[], Mapping[str, float]]  # node id -> Unix time at which it goes away, 0 if nobody says


class DrainWatch:
    """Asks every few seconds, and remembers: a node that has been drained is gone from Ray's list before its workers are missed."""

    def __init__(self, draining: Draining, poll_s: float):
        self._draining, self._poll_s = draining, poll_s
        self._asked_at = -math.inf
        self._deadlines: dict[str, float] = {}

    def look(self) -> None:
        """Ask again, if it is time to."""
        if time.monotonic() - self._asked_at >= self._poll_s:
            self._asked_at = time.monotonic()
            for node, deadline in self._draining().items():
                self._deadlines[node] = deadline or self._deadlines.get(node, time.time() + UNKNOWN_S)

    def __contains__(self, node: str) -> bool:
        return node in self._deadlines

    def seconds_left(self, node: str) -> float:
        """Until a draining node goes away; if nobody says when, `UNKNOWN_S` after it was seen first."""
        return max(self._deadlines[node] - time.time(), 0.0)


__all__ = ["DrainWatch", "Draining"]
