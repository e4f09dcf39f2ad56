"""A pool of Ray actors that grows with the amount of work, with a bounded number of pending requests. Imports no ray."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from orchestrator.records import Work
from orchestrator.runtime.backend import ScoreBlock
from orchestrator.runtime.cluster import Cluster, Unreachable, shortage
from orchestrator.runtime.draining import NodeWatch
from orchestrator.runtime.placement import Placement, Role
from orchestrator.runtime.ray_calls import FREE_KINDS, Ending, Happening, Left, Slot, Task
from orchestrator.runtime.ray_worker import Attempted, Failure, Joined, Lost, Place
from orchestrator.runtime.starts import FailedStarts, NoWorkerError, WaitClock
from tasks.base import Numerics
from tasks.errors import RefitError

log = logging.getLogger(__name__)
LONGEST_WAIT_S = 1.0  # short, since a ray.wait without time-out has ended after days with nothing ready (ray#44909)
PROBE_TIMEOUT_S = 300.0
UNREACHABLE_S = 60.0  # how long an unreachable worker may take to answer or to be declared dead


@dataclass(frozen=True)
class PoolOptions:
    """The size limits of a pool, the resources of each worker, and time limits in seconds.

    `timeout_s` limits one retrain or one score range, `start_timeout_s` the time of a pool without any worker (None: no
    limit for either), `join_timeout_s` the time from an actor's placement until it is ready for work (None: no limit, and
    then the time in which an actor gets ready does not count towards `start_timeout_s`). A warning follows if no actor
    has answered for `stuck_after_s`. Draining nodes are polled every `drain_poll_s`.
    """

    workers: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    pending_workers: int = 16
    timeout_s: float | None = None
    start_timeout_s: float | None = 1800.0
    drain_poll_s: float = 3.0
    stuck_after_s: float = 600.0
    join_timeout_s: float | None = 600.0


class Pool:
    """At most `workers` actors of one role, of which at most `pending_workers` have not been placed on a node yet.

    An actor first reports its node and GPUs, then joins with `shared`, a reference to the context; from then on it is a
    worker. A lost worker is replaced by one with a new name as long as workers are wanted. When three starts in a row
    have failed, the pool raises RefitError if it has no worker; otherwise it continues with the workers that it has, and
    starts one more after a pause that doubles each time.
    """

    def __init__(self, cluster: Cluster, shared: Any, options: PoolOptions, role: Role | None, serials: Iterator[int]):
        self._cluster, self._shared, self._options = cluster, shared, options
        self._role: Role | None = role
        self._serials = serials
        self.slots: dict[str, Slot] = {}
        self._target = 0
        self._failed = FailedStarts()
        self._waiting = WaitClock(options.start_timeout_s, options.stuck_after_s)
        self._nodes = NodeWatch(cluster, options.drain_poll_s)

    # --- size ----------------------------------------------------------------------------------------------------

    def want(self, n_workers: int, role: Role | None = None) -> None:
        """Grow towards `n_workers`. Unplaced actors beyond that number are withdrawn; workers stay.

        `role` is the role of new actors from now on; unplaced actors whose labels differ from it are requested again.
        """
        self._role = role or self._role
        if not self._target:
            self._waiting.begin()
        self._target = min(n_workers, self._options.workers)
        for slot in [slot for slot in self._unplaced() if slot.labels != self._labels()]:
            self._drop(slot)
        surplus = max(len(self.slots) - self._target, 0)
        for slot in self._unplaced()[::-1][:surplus]:
            self._drop(slot)
        self._fill()

    def release(self, name: str) -> None:
        """End a worker, even a busy one. Raises ValueError if it is unknown."""
        if name not in self.slots:
            raise ValueError(f"worker {name!r} is not a worker of this backend")
        self._drop(self.slots[name])

    def idle(self, name: str) -> Slot:
        """Return the slot of an idle worker. Raises ValueError if the worker is unknown or busy."""
        slot = self.slots.get(name)
        if slot is None or not slot.is_idle:
            raise ValueError(f"worker {name!r} is not an idle worker of this backend")
        return slot

    def close(self) -> None:
        """End all actors."""
        self._target = 0
        for slot in list(self.slots.values()):
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        del self.slots[slot.name]
        self._cluster.kill(slot.actor)
        if slot.has_joined and not self._has_worker():
            self._failed.clear()  # failures recorded while the last worker was alive may be old, so they do not count

    def _unplaced(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.place is None]

    def _has_worker(self) -> bool:
        return any(slot.has_joined for slot in self.slots.values())

    def _labels(self) -> dict[str, str]:
        return self._options.placement.labels(self._role)

    def _fill(self) -> None:
        """Request missing actors. Ray places them when nodes are available, and the autoscaler sees the others as demand."""
        missing = min(self._target - len(self.slots), self._options.pending_workers - len(self._unplaced()))
        if self._failed.are_many:
            is_starting = any(not slot.has_joined for slot in self.slots.values())
            missing = min(missing, int(not is_starting and time.monotonic() >= self._failed.retry_at_s))
        for _ in range(missing):
            name, labels = f"ray-{next(self._serials)}", self._labels()
            actor = self._cluster.start_worker(name, self._options.resources, labels)
            self.slots[name] = Slot(name, actor, labels, call=actor.arrive.remote())

    # --- work ----------------------------------------------------------------------------------------------------

    def submit(self, name: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker; `attempt` counts the attempts of its spec in this session.

        Raises ValueError if the worker is unknown or busy.
        """
        slot = self.idle(name)
        slot.ticket += 1
        self.begin(slot, slot.actor.retrain.remote(slot.ticket, work, attempt), work.spec_id)

    def begin(self, slot: Slot, call: Any, task: Task) -> None:
        """Record that a task was handed to a worker, and start its time limit `timeout_s`."""
        slot.begin(call, task)
        if self._options.timeout_s is not None:
            subject = f"{task} was " if isinstance(task, str) else ""
            late = Lost("timeout", f"{subject}still running after {self._options.timeout_s:g} s")
            slot.limit(self._options.timeout_s, late)

    def probe(self, slot: Slot, numerics: Numerics) -> None:
        """Start the probe of an idle worker; `poll` then returns numerics, a failure or a loss."""
        slot.begin(slot.actor.probe.remote(numerics))
        slot.limit(PROBE_TIMEOUT_S, Lost("error", f"no answer within {PROBE_TIMEOUT_S:g} s"))

    def give_back(self, name: str) -> None:
        """Request that a retraining worker stores a snapshot, if its recipe can, and stops."""
        slot = self.slots.get(name)
        if slot is not None and isinstance(slot.task, str):
            slot.actor.give_back.remote(slot.ticket)

    def poll(self, timeout_s: float) -> list[Happening]:
        """Return what happened, as soon as something has; [] after `timeout_s`. Raises RefitError if no worker can start."""
        until = time.monotonic() + timeout_s
        while True:
            self._nodes.forget_alive()
            self._check()
            self._fill()
            happened = self._replaced()
            happened += [h for slot in self._answered(until, bool(happened)) for h in self._settle(slot)]
            happened += [h for slot in self._late() for h in self.lose(slot, slot.overdue)]
            happened += self._drained()
            if happened or time.monotonic() >= until:
                return happened

    def _answered(self, until: float, hurry: bool) -> list[Slot]:
        calls = {slot.call: slot for slot in self.slots.values() if slot.call is not None}
        patience = min([until, *(slot.deadline for slot in calls.values())]) - time.monotonic()
        patience = 0.0 if hurry else min(max(patience, 0.0), LONGEST_WAIT_S)
        if not calls:
            time.sleep(patience)
            return []
        return [calls[call] for call in self._cluster.ready(list(calls), patience)]

    def _late(self) -> list[Slot]:
        now = time.monotonic()
        return [slot for slot in self.slots.values() if slot.deadline <= now]

    # --- answers -------------------------------------------------------------------------------------------------

    def _settle(self, slot: Slot) -> list[Happening]:
        """Handle the answer to a call; return [] if the backend need not know of it."""
        answer = self._cluster.answer(slot.call)
        self._waiting.answered()
        if isinstance(answer, Unreachable):
            return self._check_process(slot, answer.message)
        if isinstance(answer, Lost):
            return self.lose(slot, answer)
        if slot.unreachable:
            return self.lose(slot, Lost("node_lost", slot.unreachable))
        if isinstance(answer, Place):
            slot.place = answer
            slot.begin(slot.actor.join.remote(self._shared))
            if (limit_s := self._options.join_timeout_s) is not None:
                slot.limit(limit_s, Lost("error", f"not ready for work {limit_s:g} s after it was placed on a node"))
            return []
        return self._answer(slot, answer)

    def _answer(self, slot: Slot, answer: Joined | Failure | Attempted | ScoreBlock | Numerics) -> list[Happening]:
        task = slot.task
        if isinstance(answer, Failure) and not slot.has_joined:
            return self.lose(slot, Lost(answer.kind, answer.message))
        slot.finish(has_job=isinstance(answer, ScoreBlock))
        match answer:
            case Joined():
                slot.has_joined = True
                self._failed.clear()
                return [slot.joined()]
            case Attempted(result, must_be_replaced):
                return [*self._mark_replaced(slot, must_be_replaced), Happening(slot.name, task, result)]
            case Failure() | ScoreBlock() | Numerics():
                return [Happening(slot.name, task, answer)]
        assert_never(answer)

    def _check_process(self, slot: Slot, message: str) -> list[Happening]:
        """Call an unreachable worker until Ray knows whether its process is alive.

        The answer to the original call is lost in any case, since calls are made at most once. A worker whose process
        turns out to be alive is therefore ended too.
        """
        if not slot.unreachable:
            slot.unreachable = message
            slot.limit(UNREACHABLE_S, Lost("node_lost", message))
        slot.call = slot.actor.__ray_ready__.remote()
        return []

    def lose(self, slot: Slot, lost: Lost) -> list[Happening]:
        """Remove an actor and request another; the loss of one that had not joined is only logged."""
        lost = self._nodes.attribute(slot.place.node, lost) if slot.place else lost
        self._drop(slot)
        if not slot.has_joined:
            log.warning("worker %s could not be started (%s): %s", slot.name, lost.kind, lost.message)
            if lost.kind not in FREE_KINDS:
                self._failed.add(lost.message, time.monotonic())
        self._fill()
        return [Happening(slot.name, slot.task, lost)] if slot.has_joined else []

    # --- endings -------------------------------------------------------------------------------------------------

    def announce_workers(self) -> list[Happening]:
        """Report all workers as if they had just joined; their draining or replacement will be reported again too."""
        for slot in self.slots.values():
            slot.is_ending = False
        return [slot.joined() for slot in self.slots.values() if slot.has_joined]

    def _drained(self) -> list[Happening]:
        """Report workers whose node is being drained, each once.

        Ray places no new actor on such a node, but it neither moves nor ends the actors that run there.
        """
        self._nodes.poll()
        found = []
        for slot in self.slots.values():
            if slot.has_joined and not slot.is_ending and slot.place and self._nodes.drains(slot.place.node):
                slot.is_ending = True
                found.append(Happening(slot.name, slot.task, Ending(self._nodes.seconds_left(slot.place.node))))
        return found

    def _mark_replaced(self, slot: Slot, must_be_replaced: bool) -> list[Happening]:
        """Report a worker to be replaced as ending, before its last answer, so that it gets no further retrain."""
        slot.must_be_replaced = slot.must_be_replaced or must_be_replaced
        if not must_be_replaced or slot.is_ending:
            return []
        slot.is_ending = True
        return [Happening(slot.name, None, Ending(math.inf))]

    def _replaced(self) -> list[Happening]:
        """End the idle workers that must be replaced, and report them as left."""
        ended = [slot for slot in self.slots.values() if slot.must_be_replaced and slot.is_idle]
        for slot in ended:
            self._drop(slot)
        return [Happening(slot.name, None, Left()) for slot in ended]

    # --- time limits ---------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Warn once if the cluster does not grow. Raises RefitError if no worker can be started, or not within the limit."""
        options, is_empty = self._options, self._target > 0 and not self._has_worker()
        if is_empty and not self.slots and self._failed.are_many:
            raise RefitError(f"no worker can be started: {self._failed.message}")
        if self._waiting.is_too_long(is_empty and not self._may_prepare()):
            raise NoWorkerError(f"no worker could start within {options.start_timeout_s:g} s: {self._shortage()}")
        if self._unplaced() and self._waiting.is_stuck():
            n, minutes = len(self._unplaced()), options.stuck_after_s / 60
            log.warning("%d workers have waited %g min to be placed on a node; %s", n, minutes, self._shortage())

    def _may_prepare(self) -> bool:
        """Return whether an actor is getting ready for work and has no time limit for that."""
        return self._options.join_timeout_s is None and any(slot.place is not None for slot in self.slots.values())

    def _shortage(self) -> str:
        return shortage(self._cluster, self._options.resources, self._labels())
