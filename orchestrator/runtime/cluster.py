"""The interface of a cluster that a pool uses, and the message for a cluster that is too small. Imports no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.runtime.ray_worker import Answer, Lost
from orchestrator.scheduling.budget import Node


@dataclass(frozen=True)
class Unreachable:
    """The connection to a worker broke, and Ray does not know yet whether its process is alive."""

    message: str


class Cluster(Protocol):
    """A Ray cluster; the only implementation is in ray_backend.py. Actors and calls are opaque objects."""

    def start_worker(self, name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Any: ...

    def kill(self, actor: Any) -> None: ...

    def ready(self, calls: list[Any], timeout_s: float) -> list[Any]: ...

    def answer(self, call: Any) -> Answer | Lost | Unreachable: ...

    def nodes(self) -> list[Node]: ...

    def draining(self) -> Mapping[str, float]: ...

    def offered(self, resource: str) -> float: ...


def shortage(cluster: Cluster, resources: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """Say what a worker needs and what the cluster has, as in
    `each needs 1 GPU on nodes labelled k=v, the cluster has 4 CPU and 0 GPU`.
    """
    wanted = " and ".join(f"{amount:g} {name[4:7].upper()}" for name, amount in resources.items() if amount)
    offered = " and ".join(f"{cluster.offered(name):g} {name}" for name in ("CPU", "GPU"))
    on = f" on nodes labelled {', '.join(f'{k}={v}' for k, v in labels.items())}" if labels else ""
    return f"each needs {wanted}{on}, the cluster has {offered}"


__all__ = ["Cluster", "Unreachable", "shortage"]
