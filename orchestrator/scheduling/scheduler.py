"""The scheduler: a state machine that receives events and returns instructions. Pure: no clock, threads or IO; time comes in events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orchestrator.scheduling.eta import Durations, TimeLeft
from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    FailureKind,
    Finish,
    GiveBack,
    Instruction,
    Publish,
    Published,
    PublishFailed,
    Release,
    StopRequested,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets, Timing, is_exhausted
from orchestrator.scheduling.states import Specs
from orchestrator.scheduling.story import State, Trigger
from orchestrator.scheduling.tail import Tail
from orchestrator.scheduling.waiting import KindOf, Queue
from orchestrator.scheduling.workers import Attempt, Workers


class Scheduler:
    """Assigns specs to workers in the given order, retries failures within their budgets, and publishes results in groups.

    A spec is the identity of one retrain; to publish a result is to write its row to the ledger.
    `order` lists spec ids in dispatch order; those in `finished` are already in the ledger. A spec to retry returns to
    its place in the order. A write starts as soon as the previous one has ended and any spec is completed (group commit).
    Worker names are never reused: a worker that returns after a loss has a new name. `kind_of` maps a spec to its kind; specs
    of one kind take about equally long (by default all specs are of one kind). The schedulers of one campaign may share
    `durations`. The first event must be a Tick. Each event costs O(log n) per spec; a Tick that changes nothing costs O(kinds).

    Raises ValueError if a spec id appears twice in `order`.
    """

    def __init__(
        self,
        order: Sequence[str],
        budgets: Budgets | None = None,
        finished: Collection[str] = (),
        *,
        timing: Timing | None = None,
        kind_of: KindOf = lambda spec_id: "",
        durations: Durations | None = None,
    ):
        self.budgets, self.timing = budgets or Budgets(), timing or Timing()
        self.durations = durations or Durations()
        self.failures: Counter[FailureKind] = Counter()  # attempts that were charged, by kind
        self.n_duplicates = 0  # second attempts, started while a straggler was still running
        self._kind_of = kind_of
        self._specs = Specs(order, finished)
        self.story = self._specs.story  # the last transitions of this session
        self._queue = Queue(order, (s for s in order if self._specs.state[s] == "waiting"), kind_of)
        self._tail = Tail(self.timing, self.durations)
        self._workers = Workers()
        self._runners: dict[str, list[str]] = {}  # running spec -> the workers (one or two) whose results are awaited
        self._time = TimeLeft(self.durations)
        self._stopping = self._over = False
        self._out: list[Instruction] = []

    # --- queries -------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every spec is finished, that is published and not only completed."""
        return self._specs.count["finished"] == len(self)

    @property
    def stopping(self) -> bool:
        """Whether the session stops: after a StopRequested, or when the time left and the grace period are over."""
        return self._stopping

    @property
    def demand(self) -> int:
        """The number of workers that could work: running specs, and waiting specs that fit into the time left."""
        if self._stopping or self._over:
            return 0
        n_waiting = self._queue.count(self._time.fits)
        return self._specs.count["running"] + (n_waiting or self._tail.n_overdue(self._time.fits))

    @property
    def n_stuck(self) -> int:
        """The number of retrains that have run `stuck_factor` times as long as is typical; O(workers). Only compute.timeout_s ends them."""
        busy = ((a.spec_id, a.began_s) for name, a in self._workers.busy.items() if self._counts(name, a.spec_id))
        return len({s for s, began_s in busy if self._tail.is_stuck(self._kind_of(s), self._time.now_s - began_s)})

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Specs that were quarantined in this session -> their last error."""
        return MappingProxyType(self._specs.quarantined)

    def __len__(self) -> int:
        return len(self._specs.state)

    def count(self, state: State) -> int:
        """Return the number of specs in this state."""
        return self._specs.count[state]

    def state(self, spec_id: str) -> State:
        """Return the state of one spec."""
        return self._specs.state[spec_id]

    def attempts(self, spec_id: str) -> int:
        """Return how often this spec was submitted in this session."""
        return self._specs.attempts.get(spec_id, 0)

    def accepts(self, spec_id: str) -> bool:
        """Return whether a result of this spec would be kept.

        It is not kept if the spec already has a result. A quarantine that is not published yet does not count as a result.
        """
        return self._specs.accepts(spec_id)

    # --- reactions to events -------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Instruction]:
        """Process one event and return the instructions that follow; after Finish there are none.

        Raises KeyError for a spec that is not in the order, ValueError for the end of a write that is not in progress.
        """
        self._out = []
        if not self._over:
            _REACTIONS[type(event)](self, event)
            if not self._stopping:
                self._hand_out()
                released = self._workers.take_released(self._time.now_s - self.timing.idle_s, self._time.now_s)
                self._out += map(Release, released)
            self._publish()
            self._finish()
        return self._out

    def _tick(self, event: Tick) -> None:
        time = self._time
        time.tick(event)
        self._specs.now_s = time.now_s
        self._tail.tick(time.now_s)
        for worker in self._workers.drained_by(time.now_s + self.timing.drain_margin_s):
            self._give_back(worker)
        if time.up_since_s == time.now_s:
            for worker in self._workers.busy:
                self._give_back(worker)
        elif time.up_since_s is not None and time.now_s - time.up_since_s >= self.timing.grace_s:
            self._stop()

    def _worker_joined(self, event: WorkerJoined) -> None:
        self._workers.join(event.worker, event.devices, self._time.now_s)

    def _worker_draining(self, event: WorkerDraining) -> None:
        self._workers.drain(event.worker, self._time.now_s + event.seconds_left, self._time.now_s)
        attempt, left_s = self._workers.busy.get(event.worker), event.seconds_left - self.timing.drain_margin_s
        if attempt and not self._time.suffices(self._kind_of(attempt.spec_id), attempt.began_s, left_s):
            self._give_back(event.worker)

    def _worker_left(self, event: WorkerLeft) -> None:
        attempt = self._workers.remove(event.worker, self._time.now_s)
        if not attempt or not self._counts(event.worker, attempt.spec_id):
            return
        cause = "the worker left before the retrain reached it"
        if not self._runs_elsewhere(attempt, cause):
            self._move(attempt.spec_id, "give_up", attempt, cause)

    def _worker_lost(self, event: WorkerLost) -> None:
        attempt = self._workers.remove(event.worker, self._time.now_s)
        if attempt and self._counts(event.worker, attempt.spec_id):
            self._attempt_failed(attempt, event.kind, event.message)

    def _completed(self, event: Completed) -> None:
        spec_id = event.outcome.spec_id
        accepted = self._specs.accepts(spec_id)
        attempt = self._workers.end(event.worker, spec_id, self._time.now_s)
        # `attempt` is None if the worker was reported as lost before its result arrived
        attempt = attempt or Attempt(event.worker, spec_id, 0, self._time.now_s)
        self.durations.add(self._kind_of(spec_id), event.outcome.seconds)
        if accepted:
            for other in self._runners.get(spec_id, ()):
                if other != event.worker:  # its result is no longer needed
                    self._workers.dismiss(other, self._time.now_s)
            self._specs.quarantined.pop(spec_id, None)
            self._move(spec_id, "result", attempt, event.outcome.status)

    def _failed(self, event: Failed) -> None:
        attempt = self._workers.end(event.worker, event.spec_id, self._time.now_s)
        if attempt and self._counts(event.worker, event.spec_id):  # otherwise it was charged when its worker was lost
            self._attempt_failed(attempt, event.kind, event.message)

    def _attempt_failed(self, attempt: Attempt, kind: FailureKind, message: str) -> None:
        spec_id, cause = attempt.spec_id, f"{kind}: {message}"
        if self._runs_elsewhere(attempt, cause):
            return
        self.failures[kind] += 1
        hopeless = kind == "out_of_memory" and attempt.alone
        if is_exhausted(self._specs.charge(spec_id, kind), self.budgets) or hopeless:
            self._specs.quarantined[spec_id] = message
            self._move(spec_id, "quarantine", attempt, cause)
        else:
            if kind == "out_of_memory":
                self._queue.needs_device.add(spec_id)
            self._move(spec_id, "retry", attempt, cause)

    def _runs_elsewhere(self, attempt: Attempt, cause: str) -> bool:
        """Return whether another worker still runs the spec of this ended attempt; then the attempt is dropped without charge."""
        if len(runners := self._runners[attempt.spec_id]) == 1:
            return False
        runners.remove(attempt.worker)
        self._move(attempt.spec_id, "drop", attempt, cause)
        return True

    def _write_ended(self, event: Published | PublishFailed) -> None:
        self._specs.end_write(event)

    def _stop(self, event: StopRequested | None = None) -> None:
        self._stopping = True
        cause = event.reason if event else "the time or the money of the run is used up"
        for spec_id in list(self._runners):
            self._move(spec_id, "give_up", cause=cause)

    # --- consequences of a reaction ------------------------------------------------------------------------------

    def _counts(self, worker: str, spec_id: str) -> bool:
        return worker in self._runners.get(spec_id, ())

    def _move(self, spec_id: str, trigger: Trigger, attempt: Attempt | None = None, cause: str = "") -> None:
        old, new = self._specs.move(spec_id, trigger, attempt, cause)
        if old == new:
            return
        if old == "running":
            del self._runners[spec_id]
            self._tail.end(spec_id, self._kind_of(spec_id))
        elif old == "waiting" and trigger == "result":
            self._queue.discard(spec_id)
        if new == "waiting":
            self._queue.add(spec_id)

    def _hand_out(self) -> None:
        workers = self._workers
        if self._queue.needs_device:
            self._hand_out_alone()
        while workers.idle and (spec_id := self._queue.shared.pop(self._time.fits)) is not None:
            self._submit(next(iter(workers.idle)), spec_id)
        while workers.idle and (spec_id := self._tail.overdue(self._time.fits)) is not None:
            self.n_duplicates += 1
            self._submit(next(iter(workers.idle)), spec_id)

    def _hand_out_alone(self) -> None:
        """Reserve devices for the specs that must run alone on a device, before other specs are assigned.

        For each of these specs one worker becomes a keeper: no other worker that shares its devices gets work. The keeper gets the
        spec as soon as no other worker is busy on its devices.
        """
        workers = self._workers
        workers.have_keepers(self._queue.alone.count(self._time.fits), self._time.now_s)
        while (worker := workers.ready_keeper()) is not None:
            spec_id = self._queue.alone.pop(self._time.fits)
            assert spec_id is not None, "more keepers than specs that wait to run alone"
            self._submit(worker, spec_id)

    def _submit(self, worker: str, spec_id: str) -> None:
        alone = worker in self._workers.keepers
        attempt = Attempt(worker, spec_id, self._specs.begin_attempt(spec_id), self._time.now_s, alone)
        self._workers.begin(attempt)
        self._move(spec_id, "submit", attempt)
        runners = self._runners.setdefault(spec_id, [])
        runners.append(worker)
        if len(runners) > 1:
            self._tail.end(spec_id, self._kind_of(spec_id))
        elif not alone:  # a spec that runs alone gets no second attempt, which would occupy another whole device
            self._tail.begin(spec_id, self._kind_of(spec_id), self._time.now_s)
        self._out.append(Submit(worker, spec_id, attempt.number))

    def _give_back(self, worker: str) -> None:
        attempt = self._workers.busy[worker]
        if not attempt.gives_back and self._counts(worker, attempt.spec_id):
            attempt.gives_back = True
            self._out.append(GiveBack(worker, attempt.spec_id))

    def _publish(self) -> None:
        if spec_ids := self._specs.begin_write():
            self._out.append(Publish(spec_ids))

    def _finish(self) -> None:
        if self._specs.publishing:  # if no write is in progress, `_publish` has found no result to write
            return
        if self.complete or self._stopping or not (self._specs.count["running"] or self.demand):
            self._over = True
            self._out.append(Finish(self.complete))


_REACTIONS: Mapping[type, Callable[[Scheduler, Any], None]] = {
    Tick: Scheduler._tick,
    WorkerJoined: Scheduler._worker_joined,
    WorkerDraining: Scheduler._worker_draining,
    WorkerLeft: Scheduler._worker_left,
    WorkerLost: Scheduler._worker_lost,
    Completed: Scheduler._completed,
    Failed: Scheduler._failed,
    Published: Scheduler._write_ended,
    PublishFailed: Scheduler._write_ended,
    StopRequested: Scheduler._stop,
}
