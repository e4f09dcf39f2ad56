"""Retrains and scores on Ray: long-lived actors, the task put once in the object store. Nothing else imports ray."""

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
from orchestrator.runtime.cluster import Doubt
from orchestrator.runtime.elastic import ElasticBackend
from orchestrator.runtime.placement import MARKET, NODE_GROUP, Placement
from orchestrator.runtime.pool import PoolOptions
from orchestrator.runtime.ray_worker import Answer, Failure, Joined, Lost, Place, WorkerProcess
from orchestrator.runtime.worker import LONGEST_MESSAGE, describe
from orchestrator.scheduling.budget import Node
from tasks.errors import InputError

log = logging.getLogger(__name__)
OBJECT_STORE_BYTES = 512 * 2**20  # of a Ray of our own; what does not fit is kept on disk
FETCH_TIMEOUT_S = 300.0  # of a result that is here already
CONTROL = "control"  # the concurrency group whose calls reach an actor that is busy


class RayWorker(WorkerProcess):
    """The actor. Ray hands it the objects behind references; their arrays are read-only views of the object store.

    With a concurrency group beside it, all other calls run in one thread, always the same, which is not the main one.
    """

    def arrive(self) -> Place:
        """Where this is; answered as soon as the process is up, before anything heavy is imported."""
        node = ray.get_runtime_context().get_node_id()
        return Place(node, tuple(f"{node}:{gpu}" for gpu in ray.get_gpu_ids()))

    def join(self, context: WorkerContext) -> Joined | Failure:
        """Get ready for work."""
        return self.get_ready(context)

    @ray.method(concurrency_group=CONTROL)
    def give_back(self, ticket: int) -> None:
        """Ask the retrain that has `ticket` to stop; reaches it while it runs."""
        super().give_back(ticket)


class RayBackend(ElasticBackend):
    """A pool of at most `workers` actors that follows `want`.

    `address` None starts a Ray of our own, which `close` stops; else that cluster is joined, and left. Actors that cannot
    be scheduled yet, at most `pending_workers` of them, join when the cluster has grown. A lost worker is replaced by one
    with a new name. A retrain, or a score range, that takes longer than `timeout_s` is ended with its worker:
    WorkerLost(kind="timeout"). Without any worker for `start_timeout_s` (None: no limit) NoWorkerError is raised.

    On a cluster, actors go to nodes of the accelerator that the numerics are pinned to (`accelerator` overrides it) and of
    the market of their role (`market`: gradients, retrains, tail -> spot | on-demand). `recycle_after`: retrains per process.
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
    """Token authentication on, here and in child processes; `make_token`: with a new token if there is none."""
    environment.secure(os.environ, make_token=make_token)
    Config.initialize("")  # Ray read the environment when it was imported; this reads it again


def check_cluster(address: str) -> str:
    """See that a cluster answers at `address`, for `auto` at the one that Ray finds itself; joins nothing, and returns host:port.

    Raises InputError.
    """
    found = environment.found_address(_find) if address == "auto" else address
    environment.check_address(found)
    return found


def _find() -> str | None:
    """The address that Ray takes for `auto`: RAY_ADDRESS, else of a Ray on this machine. Raises ConnectionError if there is none."""
    from ray._private.services import get_ray_address_from_environment

    return get_ray_address_from_environment("auto", None)


class _RaySession:
    """The connection: a Ray of our own, a cluster, or a Ray that this process is in already, which is left as it is."""

    worker_arguments: tuple[Any, ...] = ()  # of every actor, after its name

    def __init__(self, address: str | None, num_cpus: int, gpus: bool):
        self._address, self._num_cpus, self._gpus = address, num_cpus, gpus
        self._temp_dir: environment.TempDir | None = None
        self._opened = False

    def open(self) -> None:
        """Connect. Raises InputError if there is no such cluster, no token for it, or no GPU where one is asked for."""
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
            raise InputError("compute.gpus_per_worker", "this machine has no GPU; allowed: 0, or a cluster (--address)")

    def _join_cluster(self, address: str) -> None:
        found = check_cluster(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (failures.AuthenticationError, ConnectionError) as error:  # something answers there, as was seen above
            hint = "RAY_AUTH_TOKEN_PATH must name the cluster's token file (RAY_AUTH_MODE=disabled: it has none)"
            problem = f"no Ray cluster that takes our token answers at {found!r}; {hint}"
            raise InputError("--address", problem) from error

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here; idempotent."""
        self._clear_requests()
        if self._opened:
            ray.shutdown()
        if self._temp_dir is not None:
            self._temp_dir.remove()
        self._opened, self._temp_dir = False, None

    def _clear_requests(self) -> None:
        """Take back what a driver that crashed may have asked the autoscaler for: such a request holds paid nodes for ever."""
        if self._address is None or not ray.is_initialized():
            return
        from ray.autoscaler.sdk import request_resources

        try:
            request_resources(num_cpus=0)
        except Exception as error:  # a cluster that is gone asks for nothing
            log.warning("cannot clear the cluster's resource requests: %s", _one_line(error))

    # --- what a pool needs -----------------------------------------------------------------------------------------

    def put(self, value: Any) -> Any:
        """A reference that every worker can read."""
        return ray.put(value)

    def start_worker(self, name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Any:
        """Ask for an actor, without waiting for it."""
        options = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False, **resources}
        options |= {"label_selector": dict(labels)} if labels else {}
        return self._actor_class.options(**options).remote(name, *self.worker_arguments)

    @cached_property
    def _actor_class(self) -> Any:  # made once: that takes ten times as long as an actor
        return ray.remote(concurrency_groups={CONTROL: 1})(RayWorker)  # pyright: ignore[reportCallIssue]

    def kill(self, actor: Any) -> None:
        """End an actor, or take back the request for one."""
        if ray.is_initialized():
            ray.kill(actor, no_restart=True)

    def ready(self, calls: list[Any], timeout_s: float) -> list[Any]:
        """The calls that are answered, as soon as one is; [] after `timeout_s`."""
        ready, _ = ray.wait(calls, timeout=timeout_s)
        return ray.wait(calls, num_returns=len(calls), timeout=0)[0] if ready else []

    def answer(self, call: Any) -> Answer | Lost | Doubt:
        """What a call has come to."""
        try:
            return cast(Answer, ray.get(call, timeout=FETCH_TIMEOUT_S))
        except failures.RayTaskError as error:
            return Failure("error", describe(error.cause or error))
        except failures.ActorUnavailableError as error:
            return Doubt(_one_line(error))
        except failures.OutOfMemoryError as error:
            return Lost("host_memory", _one_line(error))
        except failures.RayError as error:
            if getattr(error, "preempted", False):
                return Lost("preempted", _one_line(error))
            is_node = isinstance(error, (failures.NodeDiedError, failures.ObjectLostError))
            return Lost("node_lost" if is_node else "error", _one_line(error))

    def nodes(self) -> list[Node]:
        """The nodes that are alive; their kind is the node type of cluster.yaml, which Ray's launcher makes a label."""
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
        """Node -> Unix time at which it goes away (0: nobody says). A private API of Ray: nothing drains where it is not there."""
        try:
            deadlines_ms = ray._private.state.state.get_draining_nodes()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
        except Exception as error:
            log.debug("cannot ask which nodes are draining: %s", _one_line(error))
            return {}
        return {node: deadline_ms / 1000 for node, deadline_ms in deadlines_ms.items()}

    def offered(self, resource: str) -> float:
        """How much of a resource the cluster has now."""
        return ray.cluster_resources().get(resource, 0.0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_MESSAGE] or type(error).__name__


__all__ = ["RayBackend", "secure_ray"]
