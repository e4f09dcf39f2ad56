"""Tracks which nodes are being drained or are gone, which decides why a worker died. Imports no ray."""

from __future__ import annotations

import math
import time

from orchestrator.runtime.cluster import Cluster
from orchestrator.runtime.ray_worker import Lost

UNKNOWN_S = 30.0  # assumed time until a draining node without a deadline is gone: the shortest notice of any cloud


class NodeWatch:
    """Polls the draining nodes every `poll_s` seconds and remembers them.

    It must remember them, because Ray removes a node from its list before it reports the node's workers as dead.
    """

    def __init__(self, cluster: Cluster, poll_s: float):
        self._cluster, self._poll_s = cluster, poll_s
        self._polled_at_s = -math.inf
        self._deadlines: dict[str, float] = {}  # draining node -> Unix time
        self._alive: set[str] | None = None

    def poll(self) -> None:
        """Update the draining nodes, if the last update is at least `poll_s` old."""
        if time.monotonic() - self._polled_at_s >= self._poll_s:
            self._polled_at_s = time.monotonic()
            for node, deadline in self._cluster.draining().items():
                self._deadlines[node] = deadline or self._deadlines.get(node, time.time() + UNKNOWN_S)

    def drains(self, node: str) -> bool:
        """Return whether a node is or was being drained."""
        return node in self._deadlines

    def seconds_left(self, node: str) -> float:
        """Return the seconds until a draining node is gone; without a deadline it goes `UNKNOWN_S` after it was first seen."""
        return max(self._deadlines[node] - time.time(), 0.0)

    def forget_alive(self) -> None:
        """Drop the cached list of nodes, which may still contain a node that has died since."""
        self._alive = None

    def attribute(self, node: str, lost: Lost) -> Lost:
        """Correct the kind of a loss: preempted if the node was being drained, node_lost if the node is gone."""
        if lost.kind not in ("error", "node_lost"):
            return lost
        if self.drains(node):
            return Lost("preempted", lost.message)
        if self._alive is None:
            self._alive = {alive.node_id for alive in self._cluster.nodes()}
        return lost if node in self._alive else Lost("node_lost", lost.message)


__all__ = ["NodeWatch"]
