"""The backend on a cluster: it assigns work to pools, sizes them and reports events to the scheduler. Imports no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

from orchestrator.records import Work
from orchestrator.runtime.backend import Alive, Job, ScoreBlock, WorkerContext
from orchestrator.runtime.cluster import Cluster
from orchestrator.runtime.placement import Role
from orchestrator.runtime.pool import LONGEST_WAIT_S, Pool, PoolOptions
from orchestrator.runtime.ray_calls import FREE_KINDS, Happening, RangeQueue, Slot
from orchestrator.runtime.ray_worker import Failure, Lost
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Event, WorkerLeft, WorkerLost
from tasks.base import Numerics
from tasks.errors import RefitError

PROBE_ATTEMPTS = 3  # how many workers may be lost during a probe before it fails
NODES_AGE_S = 1.0  # how long the list of nodes is cached, since the driver reads it in every iteration of its loop


class Session(Cluster, Protocol):
    """A cluster that can be opened and closed."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def put(self, value: Any) -> Any: ...


class ElasticBackend:
    """Retrains and scores in pools of actors that grow with demand; `session` is the connection to Ray.

    The same actors retrain and score, but never at the same time, so that resources that suffice for one suffice for the
    other. If gradients have their own market (spot or on-demand), scoring has its own pool, which exists until workers
    are wanted for retrains.
    """

    def __init__(self, context: WorkerContext, session: Session, options: PoolOptions):
        # With `frozen_trunk` the first worker computes the outputs of frozen layers for all rows before it is ready: 14 minutes
        # for 50,000 sentences at 17 ms each (MiniLM on one thread), and the more the larger the encoder.
        options = options if context.numerics.frozen_trunk == "computed" else replace(options, join_timeout_s=None)
        self._context, self._session, self._options = context, session, options
        self._serials = count(1)
        self._shared: Any = None
        self._pool: Pool | None = None
        self._scoring: Pool | None = None  # used only if gradients have their own market
        self._wanted = 1  # one worker suffices for the probe
        self._role: Role | None = None  # not known before the first `want`
        self._events: list[Event] = []
        self._gone: set[str] = set()
        self._nodes: list[Node] = []
        self._nodes_at = 0.0

    def start(self) -> None:
        """Request the wanted workers (one before the first `want`) without waiting for them.

        A further call reports every present worker as joined again, for a new scheduler. Raises InputError if no cluster
        can be started or joined.
        """
        self._end_gradient_pool()
        if self._pool is None:
            self._session.open()
            self._shared = self._session.put(self._context)
            self._pool = Pool(self._session, self._shared, self._options, self._role, self._serials)
            self._pool.want(self._wanted)
        else:
            self._events = [happening.event() for happening in self._pool.announce_workers()]

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """Let the pool grow towards `n_workers`, but not beyond `at_most`.

        If `n_workers` fits in the pool at once, the remaining retrains are the tail of the campaign, which may have its
        own market.
        """
        self._wanted = int(min(n_workers, at_most))
        self._role = "tail" if n_workers <= self._options.workers else "retrains"
        self._end_gradient_pool()
        if self._pool is not None:
            self._pool.want(self._wanted, self._role)

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker. Raises ValueError if the worker is unknown or busy."""
        # For a worker that is gone an event is pending, with which the scheduler ends this attempt.
        if worker not in self._gone:
            self._the_pool().submit(worker, work, attempt)

    def give_back(self, worker: str) -> None:
        """Request that a retraining worker stores a snapshot and stops."""
        self._the_pool().give_back(worker)

    def release(self, worker: str) -> None:
        """End a worker, even a busy one. Raises ValueError if it is unknown."""
        if worker not in self._gone:
            self._the_pool().release(worker)

    def nodes(self) -> list[Node]:
        """Return the nodes of the cluster, at most about a second old; none before `start`."""
        if self._pool is not None and time.monotonic() - self._nodes_at > NODES_AGE_S:
            self._nodes, self._nodes_at = self._session.nodes(), time.monotonic()
        return list(self._nodes)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call, in order. Raises RefitError if no worker can be started."""
        if not self._events:
            self._events = self._events_of(self._the_pool().poll(timeout_s))
        events, self._events = self._events, []
        return events

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """Return `numerics` as the first idle worker resolves them.

        Raises RefitError if the probe fails, ValueError if all workers are busy, and any exception of `alive`, which is
        called during the wait.
        """
        pool = self._the_pool()
        pool.want(max(self._wanted, 1))
        n_lost, reason = 0, ""
        while n_lost < PROBE_ATTEMPTS:
            answer = self._ask(pool, self._first_worker(pool, alive), numerics, alive)
            if isinstance(answer, Numerics):
                return answer
            if isinstance(answer, Failure):
                raise RefitError(f"a worker could not determine its device: {answer.message}")
            n_lost, reason = n_lost + (answer.kind not in FREE_KINDS), answer.message
        raise RefitError(f"{n_lost} workers were lost while they determined their device: {reason}")

    def _first_worker(self, pool: Pool, alive: Alive) -> Slot:
        while not any(slot.has_joined for slot in pool.slots.values()):
            self._events += self._events_of(poll_or_check(pool, alive))
        slot = next((slot for slot in pool.slots.values() if slot.is_idle), None)
        if slot is None:
            raise ValueError("every worker is busy")
        return slot

    def _ask(self, pool: Pool, slot: Slot, numerics: Numerics, alive: Alive) -> Numerics | Failure | Lost:
        pool.probe(slot, numerics)
        try:
            while True:
                happened = poll_or_check(pool, alive)
                answers = [h.what for h in happened if h.worker == slot.name]
                self._events += self._events_of([h for h in happened if not isinstance(h.what, (Numerics, Failure))])
                for answer in answers:
                    if isinstance(answer, (Numerics, Failure, Lost)):
                        return answer
        finally:
            if slot.name in pool.slots and not slot.is_idle:
                self._events += self._events_of(pool.lose(slot, Lost("error", "the probe was abandoned")))

    def close(self) -> None:
        """End the actors, and Ray itself if this backend started it. A second call of `close` has no effect."""
        try:
            for pool in filter(None, (self._pool, self._scoring)):
                pool.close()
        finally:
            self._pool, self._scoring, self._shared, self._events = None, None, None, []
            self._session.close()

    def _the_pool(self) -> Pool:
        if self._pool is None:
            raise ValueError("this backend is not started")
        return self._pool

    def _events_of(self, happenings: list[Happening]) -> list[Event]:
        events = [happening.event() for happening in happenings]
        self._gone.update(event.worker for event in events if isinstance(event, (WorkerLost, WorkerLeft)))
        return events

    # --- scoring -------------------------------------------------------------------------------------------------

    def score(self, job: Job, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Yield each range once, in the order in which they are finished; ranges of a lost worker go to another one.

        Raises ValueError while retrains run, RefitError if a range fails in every attempt, and any exception of `alive`.
        """
        if any(slot.task is not None for slot in self._the_pool().slots.values()):
            raise ValueError("scores cannot be computed while retrains are running")
        pool = self._gradient_pool()
        yield from self._score(pool, job, alive)
        if pool is self._pool:
            pool.want(self._wanted, self._role)
        else:
            pool.want(0)

    def _gradient_pool(self) -> Pool:
        retrains, labels = self._the_pool(), self._options.placement.labels
        if labels("gradients") == labels("retrains"):
            return retrains
        self._empty(retrains)
        if self._scoring is None:
            self._scoring = Pool(self._session, self._shared, self._options, "gradients", self._serials)
        return self._scoring

    def _end_gradient_pool(self) -> None:
        if self._scoring is not None:
            self._scoring.close()
            self._scoring = None

    def _empty(self, pool: Pool) -> None:
        """End all workers of a pool and withdraw its requests, since they would be paid for while another pool works."""
        pool.want(0)
        for slot in list(pool.slots.values()):
            pool.release(slot.name)
            if slot.has_joined:
                self._events.append(WorkerLeft(slot.name))
                self._gone.add(slot.name)

    def _score(self, pool: Pool, job: Job, alive: Alive) -> Iterator[ScoreBlock]:
        shared, queue = self._session.put(replace(job, ranges=())), RangeQueue.of(job)
        try:
            while queue.left:
                pool.want(queue.left, "gradients")
                hand_out(pool, queue, shared)
                for happening in poll_or_check(pool, alive):
                    if isinstance(happening.what, ScoreBlock):
                        queue.left -= 1
                        yield happening.what
                    else:
                        self._set_back(pool, queue, happening)
        finally:
            if queue.left:
                pool.want(0)  # scoring was abandoned; otherwise the workers ended below would be replaced
            self._end_scoring(pool)

    def _set_back(self, pool: Pool, queue: RangeQueue, happening: Happening) -> None:
        if pool is self._pool and (happening.task is None or isinstance(happening.what, Lost)):
            self._events += self._events_of([happening])
        queue.set_back(happening)

    def _end_scoring(self, pool: Pool) -> None:
        for slot in list(pool.slots.values()):
            # If scoring was abandoned, a range in progress can be ended only together with its worker.
            if slot.task is not None:
                lost = pool.lose(slot, Lost("error", "scoring was abandoned"))
                self._events += self._events_of(lost) if pool is self._pool else []
            elif slot.has_job:
                slot.actor.release.remote()
                slot.has_job = False


def hand_out(pool: Pool, queue: RangeQueue, shared: Any) -> None:
    """Hand one range to every idle worker; mark idle workers on draining nodes to be replaced."""
    for slot in [slot for slot in pool.slots.values() if slot.is_idle]:
        if slot.is_ending:
            slot.must_be_replaced = True
        elif queue.waiting:
            task = queue.waiting.popleft()
            pool.begin(slot, slot.actor.score.remote(None if slot.has_job else shared, *task), task)


def poll_or_check(pool: Pool, alive: Alive) -> list[Happening]:
    """Poll the pool for at most a second; if nothing happened, call `alive`, which may raise."""
    happened = pool.poll(LONGEST_WAIT_S)
    if not happened:
        alive()
    return happened
