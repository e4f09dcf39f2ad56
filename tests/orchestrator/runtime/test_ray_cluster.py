from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

import pytest
from joined import device_ids
from ray_fixtures import join, marked, refused, results, run_all, wait_until, wait_until_gone
from ray_tiny_task import HANGS, ResumableRecipe, WatchedRecipe, WatchedTask, tiny_context, tiny_job
from tiny_task import TinyTask, tiny_work, tiny_works

from orchestrator.runtime import ray_environment
from orchestrator.runtime.driver import StopSignal, drive
from orchestrator.runtime.local import LocalBackend
from orchestrator.runtime.ray_backend import RayBackend, secure_ray
from orchestrator.runtime.worker import retrain
from orchestrator.scheduling.events import WorkerDraining, WorkerJoined, WorkerLeft, WorkerLost
from orchestrator.scheduling.policies import Budgets, Timing
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.blobs import LocalBlobs
from orchestrator.storage.checkpoints import CheckpointStore

pytestmark = pytest.mark.slow
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 * 2**20}
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def own_temp_dir():
    """Sockets, logs and the file that `auto` reads are ours."""
    folder = ray_environment.TempDir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder.path)
        yield folder
    folder.remove()


@pytest.fixture(scope="module")
def cluster(own_temp_dir):
    """A head without CPUs and two nodes with a CPU and a fake GPU each."""
    secure_ray(make_token=True)
    from ray.cluster_utils import Cluster

    with marked() as mark:
        with ray_environment.driver_import_path():
            head = {**NODE, "num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "_system_config": SOON}
            cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                add_node(cluster, "spot")
            yield cluster
        finally:
            cluster.shutdown()
            wait_until_gone(mark)


def node_of(cluster, pool, worker):
    [gpu] = device_ids(pool)[worker]
    return next(node for node in cluster.worker_nodes if node.node_id == gpu.partition(":")[0])


def drain(cluster, node_id: str, seconds: float) -> float:
    """Announce that a node will be taken away: the Unix time at which it is said to go. Ray itself does nothing then."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client, deadline_s = GcsClient(address=cluster.address), time.time() + seconds
    accepted, why = client.drain_node(node_id, reason, "spot", int(deadline_s * 1000))
    assert accepted, why
    return deadline_s


def add_node(cluster, market: str):
    """One more node, labelled."""
    with ray_environment.driver_import_path():
        return cluster.add_node(**NODE, labels={"ray.io/market-type": market})


def lose_node(cluster, pool, work, at) -> list:
    """Take the node away from under the first worker while it trains; the events that follow, replacement included."""
    worker = next(iter(device_ids(pool)))
    pool.submit(worker, work, 1)
    wait_until(at.exists)
    node = node_of(cluster, pool, worker)
    if work.spec.seed == HANGS:
        deadline_s = drain(cluster, node.node_id, 1.0)  # once it has passed, Ray calls a death there a preemption
        wait_until(lambda: time.time() > deadline_s)
    add_node(cluster, "spot")
    cluster.remove_node(node, allow_graceful=False)
    events: list = []
    wait_until(lambda: events.extend(e for e in pool.wait(0.5) if not isinstance(e, WorkerDraining)) or len(events) > 1)
    assert isinstance(events[0], WorkerLost)
    assert events[0].worker == worker
    assert isinstance(events[1], WorkerJoined)
    return events


def test_preemption_and_loss_of_a_node_are_told_from_a_crash_and_the_rest_goes_on(cluster, tmp_path):
    task = WatchedTask(recipe=WatchedRecipe(hang_in=str(tmp_path)))
    pool = RayBackend(tiny_context(task), workers=2, gpus_per_worker=1, address=cluster.address)
    try:
        join(pool, 2)
        assert len({node_of(cluster, pool, worker).node_id for worker in device_ids(pool)}) == 2
        assert lose_node(cluster, pool, tiny_work(HANGS), tmp_path / f"{HANGS}")[0].kind == "preempted"
        assert lose_node(cluster, pool, tiny_work(HANGS + 1), tmp_path / f"{HANGS + 1}")[0].kind == "node_lost"
        assert len(run_all(pool, tiny_works(4))[0]) == 4
    finally:
        pool.close()
    assert len(cluster.worker_nodes) == 2
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


@dataclass
class DrainOnce:
    """A meter without a limit that announces the end of the first retrain's node as soon as that is known."""

    cluster: object
    folder: Path
    reason: str = ""
    drained: str = ""
    is_used_up: bool = False

    def close(self) -> None:
        pass

    def workers_within(self, seconds) -> float:
        return math.inf

    def tick(self, nodes) -> None:
        assert {node.kind for node in nodes} == {"default"}
        if not self.drained and (self.folder / "first").exists():
            self.drained = (self.folder / "first").read_text()
            drain(self.cluster, self.drained, 12.0)  # 10 s of them are kept for storing how far it is


def test_a_retrain_on_a_draining_node_is_given_back_and_goes_on_elsewhere_at_no_charge(cluster, tmp_path):
    """No retry is allowed here: the work moves from the node whose end is announced before it comes."""
    context = tiny_context(TinyTask(recipe=ResumableRecipe(seen_in=str(tmp_path))))
    context = replace(context, checkpoints=CheckpointStore(LocalBlobs(tmp_path / "store")))
    long, works = tiny_work(HANGS), tiny_works(4)
    works[long.spec_id] = long
    rows: dict = {}
    publish = lambda published: rows.update({row.spec_id: row.outcome for row in published})  # noqa: E731
    pool = RayBackend(context, workers=2, gpus_per_worker=1, address=cluster.address, drain_poll_s=0.2)
    meter = DrainOnce(cluster, tmp_path)
    try:
        scheduler = Scheduler([long.spec_id, *tiny_works(4)], Budgets(retries=0), timing=Timing(drain_margin_s=10.0))
        result = drive(scheduler, pool, publish, works, None, StopSignal(), code_version="test", meter=meter)
        assert all(not gpu.startswith(meter.drained) for gpus in device_ids(pool).values() for gpu in gpus)
        assert meter.drained in {node.node_id for node in cluster.worker_nodes}
    finally:
        pool.close()
    assert result.complete
    assert (result.n_ok, result.n_attempts, dict(result.failures)) == (5, 6, {"preempted": 1})
    assert (tmp_path / "second").read_text() != meter.drained
    quiet = {spec_id: retrain(tiny_context(TinyTask()), work, "") for spec_id, work in works.items()}
    assert results(rows) == results({spec_id: quiet[spec_id] for spec_id in rows})


def remove_where_it_hangs(cluster, folder: Path) -> None:
    """Take away the node of the scorer that hangs, which has left its pid and its node in `folder`."""
    wait_until((folder / "scorer").exists)
    node_id = (folder / f"2.pid-{(folder / 'scorer').read_text()}").read_text()
    cluster.remove_node(next(n for n in cluster.worker_nodes if n.node_id == node_id), allow_graceful=False)


def test_gradient_workers_stay_in_their_market_and_a_lost_one_is_replaced_there(cluster, tmp_path):
    """Its node is taken away while it scores: others do its ranges, each once, to the same bytes."""
    ranges = [(start, start + 2) for start in range(0, 12, 2)]
    steady = [add_node(cluster, "on-demand") for _ in range(2)]
    n_nodes = len(cluster.worker_nodes)
    context = tiny_context()
    market = {"gradients": "on-demand", "retrains": "spot"}
    pool = RayBackend(context, workers=2, gpus_per_worker=1, address=cluster.address, market=market)
    try:
        join(pool, 1)
        removal = Thread(target=remove_where_it_hangs, args=(cluster, tmp_path))
        removal.start()
        blocks = list(pool.score(tiny_job(ranges, hang_in=str(tmp_path), seen_in=str(tmp_path))))
        removal.join()
        assert isinstance(pool.wait(1.0)[0], WorkerLeft)
    finally:
        pool.close()
    assert {file.read_text() for file in tmp_path.glob("*.pid-*")} <= {node.node_id for node in steady}
    assert len(cluster.worker_nodes) == n_nodes - 1
    assert sorted((b.start, b.stop) for b in blocks) == ranges
    expected = {b.start: b.scores["products"].tobytes() for b in LocalBackend(context).score(tiny_job(ranges))}
    assert {b.start: b.scores["products"].tobytes() for b in blocks} == expected


@pytest.mark.parametrize("token", ["0" * 64, ""])
def test_who_has_another_token_or_none_is_refused(cluster, token, tmp_path):
    said = refused(cluster.address, RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    assert said.startswith(f"--address: no Ray cluster at {cluster.address!r} accepts this machine's token"), said
