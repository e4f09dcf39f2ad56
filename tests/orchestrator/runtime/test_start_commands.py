"""The lines of cluster.yaml that start Ray do start it, and what deploy/spot_watch.py says is understood by it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from metadata_fakes import NONE_YET, PATIENCE_S, metadata_service, notice_in, spot_watch_module, watch
from ray_fixtures import marked, wait_until, wait_until_gone

from orchestrator.runtime import ray_environment
from orchestrator.runtime.ray_backend import secure_ray

pytestmark = [pytest.mark.slow, pytest.mark.ray]
CONFIG = yaml.safe_load((Path(__file__).parents[3] / "cluster.yaml").read_text())
KIND = "g5.xlarge-spot"
HERE = {"head": "--block --include-dashboard=false", "worker": "--block"}
BUSY = """
import json, sys, ray
from ray._private.state import state
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=1, label_selector={"ray.io/market-type": "spot", "ray.io/accelerator-type": "A10G"})
class Busy:
    def where(self): return ray.get_runtime_context().get_node_id()
busy = Busy.remote()
print(ray.get(busy.where.remote(), timeout=60), flush=True)
print(json.dumps({node["NodeID"]: [node["Labels"], node["Resources"].get("CPU", 0)] for node in ray.nodes()}), flush=True)
sys.stdin.readline()
print(ray.get(busy.where.remote()), *state.get_draining_nodes(), flush=True)
"""


def start_command(role: str, node_type: str, port: int) -> str:
    """What the autoscaler would run on a node; its own port, no dashboard, and no cloud to scale."""
    from ray._private.services import get_node_ip_address
    from ray.autoscaler._private.command_runner import _with_environment_variables
    from ray.autoscaler._private.util import with_envs

    [command] = [command for command in CONFIG[f"{role}_start_ray_commands"] if "ray start" in command]
    command = command.replace("6379", str(port)).replace("--object-manager-port=8076", "")
    command = command.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "")
    [command] = with_envs(
        [f"{command} {HERE[role]} --object-store-memory=100000000"],
        {"RAY_HEAD_IP": get_node_ip_address(), "RAY_NODE_TYPE_NAME": node_type},
    )
    node = CONFIG["available_node_types"][node_type]
    given = {"RAY_OVERRIDE_RESOURCES": node["resources"], "RAY_OVERRIDE_LABELS": node["labels"]}
    return _with_environment_variables(command, given)


@contextmanager
def started(command: str) -> Iterator[subprocess.Popen]:
    """Run it until the end of the block; SIGTERM goes to its process group."""
    process = subprocess.Popen(["bash", "-c", command], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE_S)


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def raylets_of(address: str) -> set[str]:
    """The nodes of our cluster that the script finds on this machine."""
    with spot_watch_module() as spot_watch:
        return {raylet.node_id for raylet in spot_watch.find_raylets(Path("/proc")) if raylet.address == address}


@pytest.fixture(scope="module")
def address():
    """A head and a worker of type KIND, each started by its line of cluster.yaml."""
    from ray._private.services import get_node_ip_address

    secure_ray(make_token=True)
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    folder, address = ray_environment.TempDir(), f"{get_node_ip_address()}:{port}"
    with pytest.MonkeyPatch.context() as patch, marked() as mark:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("RAY_TMPDIR", folder.path)
        patch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
        try:
            with started(start_command("head", "head", port)) as head:
                wait_until(lambda: answers(address) or head.poll() is not None)
                assert head.poll() is None
                with started(start_command("worker", KIND, port)) as worker:
                    wait_until(lambda: len(raylets_of(address)) == 2 or worker.poll() is not None)
                    assert worker.poll() is None
                    yield address
        finally:
            wait_until_gone(mark)
            folder.remove()


@pytest.fixture
def busy(address):
    """A driver whose actor asks for a spot A10G and holds it."""
    command = [sys.executable, "-c", BUSY, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def test_nodes_have_their_labels_and_a_busy_one_is_drained_while_its_actor_goes_on(address, busy):
    """A node without work would leave at once: Ray ends what drains and is idle."""
    worker = busy.stdout.readline().strip()
    nodes = json.loads(busy.stdout.readline())
    labels, n_cpus = nodes.pop(worker)
    expected = CONFIG["available_node_types"][KIND]
    assert n_cpus == expected["resources"]["CPU"]
    assert labels == {**expected["labels"], "ray.io/node-group": KIND, "ray.io/node-id": worker}
    [[head, (head_labels, head_cpus)]] = nodes.items()
    assert (head_labels["ray.io/market-type"], head_cpus) == ("on-demand", 0)
    assert raylets_of(address) == {head, worker}
    with metadata_service("aws", NONE_YET, notice_in(3600)) as service:
        done = watch(service.url, Path(sys.executable).with_name("ray"), worker, address)
    assert done.returncode == 0, done.stderr
    said, _ = busy.communicate("\n", timeout=PATIENCE_S)
    assert said.split() == [worker, worker]
