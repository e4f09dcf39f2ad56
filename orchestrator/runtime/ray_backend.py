"""Retrains and scores on Ray with long-lived actors that share one copy of the task. No other module imports ray."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import ray
from ray import exceptions as failures
from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]  compiled

from orchestrator.runtime import ray_environment as environment
from orchestrator.runtime.backend import WorkerContext
from orchestrator.runtime.cluster import Unreachable
from orchestrator.runtime.elastic import ElasticBackend
from orchestrator.runtime.placement import MARKET, NODE_GROUP, Placement
from orchestrator.runtime.pool import PoolOptions
from orchestrator.runtime.ray_worker import Answer, Failure, Joined, Lost, Place, WorkerProcess
from orchestrator.runtime.worker import LONGEST_MESSAGE, describe
from orchestrator.scheduling.budget import Node
from tasks.errors import InputError

log = logging.getLogger(__name__)
OBJECT_STORE_BYTES = 512 * 2**20  # size of the object store of a Ray that Refit starts; Ray spills the rest to disk
FETCH_TIMEOUT_S = 300.0  # limit for fetching a result that is ready
CONTROL = "control"  # the concurrency group whose calls reach an actor that is busy


class RayWorker(WorkerProcess):
    """The Ray actor. Ray replaces references in its arguments by objects whose arrays are read-only views.

    Calls of the concurrency group CONTROL run in their own thread. All other calls run in one thread, always the same,
    which is not the main thread.
    """

    def arrive(self) -> Place:
        """Return the node and GPUs of this process, before torch or other large modules are imported."""
        node = ray.get_runtime_context().get_node_id()
        return Place(node, tuple(f"{node}:{gpu}" for gpu in ray.get_gpu_ids()))

    def join(self, context: WorkerContext) -> Joined | Failure:
        """Prepare this process for work."""
        return self.get_ready(context)

    @ray.method(concurrency_group=CONTROL)
    def give_back(self, ticket: int) -> None:
        """Request that the running retrain with number `ticket` stops."""
        super().give_back(ticket)


class RayBackend(ElasticBackend):
    """A pool of at most `workers` actors, whose size follows `want`.

    With `address` None a local Ray is started, which `close` stops; otherwise the cluster at `address` is joined, and
    `close` only disconnects. Actors that do not fit yet, at most `pending_workers` of them, join when the cluster has
    grown. A lost worker is replaced by one with a new name. If a retrain or a score range takes longer than `timeout_s`
    seconds, its worker is ended: WorkerLost(kind="timeout"). If there is no worker for `start_timeout_s` seconds (None:
    no limit), NoWorkerError is raised.

    On a cluster, actors are placed on nodes with the accelerator that the numerics are pinned to (`accelerator` overrides
    it), in the market of their role (`market`: gradients, retrains, tail -> spot | on-demand). `recycle_after`: number of
    retrains after which a process is replaced.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        workers: int = 1,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        timeout_s: float | None = None,
        address: str | None = None,
        accelerator: str | None = None,
        market: Mapping[str, str | None] | None = None,
        pending_workers: int = 16,
        recycle_after: int | None = None,
        start_timeout_s: float | None = 1800.0,
        drain_poll_s: float = 3.0,
        stuck_after_s: float = 600.0,
    ):
        session = _RaySession(address, math.ceil(workers * cpus_per_worker), gpus_per_worker > 0)
        session.worker_arguments = (context.numerics.threads, recycle_after, min(gpus_per_worker, 1.0) or 1.0)
        options = PoolOptions(
            workers,
            {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker},
            Placement() if address is None else Placement.of(context.numerics, accelerator, market or {}),
            pending_workers,
            timeout_s,
            start_timeout_s,
            drain_poll_s,
            stuck_after_s,
        )
        super().__init__(context, session, options)


def secure_ray(*, make_token: bool) -> None:
    """Turn token authentication on, here and in child processes; `make_token`: create a token if there is none."""
    environment.secure(os.environ, make_token=make_token)
    Config.initialize("")  # Ray has read the environment at import, before the change


def check_cluster(address: str) -> str:
    """Check that a cluster answers at `address`, without joining it, and return its host:port.

    For `auto` this is the cluster that Ray itself finds. Raises InputError.
    """
    found = environment.found_address(_find) if address == "auto" else address
    environment.check_address(found)
    return found


def _find() -> str | None:
    """Return the address that Ray uses for `auto`: RAY_ADDRESS, else that of a Ray on this machine.

    Raises ConnectionError if there is none.
    """
    from ray._private.services import get_ray_address_from_environment

    return get_ray_address_from_environment("auto", None)


