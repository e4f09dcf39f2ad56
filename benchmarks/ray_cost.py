"""The cost of Ray and of the pool of actors for the driver, without scheduler and ledger: CPU of the driver process per retrain.

Ray: no-op calls on a few local actors, with a real work item as the argument and outputs of a real size as the result,
through `ray.wait` and `ray.get` as the backend uses them; once with as many references as actors, once with a thousand
(the others never end). Pool: the real pool with a thousand workers over a cluster that responds at once, so that only
the pool's own bookkeeping is measured.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray

from benchmarks.harness import ROOT, machine, write_json
from benchmarks.simulate import works_of
from orchestrator.records import Outcome, Work
from orchestrator.runtime.pool import Pool, PoolOptions
from orchestrator.runtime.ray_backend import secure_ray
from orchestrator.runtime.ray_calls import Happening
from orchestrator.runtime.ray_environment import TempDir
from orchestrator.runtime.ray_worker import Attempted, Joined, Place
from orchestrator.scheduling.budget import Node

OBJECT_STORE_BYTES = 100 * 2**20


@ray.remote(num_cpus=0)
class NoOp:
    """An actor that returns outputs of a real size, or never returns."""

    def __init__(self) -> None:
        self.outputs = {"test": np.zeros((500, 4), np.float32)}

    def retrain(self, work: Work) -> Outcome:
        """Return outputs without training."""
        return Outcome(work.spec_id, "ok", self.outputs, {"loss": 0.5}, None, 1.0, "w", "cpu")

    def hang(self) -> None:
        """Run for ever."""
        time.sleep(3600)


def on_ray(n_calls: int, n_actors: int, n_references: int) -> dict[str, float]:
    """Return CPU and wall-clock milliseconds of the driver per call, while it waits for `n_references` references."""
    works = itertools.cycle(works_of(100, 0).values())
    actors = [NoOp.remote() for _ in range(n_actors)]
    hanging = NoOp.remote()
    others = [hanging.hang.remote() for _ in range(n_references - n_actors)]
    ray.get([actor.retrain.remote(next(works)) for actor in actors])
    calls = {actor.retrain.remote(next(works)): actor for actor in actors}
    cpu, wall, n = time.process_time(), time.perf_counter(), 0
    while n < n_calls:
        references = [*calls, *others]
        ray.wait(references, timeout=1.0)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            actor = calls.pop(reference)
            ray.get(reference)
            calls[actor.retrain.remote(next(works))] = actor
        n += len(ready)
    spent = {"cpu_ms": 1e3 * (time.process_time() - cpu) / n, "wall_ms": 1e3 * (time.perf_counter() - wall) / n}
    for actor in (*actors, hanging):
        ray.kill(actor)
    return spent


def measure_ray(n_calls: int) -> dict[str, dict[str, float]]:
    """Measure on a Ray of our own, with its token, which is stopped at the end."""
    secure_ray(make_token=True)
    folder = TempDir()
    try:
        ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
                 log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder.path)  # fmt: skip
        return {f"{n} references": on_ray(n_calls, 4, n) for n in (4, 1000)}
    finally:
        ray.shutdown()
        folder.remove()


class InstantCluster:
    """A cluster in which every actor starts at once and `per_round` retrains end between two polls."""

    def __init__(self, per_round: int):
        self.per_round = per_round
        self._serial = itertools.count()

    def start_worker(self, name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Any:
        def call(kind: str) -> Any:
            return SimpleNamespace(remote=lambda *arguments: (next(self._serial), kind))

        return SimpleNamespace(**{kind: call(kind) for kind in ("arrive", "join", "retrain")})

    def kill(self, actor: Any) -> None:
        """Do nothing, because there is no process to end."""

    def ready(self, calls: list[Any], timeout_s: float) -> list[Any]:
        joining = [call for call in calls if call[1] != "retrain"]
        return joining or calls[: self.per_round]

    def answer(self, call: Any) -> Any:
        _, kind = call
        return {"arrive": Place("n", ()), "join": Joined(1), "retrain": Attempted(Outcome("s", "ok"))}[kind]

    def nodes(self) -> list[Node]:
        return []

    def draining(self) -> Mapping[str, float]:
        return {}

    def offered(self, resource: str) -> float:
        return 0.0


def pool_cpu_ms(n_workers: int, per_round: int, rounds: int) -> float:
    """Return CPU milliseconds of one round of the pool in which `per_round` retrains end and as many start."""
    work = next(iter(works_of(1, 0).values()))
    options = PoolOptions(n_workers, pending_workers=n_workers)
    pool = Pool(InstantCluster(per_round), None, options, "retrains", itertools.count())
    pool.want(n_workers)
    while not all(slot.is_idle for slot in pool.slots.values()):
        pool.poll(0.1)
    for name in pool.slots:
        pool.submit(name, work)
    begun = time.process_time()
    for _ in range(rounds):
        ended: list[Happening] = pool.poll(0.1)
        for happening in ended:
            pool.submit(happening.worker, work)
    return 1e3 * (time.process_time() - begun) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1000, help="workers of the pool")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ray_cost.json")
    options = parser.parse_args()
    result = {
        "ray": measure_ray(options.calls),
        "pool_cpu_ms_per_round": {str(n): pool_cpu_ms(options.workers, n, 300) for n in (1, 10, 50)},
        "pool_workers": options.workers,
    }
    print(result)
    write_json(options.out, {**result, "machine": machine()})


if __name__ == "__main__":
    main()
