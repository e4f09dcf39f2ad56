"""What a pool needs of a cluster, and how one says that it is too small. Imports no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.runtime.ray_worker import Answer, Lost
from orchestrator.scheduling.budget import Node


@dataclass(frozen=True)
class Doubt:
    """The connection to a worker broke, and nobody knows yet whether it lives."""

    message: str


class Cluster(Protocol):
    """The only implementation is in ray_backend.py. Actors and calls are opaque."""

    def start_worker(self, name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Any: ...

    def kill(self, actor: Any) -> None: ...

    def ready(self, calls: list[Any], timeout_s: float) -> list[Any]: ...

    def answer(self, call: Any) -> Answer | Lost | Doubt: ...

    def nodes(self) -> list[Node]: ...

    def draining(self) -> Mapping[str, float]: ...

    def offered(self, resource: str) -> float: ...


def shortage(cluster: Cluster, resources: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """What each worker needs and what there is: `each needs 1 GPU on nodes labelled k=v, the cluster has 4 CPU and 0 GPU`."""
    wanted = " and ".join(f"{amount:g} {name[4:7].upper()}" for name, amount in resources.items() if amount)
    offered = " and ".join(f"{cluster.offered(name):g} {name}" for name in ("CPU", "GPU"))
    on = f" on nodes labelled {', '.join(f'{k}={v}' for k, v in labels.items())}" if labels else ""
    return f"each needs {wanted}{on}, the cluster has {offered}"


__all__ = ["Cluster", "Doubt", "shortage"]
