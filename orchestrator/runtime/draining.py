"""Which nodes are about to be taken away or have gone, and so whose fault the death of a worker is. Imports no ray."""

from __future__ import annotations

import math
import time

from orchestrator.runtime.cluster import Cluster
from orchestrator.runtime.ray_worker import Lost

UNKNOWN_S = 30.0  # until a node goes of which nobody says when: the shortest notice a cloud gives


class NodeWatch:
    """Asks which nodes drain every few seconds, and remembers: such a node is gone from Ray's list before its workers are missed."""

    def __init__(self, cluster: Cluster, poll_s: float):
        self._cluster, self._poll_s = cluster, poll_s
        self._asked_at_s = -math.inf
        self._deadlines: dict[str, float] = {}  # draining node -> Unix time
        self._alive: set[str] | None = None

    def look(self) -> None:
        """Ask which nodes drain, if it is time to."""
        if time.monotonic() - self._asked_at_s >= self._poll_s:
            self._asked_at_s = time.monotonic()
            for node, deadline in self._cluster.draining().items():
                self._deadlines[node] = deadline or self._deadlines.get(node, time.time() + UNKNOWN_S)

    def drains(self, node: str) -> bool:
        """Whether a node is, or was, about to go."""
        return node in self._deadlines

    def seconds_left(self, node: str) -> float:
        """Until a draining node goes; if nobody says when, `UNKNOWN_S` after it was seen first."""
        return max(self._deadlines[node] - time.time(), 0.0)

    def news(self) -> None:
        """Answers are about to come: a node that took workers with it may still be in the list at hand."""
        self._alive = None

    def blame(self, node: str, lost: Lost) -> Lost:
        """A death on a node that was drained, or that is gone, is not the worker's fault."""
        if lost.kind not in ("error", "node_lost"):
            return lost
        if self.drains(node):
            return Lost("preempted", lost.message)
        if self._alive is None:
            self._alive = {alive.node_id for alive in self._cluster.nodes()}
        return lost if node in self._alive else Lost("node_lost", lost.message)


__all__ = ["NodeWatch"]
