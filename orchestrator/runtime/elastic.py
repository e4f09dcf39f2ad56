"""The backend over a cluster: which pool does what, when it grows and what the scheduler is told. Imports no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

from orchestrator.records import Work
from orchestrator.runtime.backend import Alive, ScoreBlock, ScoreJob, WorkerContext
from orchestrator.runtime.cluster import Cluster
from orchestrator.runtime.placement import Role
from orchestrator.runtime.pool import LONGEST_WAIT_S, Pool, PoolOptions
from orchestrator.runtime.ray_calls import FREE_KINDS, Happening, RangeQueue, Slot
from orchestrator.runtime.ray_worker import Failure, Lost
from orchestrator.scheduling.budget import Node
from orchestrator.scheduling.events import Event, WorkerLeft, WorkerLost
from tasks.base import Numerics
from tasks.errors import RefitError

PROBE_ATTEMPTS = 3  # workers that may be lost while they are asked
NODES_AGE_S = 1.0  # the list of nodes is asked for in every loop of the driver


class Session(Cluster, Protocol):
    """A cluster that can be opened and closed."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def put(self, value: Any) -> Any: ...


class ElasticBackend:
    """Retrains and scores in a pool that follows demand; `session` is what is known of Ray.

    The same actors retrain and score, never both at once, so that what suffices for one suffices for the other; where
    gradients have a market of their own, scoring has a pool of its own, which stays until workers are wanted for retrains.
    """

    def __init__(self, context: WorkerContext, session: Session, options: PoolOptions):
        self._context, self._session, self._options = context, session, options
        self._serials = count(1)
        self._shared: Any = None
        self._pool: Pool | None = None
        self._scoring: Pool | None = None  # where gradients have a pool of their own
        self._wanted = 1  # enough to ask a worker what it runs on
        self._role: Role | None = None  # until somebody wants workers for something
        self._events: list[Event] = []
        self._gone: set[str] = set()
        self._nodes: list[Node] = []
        self._nodes_at = 0.0

    def start(self) -> None:
        """Ask for a worker, or for as many as are wanted, without waiting; called again, those at hand join again.

        Raises InputError if there is no cluster to start or join.
        """
        self._end_gradient_pool()
        if self._pool is None:
            self._session.open()
            self._shared = self._session.put(self._context)
            self._pool = Pool(self._session, self._shared, self._options, self._role, self._serials)
            self._pool.want(self._wanted)
        else:
            self._events = [happening.event() for happening in self._pool.retell()]

    def want(self, n_workers: int, at_most: float = math.inf) -> None:
        """Grow towards `n_workers`, `at_most` so many. Few enough to fit in the pool at once: what is left is the tail."""
        self._wanted = int(min(n_workers, at_most))
        self._role = "tail" if n_workers <= self._options.workers else "retrains"
        self._end_gradient_pool()
        if self._pool is not None:
            self._pool.want(self._wanted, self._role)

    def submit(self, worker: str, work: Work, attempt: int) -> None:
        """Hand one retrain to an idle worker. Raises ValueError if it is unknown or has work already."""
        if worker not in self._gone:  # else the event that says so takes this attempt with it
            self._the_pool().submit(worker, work, attempt)

    def give_back(self, worker: str) -> None:
        """Ask a worker that retrains to store how far it is, and to stop."""
        self._the_pool().give_back(worker)

    def release(self, worker: str) -> None:
        """Let a worker go, whatever it is doing. Raises ValueError if it is unknown."""
        if worker not in self._gone:
            self._the_pool().release(worker)

    def nodes(self) -> list[Node]:
        """The machines of the cluster, at most about a second old; none before the start."""
        if self._pool is not None and time.monotonic() - self._nodes_at > NODES_AGE_S:
            self._nodes, self._nodes_at = self._session.nodes(), time.monotonic()
        return list(self._nodes)

    def wait(self, timeout_s: float) -> list[Event]:
        """Events since the last call, in the order they were seen. Raises RefitError if no worker can be started."""
        if not self._events:
            self._events = self._tell(self._the_pool().poll(timeout_s))
        events, self._events = self._events, []
        return events

    def probe(self, numerics: Numerics, alive: Alive = lambda: None) -> Numerics:
        """`numerics` as the first worker at hand resolves them, in whatever market of those asked for.

        Raises RefitError, ValueError while all are busy, and what `alive` raises while an answer is waited for.
        """
        pool = self._the_pool()
        pool.want(max(self._wanted, 1))
        n_lost, why = 0, ""
        while n_lost < PROBE_ATTEMPTS:
            answer = self._ask(pool, self._first_worker(pool, alive), numerics, alive)
            if isinstance(answer, Numerics):
                return answer
            if isinstance(answer, Failure):
                raise RefitError(f"a worker cannot say what it runs on: {answer.message}")
            n_lost, why = n_lost + (answer.kind not in FREE_KINDS), answer.message
        raise RefitError(f"{n_lost} workers were lost while they were asked for their device: {why}")

    def _first_worker(self, pool: Pool, alive: Alive) -> Slot:
        while not any(slot.has_joined for slot in pool.slots.values()):
            self._events += self._tell(heard(pool, alive))
        slot = next((slot for slot in pool.slots.values() if slot.is_idle), None)
        if slot is None:
            raise ValueError("every worker is busy")
        return slot

    def _ask(self, pool: Pool, slot: Slot, numerics: Numerics, alive: Alive) -> Numerics | Failure | Lost:
        pool.probe(slot, numerics)
        try:
            while True:
                happened = heard(pool, alive)
                answers = [h.what for h in happened if h.worker == slot.name]
                self._events += self._tell([h for h in happened if not isinstance(h.what, (Numerics, Failure))])
                for answer in answers:
                    if isinstance(answer, (Numerics, Failure, Lost)):
                        return answer
        finally:
            if slot.name in pool.slots and not slot.is_idle:
                self._events += self._tell(pool.lose(slot, Lost("error", "nobody waits for its answer")))

    def close(self) -> None:
        """End our actors, and Ray itself if it was started here; idempotent."""
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

    def _tell(self, happenings: list[Happening]) -> list[Event]:
        events = [happening.event() for happening in happenings]
        self._gone.update(event.worker for event in events if isinstance(event, (WorkerLost, WorkerLeft)))
        return events

    # --- scoring -------------------------------------------------------------------------------------------------

    def score(self, job: ScoreJob, alive: Alive = lambda: None) -> Iterator[ScoreBlock]:
        """Each range once, in whatever order they are done; those of a lost worker are done again elsewhere.

        Raises ValueError while retrains run, RefitError if a range fails in every attempt, and what `alive` raises.
        """
        if any(slot.task is not None for slot in self._the_pool().slots.values()):
            raise ValueError("scores are asked for while retrains are running")
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
        """Workers of the other market, and those on their way, would only be paid for meanwhile."""
        pool.want(0)
        for slot in list(pool.slots.values()):
            pool.release(slot.name)
            if slot.has_joined:
                self._events.append(WorkerLeft(slot.name))
                self._gone.add(slot.name)

    def _score(self, pool: Pool, job: ScoreJob, alive: Alive) -> Iterator[ScoreBlock]:
        shared, queue = self._session.put(replace(job, ranges=())), RangeQueue.of(job.ranges)
        try:
            while queue.left:
                pool.want(queue.left, "gradients")
                hand_out(pool, queue, shared)
                for happening in heard(pool, alive):
                    if isinstance(happening.what, ScoreBlock):
                        queue.left -= 1
                        yield happening.what
                    else:
                        self._set_back(pool, queue, happening)
        finally:
            if queue.left:
                pool.want(0)  # given up: nobody is to replace those who are
            self._end_scoring(pool)

    def _set_back(self, pool: Pool, queue: RangeQueue, happening: Happening) -> None:
        if pool is self._pool and (happening.task is None or isinstance(happening.what, Lost)):
            self._events += self._tell([happening])
        queue.set_back(happening)

    def _end_scoring(self, pool: Pool) -> None:
        for slot in list(pool.slots.values()):
            if slot.task is not None:  # given up half-way: a range in flight cannot be called back
                lost = pool.lose(slot, Lost("error", "the score stage was given up"))
                self._events += self._tell(lost) if pool is self._pool else []
            elif slot.has_job:
                slot.actor.release.remote()
                slot.has_job = False


def hand_out(pool: Pool, queue: RangeQueue, shared: Any) -> None:
    """One range for every idle worker; those whose node is being drained make room for others."""
    for slot in [slot for slot in pool.slots.values() if slot.is_idle]:
        if slot.is_ending:
            slot.is_worn = True
        elif queue.waiting:
            task = queue.waiting.popleft()
            pool.begin(slot, slot.actor.score.remote(None if slot.has_job else shared, *task), task)


def heard(pool: Pool, alive: Alive) -> list[Happening]:
    """What happened within a second; if nothing did, `alive` is called."""
    happened = pool.poll(LONGEST_WAIT_S)
    if not happened:
        alive()
    return happened