class _RaySession:
    """The connection to a Ray that Refit starts, to a cluster, or to a Ray that this process has already joined.

    The last one is not shut down by `close`.
    """

    worker_arguments: tuple[Any, ...] = ()  # arguments of every actor after its name

    def __init__(self, address: str | None, num_cpus: int, gpus: bool):
        self._address, self._num_cpus, self._gpus = address, num_cpus, gpus
        self._temp_dir: environment.TempDir | None = None
        self._opened = False

    def open(self) -> None:
        """Connect. Raises InputError if the cluster does not answer, has another token, or a required GPU is missing."""
        if not ray.is_initialized():
            self._connect()
        self._clear_requests()

    def _connect(self) -> None:
        secure_ray(make_token=self._address is None)
        with environment.keeping_sigterm(), environment.driver_import_path():
            self._opened = True
            if self._address is None:
                self._start_local()
            else:
                self._join_cluster(self._address)

    def _start_local(self) -> None:
        self._temp_dir = environment.TempDir()
        ray.init(
            "local",
            num_cpus=max(1, self._num_cpus),
            num_gpus=None if self._gpus else 0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=self._temp_dir.path,
        )
        if self._gpus and not ray.cluster_resources().get("GPU"):
            self.close()
            raise InputError(
                "compute.gpus_per_worker", "this machine has no GPU; allowed: 0, or a cluster with --address"
            )

    def _join_cluster(self, address: str) -> None:
        found = check_cluster(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (failures.AuthenticationError, ConnectionError) as error:  # check_cluster has reached a server there
            hint = "set RAY_AUTH_TOKEN_PATH to the cluster's token file, or RAY_AUTH_MODE=disabled if it uses no token"
            problem = f"no Ray cluster at {found!r} accepts this machine's token; {hint}"
            raise InputError("--address", problem) from error

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here. A second call of `close` has no effect."""
        self._clear_requests()
        if self._opened:
            ray.shutdown()
        if self._temp_dir is not None:
            self._temp_dir.remove()
        self._opened, self._temp_dir = False, None

    def _clear_requests(self) -> None:
        """Withdraw requests that a crashed driver may have left at the autoscaler, since they keep paid nodes running."""
        if self._address is None or not ray.is_initialized():
            return
        from ray.autoscaler.sdk import request_resources

        try:
            request_resources(num_cpus=0)
        except Exception as error:  # a cluster that is gone has no requests
            log.warning("cannot clear the cluster's resource requests: %s", _one_line(error))

    # --- what a pool needs -----------------------------------------------------------------------------------------

    def put(self, value: Any) -> Any:
        """Put `value` in the object store and return a reference that every worker can read."""
        return ray.put(value)

    def start_worker(self, name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Any:
        """Request an actor without waiting for it."""
        options = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False, **resources}
        options |= {"label_selector": dict(labels)} if labels else {}
        return self._actor_class.options(**options).remote(name, *self.worker_arguments)

    @cached_property
    def _actor_class(self) -> Any:  # cached, since making the class takes ten times as long as making an actor
        return ray.remote(concurrency_groups={CONTROL: 1})(RayWorker)  # pyright: ignore[reportCallIssue]

    def kill(self, actor: Any) -> None:
        """End an actor, or withdraw the request for it."""
        if ray.is_initialized():
            ray.kill(actor, no_restart=True)

    def ready(self, calls: list[Any], timeout_s: float) -> list[Any]:
        """Return all answered calls as soon as there is one; [] after `timeout_s`."""
        ready, _ = ray.wait(calls, timeout=timeout_s)
        return ray.wait(calls, num_returns=len(calls), timeout=0)[0] if ready else []

    def answer(self, call: Any) -> Answer | Lost | Unreachable:
        """Return the answer to a call that is ready, or what its exception means."""
        try:
            return cast(Answer, ray.get(call, timeout=FETCH_TIMEOUT_S))
        except failures.RayTaskError as error:
            return Failure("error", describe(error.cause or error))
        except failures.ActorUnavailableError as error:
            return Unreachable(_one_line(error))
        except failures.OutOfMemoryError as error:
            return Lost("host_memory", _one_line(error))
        except failures.RayError as error:
            if getattr(error, "preempted", False):
                return Lost("preempted", _one_line(error))
            is_node = isinstance(error, (failures.NodeDiedError, failures.ObjectLostError))
            return Lost("node_lost" if is_node else "error", _one_line(error))

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive; their kind is the node type of cluster.yaml, which Ray's launcher sets as a label."""
        kind = "local" if self._address is None else "default"
        return [
            Node(
                node["NodeID"],
                node["Labels"].get(NODE_GROUP, kind),
                node["Resources"].get("GPU", 0.0),
                node["Labels"].get(MARKET, ""),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def draining(self) -> dict[str, float]:
        """Return draining node -> Unix time at which it is removed, 0 if unknown.

        This uses a private API of Ray; if a version of Ray lacks it, no node counts as draining.
        """
        try:
            deadlines_ms = ray._private.state.state.get_draining_nodes()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
        except Exception as error:
            log.debug("cannot list the draining nodes: %s", _one_line(error))
            return {}
        return {node: deadline_ms / 1000 for node, deadline_ms in deadlines_ms.items()}

    def offered(self, resource: str) -> float:
        """Return how much of a resource the cluster has now."""
        return ray.cluster_resources().get(resource, 0.0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_MESSAGE] or type(error).__name__


__all__ = ["RayBackend", "secure_ray"]
