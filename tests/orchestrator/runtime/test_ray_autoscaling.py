from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from autoscaling import autoscaling_cluster
from joined import device_ids
from ray_fixtures import wait_until
from ray_tiny_task import WaitingRecipe, WatchedTask, tiny_context
from tiny_task import tiny_work, tiny_works

from orchestrator.runtime.driver import StopSignal, drive
from orchestrator.runtime.ray_backend import RayBackend
from orchestrator.scheduling.policies import Timing
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.ledger import Ledger

pytestmark = pytest.mark.slow


@dataclass
class NodeCounter:
    """A meter without a limit that says how many GPU nodes there are: `two` is touched at two, `one` when one of them has gone."""

    folder: Path
    peak: int = 0
    reason: str = ""
    is_used_up: bool = False

    def close(self) -> None:
        pass

    def workers_within(self, seconds) -> float:
        return math.inf

    def tick(self, nodes) -> None:
        kinds = [node.kind for node in nodes if node.n_gpus]
        assert set(kinds) <= {"gpu_spot"}
        self.peak = max(self.peak, len(kinds))
        if self.peak == 2:
            (self.folder / ("two" if len(kinds) == 2 else "one")).touch()


def test_nodes_come_for_a_campaign_and_go_one_by_one_while_it_ends(tmp_path):
    """40 retrains: the first two wait for the second node, the last one for a node to have gone that nothing needs any more."""
    waits = {1000: str(tmp_path / "two"), 1001: str(tmp_path / "two"), 1002: str(tmp_path / "one")}
    ordered = [tiny_work(1000), tiny_work(1001), *tiny_works(37).values(), tiny_work(1002)]
    works = {work.spec_id: work for work in ordered}
    context = tiny_context(WatchedTask(recipe=WaitingRecipe(waits=waits)))
    ledger, meter = Ledger(LocalBlobs(tmp_path / "store"), "task"), NodeCounter(tmp_path)
    with autoscaling_cluster() as address:

        def backend() -> RayBackend:
            return RayBackend(context, workers=2, gpus_per_worker=1, address=address, market={"retrains": "spot"})

        pool = backend()
        try:
            pool.want(0)
            pool.start()
            assert [node.n_gpus for node in pool.nodes()] == [0]
            scheduler = Scheduler(list(works), timing=Timing(idle_s=1.0))
            result = drive(scheduler, pool, ledger.publish, works, None, StopSignal(), code_version="test", meter=meter)
            assert result.complete
            assert (result.n_ok, dict(result.failures), meter.peak) == (40, {}, 2)
            pool.want(0)
            for worker in device_ids(pool):
                pool.release(worker)
            wait_until(lambda: [node.n_gpus for node in pool.nodes()] == [0])
        finally:
            pool.close()
    assert set(ledger.index().rows) == set(works)
    assert len(ledger.read().rows) == 40
