"""A pool of actors that grows towards the work there is, one at a time or in bounded batches. Imports no ray."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from orchestrator.records import Work
from orchestrator.runtime.backend import ScoreBlock
from orchestrator.runtime.cluster import Cluster, Doubt, shortage
from orchestrator.runtime.draining import NodeWatch
from orchestrator.runtime.placement import Placement, Role
from orchestrator.runtime.ray_calls import FREE_KINDS, Ending, Happening, Left, Slot, Task
from orchestrator.runtime.ray_worker import Attempted, Failure, Joined, Lost, Place
from orchestrator.runtime.starts import FailedStarts, NoWorkerError, WaitClock
from tasks.base import Numerics
from tasks.errors import RefitError

log = logging.getLogger(__name__)
LONGEST_WAIT_S = 1.0  # ray.wait has returned empty after days without a time-out (ray#44909): short waits in a loop
PROBE_TIMEOUT_S = 300.0
DOUBT_S = 60.0  # how long an unreachable worker may take to answer or to be declared dead


@dataclass(frozen=True)
class PoolOptions:
    """How large a pool may grow, what each worker needs, and how long it is waited for.

    `timeout_s`: longest time of one retrain, or of one score range. `start_timeout_s`: of a pool without any worker; None: no limit.
    """

    workers: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    pending_workers: int = 16
    timeout_s: float | None = None
    start_timeout_s: float | None = 1800.0
    drain_poll_s: float = 3.0
    stuck_after_s: float = 600.0
    join_timeout_s: float = 600.0


class Pool:
    """At most `workers` actors of one role, at most `pending_workers` of them waiting for a place.

    An actor is asked where it is, then to join with `shared` (the context); from then on it is a worker. One that is lost
    is replaced by one with a new name as long as there is demand. When three starts in a row have failed, the pool raises
    RefitError if it has no worker; else it goes on with those it has, and tries one more after each of ever longer pauses.
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
        """Grow towards `n_workers`; actors without a place that nobody needs any more are taken back, workers stay.

        `role`: that of new actors from now on; those without a place whose labels differ are asked for anew.
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
        """Let a worker go, whatever it is doing. Raises ValueError if it is unknown."""
        if name not in self.slots:
            raise ValueError(f"worker {name!r} is not a worker of this backend")
        self._drop(self.slots[name])

    def idle(self, name: str) -> Slot:
        """The slot of an idle worker. Raises ValueError if it is unknown or has work already."""
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
            self._failed.clear()  # what failed beside it may be long ago

    def _unplaced(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.place is None]

    def _has_worker(self) -> bool:
        return any(slot.has_joined for slot in self.slots.values())

    def _labels(self) -> dict[str, str]:
        return self._options.placement.labels(self._role)

    def _fill(self) -> None:
        """Ask for what is missing: Ray places actors as nodes come, and the autoscaler sees the bounded rest as demand."""
        missing = min(self._target - len(self.slots), self._options.pending_workers - len(self._unplaced()))
        if self._failed.are_many:
            is_starting = any(not slot.has_joined for slot in self.slots.values())
            missing = min(missing, int(not is_starting and time.monotonic() >= self._failed.again_at_s))
        for _ in range(missing):
            name, labels = f"ray-{next(self._serials)}", self._labels()
            actor = self._cluster.start_worker(name, self._options.resources, labels)
            self.slots[name] = Slot(name, actor, labels, call=actor.arrive.remote())

    # --- work ----------------------------------------------------------------------------------------------------

    def submit(self, name: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker; `attempt`: its number in this session. Raises ValueError if it is unknown or has work already."""
        slot = self.idle(name)
        slot.ticket += 1
        self.begin(slot, slot.actor.retrain.remote(slot.ticket, work, attempt), work.spec_id)

    def begin(self, slot: Slot, call: Any, task: Task) -> None:
        """A task has been handed to a worker, which has `timeout_s` for it."""
        slot.begin(call, task)
        if self._options.timeout_s is not None:
            whose = f"{task} was " if isinstance(task, str) else ""
            late = Lost("timeout", f"{whose}still running after {self._options.timeout_s:g} s")
            slot.limit(self._options.timeout_s, late)

    def probe(self, slot: Slot, numerics: Numerics) -> None:
        """Ask an idle worker what it runs on; numerics, a failure or a loss follow from `poll`."""
        slot.begin(slot.actor.probe.remote(numerics))
        slot.limit(PROBE_TIMEOUT_S, Lost("error", f"no answer within {PROBE_TIMEOUT_S:g} s"))

    def give_back(self, name: str) -> None:
        """Ask a worker that retrains to stop and to say so."""
        slot = self.slots.get(name)
        if slot is not None and isinstance(slot.task, str):
            slot.actor.give_back.remote(slot.ticket)

    def poll(self, timeout_s: float) -> list[Happening]:
        """What happened, as soon as something did; [] after `timeout_s`. Raises RefitError if no worker can be started."""
        until = time.monotonic() + timeout_s
        while True:
            self._nodes.news()
            self._check()
            self._fill()
            happened = self._worn()
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
        """What the answer of a call means; [] if nobody has to know."""
        answer = self._cluster.answer(slot.call)
        self._waiting.heard()
        if isinstance(answer, Doubt):
            return self._doubt(slot, answer.message)
        if isinstance(answer, Lost):
            return self.lose(slot, answer)
        if slot.in_doubt:
            return self.lose(slot, Lost("node_lost", slot.in_doubt))
        if isinstance(answer, Place):
            slot.place = answer
            slot.begin(slot.actor.join.remote(self._shared))
            late = f"not ready for work {self._options.join_timeout_s:g} s after it got its place"
            slot.limit(self._options.join_timeout_s, Lost("error", late))
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
            case Attempted(result, is_worn):
                return [*self._wears_out(slot, is_worn), Happening(slot.name, task, result)]
            case Failure() | ScoreBlock() | Numerics():
                return [Happening(slot.name, task, answer)]
        assert_never(answer)

    def _doubt(self, slot: Slot, message: str) -> list[Happening]:
        """Ask again until Ray knows whether the process lives.

        The answer is lost in any case (calls are at-most-once), so a worker that turns out to live is given up too.
        """
        if not slot.in_doubt:
            slot.in_doubt = message
            slot.limit(DOUBT_S, Lost("node_lost", message))
        slot.call = slot.actor.__ray_ready__.remote()
        return []

    def lose(self, slot: Slot, lost: Lost) -> list[Happening]:
        """Take a worker out and ask for another; one that had not joined is in the log only."""
        lost = self._nodes.blame(slot.place.node, lost) if slot.place else lost
        self._drop(slot)
        if not slot.has_joined:
            log.warning("worker %s could not be started (%s): %s", slot.name, lost.kind, lost.message)
            if lost.kind not in FREE_KINDS:
                self._failed.add(lost.message, time.monotonic())
        self._fill()
        return [Happening(slot.name, slot.task, lost)] if slot.has_joined else []

    # --- endings -------------------------------------------------------------------------------------------------

    def retell(self) -> list[Happening]:
        """All workers at hand, as if they had just joined; what is wrong with them is told again too."""
        for slot in self.slots.values():
            slot.is_ending = False
        return [slot.joined() for slot in self.slots.values() if slot.has_joined]

    def _drained(self) -> list[Happening]:
        """Workers whose node is being drained, each once. Ray places nothing new there, but neither moves nor ends what is there."""
        self._nodes.look()
        found = []
        for slot in self.slots.values():
            if slot.has_joined and not slot.is_ending and slot.place and self._nodes.drains(slot.place.node):
                slot.is_ending = True
                found.append(Happening(slot.name, slot.task, Ending(self._nodes.seconds_left(slot.place.node))))
        return found

    def _wears_out(self, slot: Slot, is_worn: bool) -> list[Happening]:
        """A worn worker is told to be ending before its last answer, so that it is not handed another retrain."""
        slot.is_worn = slot.is_worn or is_worn
        if not is_worn or slot.is_ending:
            return []
        slot.is_ending = True
        return [Happening(slot.name, None, Ending(math.inf))]

    def _worn(self) -> list[Happening]:
        """Replace the worn ones that are still idle."""
        worn = [slot for slot in self.slots.values() if slot.is_worn and slot.is_idle]
        for slot in worn:
            self._drop(slot)
        return [Happening(slot.name, None, Left()) for slot in worn]

    # --- patience ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Raise RefitError if no worker can be started or none could for too long; warn once when the cluster does not grow."""
        options, is_alone = self._options, self._target > 0 and not self._has_worker()
        if is_alone and not self.slots and self._failed.are_many:
            raise RefitError(f"no worker can be started: {self._failed.message}")
        if self._waiting.is_too_long(is_alone):
            raise NoWorkerError(f"no worker could start within {options.start_timeout_s:g} s: {self._shortage()}")
        if self._unplaced() and self._waiting.is_stuck():
            n, minutes = len(self._unplaced()), options.stuck_after_s / 60
            log.warning("%d workers have waited for a place for %g min; %s", n, minutes, self._shortage())

    def _shortage(self) -> str:
        return shortage(self._cluster, self._options.resources, self._labels())
