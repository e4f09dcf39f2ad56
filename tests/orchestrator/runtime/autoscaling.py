"""A Ray cluster on this machine whose autoscaler adds and removes nodes: 0 to `max_nodes` nodes with a fake GPU each.

Ray's `AutoscalingCluster` stops every Ray on the machine; this starts a head of its own, and ends only its descendants.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray_fixtures import marked, processes, wait_until, wait_until_gone

from orchestrator.runtime import ray_environment
from orchestrator.runtime.ray_backend import secure_ray

HEAD_ID = "f" * 51 + "00000"  # the head's id that Ray's fake node provider expects
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
OBJECT_STORE_BYTES = 100 * 2**20
# Ray fills in these keys for its own provider types only; naming the same class as an external provider needs no file
# in Ray's package.
LISTS = ["initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"]
LISTS += [
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
]


@contextmanager
def autoscaling_cluster(max_nodes: int = 2, idle_timeout_s: float = 2.0) -> Iterator[str]:
    """Yield the address of a head without resources, whose autoscaler adds nodes of type `gpu_spot`, market spot."""
    secure_ray(make_token=True)
    folder = ray_environment.TempDir()
    with marked() as mark:
        ip, port = address_of_ours()
        config = Path(folder.path) / "autoscaling.json"
        config.write_text(json.dumps(autoscaling_config(f"{ip}:{port}", max_nodes, idle_timeout_s)))
        head = start_head(port, folder.path, config)
        try:
            wait_until(lambda: answers(ip, port) or head.poll() is not None)
            assert head.poll() is None, (Path(folder.path) / "head.log").read_text()
            yield f"{ip}:{port}"
        finally:
            stop_head(head, mark)
            folder.remove()


def autoscaling_config(address: str, max_nodes: int, idle_timeout_s: float) -> dict[str, Any]:
    """Return a cluster.yaml for nodes that are processes of this machine."""
    spot = {
        "resources": {"CPU": 1, "GPU": 1, "object_store_memory": OBJECT_STORE_BYTES},
        "labels": {
            "ray.io/market-type": "spot",
            "ray.io/node-group": "gpu_spot",
        },  # Ray adds the second label to a cloud's nodes
        "node_config": {},
        "min_workers": 0,
        "max_workers": max_nodes,
    }
    provider = {"type": "external", "module": PROVIDER, "head_node_id": HEAD_ID}
    return {
        "cluster_name": "fake",
        "max_workers": max_nodes,
        "provider": {**provider, "launch_multiple": True, "gcs_address": address},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu_spot": spot,
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_timeout_s / 60,
        **{"auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False},
        **{name: [] for name in LISTS},
    }


def start_head(port: int, folder: str, config: Path) -> subprocess.Popen[bytes]:
    """Run `ray start --head` as a child; its environment enables the fake provider and version 2 of the autoscaler."""
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    options = [f"--port={port}", "--num-cpus=0", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    options += ["--include-dashboard=false", f"--temp-dir={folder}/r", f"--autoscaling-config={config}"]
    ray = Path(sys.executable).with_name("ray")
    with open(f"{folder}/head.log", "wb") as log:
        command = [str(ray), "start", "--head", "--block", *options]
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)


def stop_head(head: subprocess.Popen[bytes], mark: str) -> None:
    """End the head as a user would, then its remaining agents, which would report to a dead head for a minute."""
    head.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        head.wait(30)
    for pid in processes(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    head.wait(30)
    wait_until_gone(mark)


def address_of_ours() -> tuple[str, int]:
    """Return the address that Ray's nodes use for this machine, and a free port there."""
    from ray._private.services import get_node_ip_address

    with socket.socket() as probe:
        probe.bind(("", 0))
        return get_node_ip_address(), probe.getsockname()[1]


def answers(ip: str, port: int) -> bool:
    """Return whether something listens there."""
    try:
        socket.create_connection((ip, port), 1.0).close()
    except OSError:
        return False
    return True
