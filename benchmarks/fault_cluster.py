"""A Ray cluster on this machine whose nodes can be removed, and an MLflow server. Only processes started here are ended, by pid."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import environment, wait_until

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 5}


class LocalCluster:
    """A head without CPUs and `n_nodes` nodes of one CPU each, with its own token."""

    def __init__(self, n_nodes: int, temp_dir: Path):
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_TMPDIR=str(temp_dir),
        )
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": SOON}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(n_nodes):
            self.add()

    @property
    def address(self) -> str:
        """host:port of the head."""
        return self._cluster.address

    @property
    def nodes(self) -> list[Any]:
        """The nodes other than the head."""
        return sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)

    def add(self) -> None:
        """Add a node."""
        self._cluster.add_node(**NODE)

    def remove(self, node: Any) -> None:
        """Kill a node without notice."""
        self._cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, seconds: float) -> None:
        """Announce that a node will be removed in `seconds`, as a cloud does for a spot machine."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + seconds) * 1000)
        GcsClient(address=self.address).drain_node(node.node_id, reason, "spot notice", deadline_ms)

    def close(self) -> None:
        """End every node."""
        self._cluster.shutdown()


class MlflowServer:
    """`mlflow server` on a free loopback port, over a SQLite file."""

    def __init__(self, folder: Path):
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it responds."""
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--workers",
            "1",
        ]
        command += [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ]
        with open(folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)
        wait_until(self._answers, 120, self._process)

    def stop(self) -> None:
        """End it and its worker processes, which run in a session of their own."""
        if self._process is not None:
            os.killpg(self._process.pid, 15)
            self._process.wait(60)
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True
