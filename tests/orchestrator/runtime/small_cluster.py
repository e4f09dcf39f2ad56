"""A cluster without Ray, for tests of the pool and of the backend built on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.runtime.backend import ScoreBlock
from orchestrator.runtime.ray_worker import Failure, Joined, Place
from orchestrator.scheduling.budget import Node


@dataclass
class Actor:
    """One worker of the cluster below; its calls are answered when the test decides."""

    name: str
    labels: dict[str, str]
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def __getattr__(self, method: str) -> Any:
        actor = self

        class Method:
            def remote(self, *arguments: Any) -> tuple[str, int]:
                actor.calls.append((method, arguments))
                return actor.name, len(actor.calls)

        return Method()


class SmallCluster:
    """A cluster with a fixed number of nodes with one place each; actors get places in the order of their start, and join at once.

    It answers short calls (a probe, a score range) itself; `reply` gives the result of a retrain.
    """

    def __init__(self, places: int):
        self.free = [f"node-{i}" for i in range(places)]
        self.actors: dict[str, Actor] = {}
        self.places: dict[str, str] = {}
        self.answers: dict[tuple[str, int], Any] = {}
        self.drains: dict[str, float] = {}
        self.dead: set[str] = set()
        self.refuses: Failure | None = None
        self.hangs: set[str] = set()  # names of methods whose calls are never answered
        self.n_listed = 0  # how often `nodes` was called

    def start_worker(self, name, resources, labels) -> Actor:
        self.actors[name] = Actor(name, dict(labels))
        return self.actors[name]

    def kill(self, actor) -> None:
        del self.actors[actor.name]
        if actor.name in self.places:
            self.free.insert(0, self.places.pop(actor.name))

    def ready(self, calls, timeout_s) -> list[Any]:
        for actor in self.actors.values():
            self._advance(actor)
        return [call for call in calls if call in self.answers]

    def _advance(self, actor: Actor) -> None:
        method, arguments = actor.calls[-1]
        call = actor.name, len(actor.calls)
        if call in self.answers or method in self.hangs:
            return
        if method == "arrive" and self.free:
            self.places[actor.name] = self.free.pop(0)
            self.answers[call] = Place(self.places[actor.name], ())
        elif method == "join":
            self.answers[call] = self.refuses or Joined(1)
        elif method == "probe":
            self.answers[call] = replace(arguments[0], device_model="a GPU")
        elif method == "score":
            self.answers[call] = ScoreBlock(*arguments[1:], {})

    def answer(self, call) -> Any:
        return self.answers[call]

    def nodes(self) -> list[Node]:
        self.n_listed += 1
        return [Node(node, "n") for node in {*self.free, *self.places.values()} - self.dead]

    def draining(self) -> dict[str, float]:
        return dict(self.drains)

    def offered(self, resource) -> float:
        return 4.0

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def put(self, value: Any) -> Any:
        return value

    def reply(self, name: str, what: Any) -> None:
        """Answer the worker's last call."""
        self.answers[name, len(self.actors[name].calls)] = what
