from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ray_fixtures import events_until, join, marked, run_all, wait_until, wait_until_gone
from ray_tiny_task import HANGS, WatchedRecipe, WatchedTask, tiny_context
from tiny_task import tiny_work, tiny_works

from orchestrator.runtime import ray_environment
from orchestrator.runtime.ray_backend import RayBackend, secure_ray
from orchestrator.scheduling.events import WorkerJoined, WorkerLost

pytestmark = pytest.mark.slow
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 * 2**20}
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
STRANGER = """
from orchestrator.runtime.ray_backend import RayBackend
from tasks.errors import InputError
try:
    RayBackend(None, address={address!r}).start()
except InputError as error:
    print(error)
"""


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
            for _ in range(2):
                cluster.add_node(**NODE)
        try:
            yield cluster
        finally:
            cluster.shutdown()
            wait_until_gone(mark)


def node_of(cluster, pool, worker):
    [gpu] = pool.device_ids()[worker]
    return next(node for node in cluster.worker_nodes if node.node_id == gpu.partition(":")[0])


def announce_preemption(cluster, node) -> None:
    """Ray calls a death a preemption if the node was drained as such and its deadline has passed."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client, deadline_s = GcsClient(address=cluster.address), time.time() + 1
    accepted, why = client.drain_node(node.node_id, reason, "spot", int(deadline_s * 1000))
    assert accepted, why
    wait_until(lambda: time.time() > deadline_s)


def lose_node(cluster, pool, work, at) -> list:
    """Take the node away from under the first worker while it trains; the events that follow, replacement included."""
    worker = next(iter(pool.device_ids()))
    pool.submit(worker, work, 1)
    wait_until(at.exists)
    node = node_of(cluster, pool, worker)
    if work.spec.seed == HANGS:
        announce_preemption(cluster, node)
    with ray_environment.driver_import_path():
        cluster.add_node(**NODE)
    cluster.remove_node(node, allow_graceful=False)
    events = events_until(pool, lambda seen: len(seen) >= 2)
    assert isinstance(events[0], WorkerLost)
    assert events[0].worker == worker
    assert isinstance(events[1], WorkerJoined)
    return events


def test_preemption_and_loss_of_a_node_are_told_from_a_crash_and_the_rest_goes_on(cluster, tmp_path):
    task = WatchedTask(recipe=WatchedRecipe(hang_in=str(tmp_path)))
    pool = RayBackend(tiny_context(task), workers=2, gpus_per_worker=1, address=cluster.address)
    try:
        join(pool, 2)
        assert len({node_of(cluster, pool, worker).node_id for worker in pool.device_ids()}) == 2
        assert lose_node(cluster, pool, tiny_work(HANGS), tmp_path / f"{HANGS}")[0].kind == "preempted"
        assert lose_node(cluster, pool, tiny_work(HANGS + 1), tmp_path / f"{HANGS + 1}")[0].kind == "node_lost"
        assert len(run_all(pool, tiny_works(4))[0]) == 4
    finally:
        pool.close()
    assert len(cluster.worker_nodes) == 2
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


def test_who_has_another_token_is_refused(cluster):
    environment = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64, "RAY_NUM_REDIS_GET_RETRIES": "2"}
    stranger = subprocess.run(
        [sys.executable, "-c", STRANGER.format(address=cluster.address)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert stranger.stdout.startswith("--address: no Ray cluster that takes our token answers at"), stranger
