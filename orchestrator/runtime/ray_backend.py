"""Retrains and scores on Ray: long-lived actors, the task put once in the object store. Nothing else imports ray."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import ray
from ray import exceptions as failures
from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]  compiled

from orchestrator.records import Work
from orchestrator.runtime import ray_environment as environment
from orchestrator.runtime.backend import ScoreBlock, ScoreJob, WorkerContext
from orchestrator.runtime.ray_calls import FREE_KINDS, Happening, RangeQueue, Slot
from orchestrator.runtime.ray_worker import Answer, Failure, Joined, Lost, WorkerProcess
from orchestrator.runtime.worker import LONGEST_MESSAGE, describe
from orchestrator.scheduling.events import Event, FailureKind, WorkerJoined, WorkerLost
from tasks.base import Numerics
from tasks.errors import InputError, RefitError

START_ATTEMPTS = 3  # starts in a row that may fail before the pool stops asking for more
LONGEST_WAIT_S = 1.0  # ray.wait has returned empty after days without a time-out (ray#44909): short waits in a loop
OBJECT_STORE_BYTES = 512 * 2**20  # of a Ray of our own; what does not fit is kept on disk
FETCH_TIMEOUT_S = 300.0  # of a result that is here already
DOUBT_S = 60.0  # how long an unreachable worker may take to answer or to be declared dead


class RayWorker(WorkerProcess):
    """The actor. Ray hands it the objects behind references; their arrays are read-only views of the object store."""

    def join(self, context: WorkerContext) -> Joined | Failure:
        """Get ready for work."""
        node = ray.get_runtime_context().get_node_id()
        return self.get_ready(context, node, tuple(f"{node}:{gpu}" for gpu in ray.get_gpu_ids()))


class RayBackend:
    """A pool of at most `workers` actors.

    `address` None starts a Ray of our own, which `close` stops; else that cluster is joined, and left. The same actors
    retrain and score, never both at once, so that what suffices for one suffices for the other. Actors that cannot be
    scheduled yet join when the cluster has grown. A lost worker is replaced by one with a new name; after
    `START_ATTEMPTS` failed starts in a row the pool goes on with the workers it has, and raises RefitError once it has
    none. A retrain that takes longer than `timeout_s` is ended with its worker: WorkerLost(kind="timeout").
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
        start_timeout_s: float = 1800.0,
    ):
        self._context, self._workers = context, workers
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._resources = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker}
        self._session = _Session(address, math.ceil(workers * cpus_per_worker), gpus_per_worker > 0)
        self._shared: ray.ObjectRef | None = None
        self._slots: dict[str, Slot] = {}
        self._events: list[Event] = []
        self._serial = self._failed_starts = 0
        self._last_failure, self._alone_since = "", 0.0

    def start(self) -> None:
        """Ask for the workers, without waiting for them; called again, those at hand join again. Raises InputError."""
        if self._shared is None:
            self._session.open()
            self._shared = ray.put(self._context)
            self._alone_since = time.monotonic()
            self._fill()
        else:
            self._events = [WorkerJoined(slot.name) for slot in self._slots.values() if slot.joined]

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker. Raises ValueError if it is unknown or has work already."""
        slot = self._slots.get(worker)
        if slot is None and any(isinstance(e, WorkerLost) and e.worker == worker for e in self._events):
            return  # the event that it is gone waits in the queue, and takes this attempt with it
        if slot is None or not slot.is_idle:
            raise ValueError(f"worker {worker!r} is not an idle worker of this backend")
        slot.begin(slot.actor.retrain.remote(work), work.spec_id)
        if self._timeout_s is not None:
            late = Lost("timeout", f"{work.spec_id} was still running after {self._timeout_s:g} s")
            slot.limit(time.monotonic() + self._timeout_s, late)

    def wait(self, timeout_s: float) -> list[Event]:
        """Events since the last call, in the order they were seen. Raises RefitError if no worker can be started."""
        if not self._events:
            self._events = [happening.event() for happening in self._poll(timeout_s)]
        events, self._events = self._events, []
        return events

    def probe(self, numerics: Numerics) -> Numerics:
        """`numerics` as the first worker at hand resolves them. Raises RefitError, ValueError while all are busy."""
        while not self._has_joined():
            self._events += [happening.event() for happening in self._poll(LONGEST_WAIT_S)]
        slot = next((slot for slot in self._slots.values() if slot.is_idle), None)
        if slot is None:
            raise ValueError("every worker is busy")
        try:
            found = cast(Numerics | Failure, ray.get(slot.actor.probe.remote(numerics), timeout=FETCH_TIMEOUT_S))
        except failures.RayError as error:
            raise RefitError(f"a worker was lost while it was asked for its device: {_one_line(error)}") from error
        if isinstance(found, Failure):
            raise RefitError(f"a worker cannot say what it runs on: {found.message}")
        return found

    def device_ids(self) -> dict[str, tuple[str, ...]]:
        """Worker -> the GPUs it holds, as `<node>:<id>`; of the workers that have joined."""
        return {slot.name: slot.joined.gpus for slot in self._slots.values() if slot.joined}

    def close(self) -> None:
        """End our actors, and Ray itself if it was started here; idempotent."""
        for slot in self._slots.values() if ray.is_initialized() else ():
            ray.kill(slot.actor, no_restart=True)
        self._slots, self._events, self._shared = {}, [], None
        self._session.close()

    # --- scoring -------------------------------------------------------------------------------------------------

    def score(self, job: ScoreJob) -> Iterator[ScoreBlock]:
        """Each range once, in whatever order they are done; those of a lost worker are done again elsewhere.

        Raises ValueError while retrains run, RefitError if a range fails in every attempt.
        """
        if any(slot.task is not None for slot in self._slots.values()):
            raise ValueError("scores are asked for while retrains are running")
        shared, queue = ray.put(replace(job, ranges=())), RangeQueue.of(job.ranges)
        try:
            while queue.left:
                self._hand_out(queue, shared)
                for happening in self._poll(LONGEST_WAIT_S):
                    if isinstance(happening.what, ScoreBlock):
                        queue.left -= 1
                        yield happening.what
                    else:
                        self._set_back(queue, happening)
        finally:
            self._end_scoring()

    def _hand_out(self, queue: RangeQueue, shared: ray.ObjectRef) -> None:
        for slot in self._slots.values():
            if slot.is_idle and queue.waiting:
                task = queue.waiting.popleft()
                slot.begin(slot.actor.score.remote(None if slot.has_job else shared, *task), task)

    def _set_back(self, queue: RangeQueue, happening: Happening) -> None:
        if isinstance(happening.what, (Joined, Lost)):
            self._events.append(happening.event())
        queue.set_back(happening)

    def _end_scoring(self) -> None:
        for slot in list(self._slots.values()):
            if slot.task is not None:  # given up half-way: a range in flight cannot be called back
                self._events += [h.event() for h in self._lose(slot, Lost("error", "the score stage was given up"))]
            elif slot.has_job:
                slot.actor.release.remote()
                slot.has_job = False

    # --- the pool ------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        options = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False, **self._resources}
        while len(self._slots) < self._workers and self._failed_starts < START_ATTEMPTS:
            self._serial += 1
            name = f"ray-{self._serial}"
            actor = ray.remote(RayWorker).options(**options).remote(name, self._context.numerics.threads)
            self._slots[name] = Slot(name, actor, call=actor.join.remote(self._shared))

    def _poll(self, timeout_s: float) -> list[Happening]:
        """What happened, as soon as something did; [] after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            self._check_pool()
            happened = [h for slot in self._answered(until) for h in self._settle(slot)]
            happened += [h for slot in self._late() for h in self._lose(slot, slot.overdue)]
            if happened or time.monotonic() >= until:
                return happened

    def _answered(self, until: float) -> list[Slot]:
        calls = {slot.call: slot for slot in self._slots.values() if slot.call is not None}
        patience = min([until, *(slot.deadline for slot in calls.values())]) - time.monotonic()
        patience = min(max(patience, 0.0), LONGEST_WAIT_S)
        if not calls:
            time.sleep(patience)
            return []
        ready, _ = ray.wait(list(calls), timeout=patience)
        if ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in ready]

    def _late(self) -> list[Slot]:
        now = time.monotonic()
        return [slot for slot in self._slots.values() if slot.deadline <= now]

    def _settle(self, slot: Slot) -> list[Happening]:
        """What the answer of a call means; [] if nobody has to know."""
        try:
            answer = cast(Answer, ray.get(slot.call, timeout=FETCH_TIMEOUT_S))
        except failures.RayTaskError as error:
            answer = Failure("error", describe(error.cause or error))
        except failures.ActorUnavailableError as error:
            return self._doubt(slot, _one_line(error))
        except failures.RayError as error:
            return self._lose(slot, Lost(_kind_of(error, slot), _one_line(error)))
        if slot.in_doubt:
            return self._lose(slot, Lost("node_lost", slot.in_doubt))
        if slot.joined is None and isinstance(answer, Failure):
            return self._lose(slot, Lost(answer.kind, answer.message))
        if isinstance(answer, Joined):
            slot.joined, self._failed_starts = answer, 0
        happening = Happening(slot.name, slot.task, answer)
        slot.finish(has_job=isinstance(answer, ScoreBlock))
        return [happening]

    def _doubt(self, slot: Slot, message: str) -> list[Happening]:
        """The connection broke and Ray does not know yet whether the process lives: ask again until it does.

        The answer is lost in any case (calls are at-most-once), so a worker that turns out to live is given up too.
        """
        if not slot.in_doubt:
            slot.in_doubt = message
            slot.limit(time.monotonic() + DOUBT_S, Lost("node_lost", message))
        slot.call = slot.actor.__ray_ready__.remote()
        return []

    def _lose(self, slot: Slot, lost: Lost) -> list[Happening]:
        """Take a worker out and ask for another; nobody has to know of one that had not joined."""
        del self._slots[slot.name]
        ray.kill(slot.actor, no_restart=True)
        if slot.joined:
            self._failed_starts = 0
        else:
            self._failed_starts += lost.kind not in FREE_KINDS
            self._last_failure = lost.message
        if slot.joined and not self._has_joined():
            self._alone_since = time.monotonic()
        self._fill()
        return [Happening(slot.name, slot.task, lost)] if slot.joined else []

    def _has_joined(self) -> bool:
        return any(slot.joined for slot in self._slots.values())

    def _check_pool(self) -> None:
        if not self._slots:
            raise RefitError(f"no worker can be started: {self._last_failure}")
        if self._has_joined() or time.monotonic() - self._alone_since < self._start_timeout_s:
            return
        wanted = " and ".join(f"{amount:g} {name[4:7].upper()}" for name, amount in self._resources.items() if amount)
        offered = " and ".join(f"{ray.cluster_resources().get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        waited = f"no worker could start within {self._start_timeout_s:g} s"
        raise RefitError(f"{waited}: each needs {wanted}, the cluster has {offered}")


def secure_ray(*, make_token: bool) -> None:
    """Token authentication on, here and in child processes; `make_token`: with a new token if there is none."""
    environment.secure(os.environ, make_token=make_token)
    Config.initialize("")  # Ray read the environment when it was imported; this reads it again


class _Session:
    """The connection: a Ray of our own, a cluster, or a Ray that this process is in already, which is left as it is."""

    def __init__(self, address: str | None, num_cpus: int, gpus: bool):
        self._address, self._num_cpus, self._gpus = address, num_cpus, gpus
        self._temp_dir: environment.TempDir | None = None
        self._opened = False

    def open(self) -> None:
        """Connect. Raises InputError if there is no such cluster, no token for it, or no GPU where one is asked for."""
        if ray.is_initialized():
            return
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
        environment.check_address(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (failures.AuthenticationError, ConnectionError) as error:
            hint = "RAY_AUTH_TOKEN_PATH must name the cluster's token file (RAY_AUTH_MODE=disabled: it has none)"
            problem = f"no Ray cluster that takes our token answers at {address!r}; {hint}"
            raise InputError("--address", problem) from error

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here; idempotent."""
        if self._opened:
            ray.shutdown()
        if self._temp_dir is not None:
            self._temp_dir.remove()
        self._opened, self._temp_dir = False, None


def _kind_of(error: failures.RayError, slot: Slot) -> FailureKind:
    if isinstance(error, failures.OutOfMemoryError):
        return "out_of_memory"
    if getattr(error, "preempted", False):
        return "preempted"
    if isinstance(error, (failures.NodeDiedError, failures.ObjectLostError)):
        return "node_lost"
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return "node_lost" if slot.joined and slot.joined.node not in alive else "error"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_MESSAGE] or type(error).__name__


__all__ = ["RayBackend", "secure_ray"]
