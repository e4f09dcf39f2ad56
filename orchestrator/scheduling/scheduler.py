"""The campaign as a state machine: events in, instructions out. Pure: no clock, no thread, no IO; time comes as an event."""

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
    """Hands specs to workers in the order given, tries failures again within their budgets, publishes in groups.

    `order` lists spec ids in dispatch order; those in `finished` are in the ledger already. A failed spec goes back to
    its place in the order. A write starts as soon as the previous one ended and anything is finished (group commit).
    Worker names are never reused: a worker that comes back after a loss has a new name. `kind_of` says which specs take
    about equally long (all, by default); `durations` may be shared by the schedulers of a campaign. The first event is
    a Tick. O(log n) per event and spec; a Tick that changes nothing is O(kinds).

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
        self.n_duplicates = 0  # second attempts beside one that took long
        self._kind_of = kind_of
        self._specs = Specs(order, finished)
        self.story = self._specs.story  # the transitions of this session, of which the last ones are kept
        self._queue = Queue(order, (s for s in order if self._specs.state[s] == "waiting"), kind_of)
        self._tail = Tail(self.timing, self.durations)
        self._workers = Workers()
        self._runners: dict[str, list[str]] = {}  # running spec -> workers whose attempts count, two at most
        self._time = TimeLeft(self.durations)
        self._stopping = self._over = False
        self._out: list[Instruction] = []

    # --- what one may ask ----------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every spec is finished: published, not only done."""
        return self._specs.count["finished"] == len(self)

    @property
    def stopping(self) -> bool:
        """Whether nothing new is taken on and what ran is given up: a stop was asked for, or time and grace are over."""
        return self._stopping

    @property
    def demand(self) -> int:
        """How many workers there is work for: specs that run, and those that wait and may be submitted."""
        if self._stopping or self._over:
            return 0
        n_waiting = self._queue.count(self._time.fits)
        return self._specs.count["running"] + (n_waiting or self._tail.n_overdue(self._time.fits))

    @property
    def n_stuck(self) -> int:
        """How many retrains run `stuck_factor` times as long as is typical; O(workers). Without a time limit nothing ends them."""
        busy = ((a.spec_id, a.began_s) for name, a in self._workers.busy.items() if self._counts(name, a.spec_id))
        return len({s for s, began_s in busy if self._tail.is_stuck(self._kind_of(s), self._time.now_s - began_s)})

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Specs given up in this session -> their last error."""
        return MappingProxyType(self._specs.quarantined)

    def __len__(self) -> int:
        return len(self._specs.state)

    def count(self, state: State) -> int:
        """How many specs are in this state."""
        return self._specs.count[state]

    def state(self, spec_id: str) -> State:
        """The state of one spec."""
        return self._specs.state[spec_id]

    def attempts(self, spec_id: str) -> int:
        """How often this spec was submitted in this session."""
        return self._specs.attempts.get(spec_id, 0)

    def accepts(self, spec_id: str) -> bool:
        """Whether a result of this spec would count; what is done is not replaced, but a result beats a quarantine."""
        return self._specs.accepts(spec_id)

    # --- what happens --------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> list[Instruction]:
        """What to do now that this happened; nothing any more after Finish.

        Raises KeyError on a spec that is not in the order, ValueError on news of a write that is not in progress.
        """
        self._out = []
        if not self._over:
            _REACTIONS[type(event)](self, event)
            if not self._stopping:
                self._hand_out()
                gone = self._workers.let_go(self._time.now_s - self.timing.idle_s, self._time.now_s)
                self._out += map(Release, gone)
            self._publish()
            self._finish()
        return self._out

    def _tick(self, event: Tick) -> None:
        time = self._time
        time.tick(event)
        self._specs.now_s = time.now_s
        self._tail.tick(time.now_s)
        for worker in self._workers.going_by(time.now_s + self.timing.drain_margin_s):
            self._ask_back(worker)
        if time.up_since_s == time.now_s:
            for worker in self._workers.busy:
                self._ask_back(worker)
        elif time.up_since_s is not None and time.now_s - time.up_since_s >= self.timing.grace_s:
            self._stop()

    def _worker_joined(self, event: WorkerJoined) -> None:
        self._workers.join(event.worker, event.devices, self._time.now_s)

    def _worker_draining(self, event: WorkerDraining) -> None:
        self._workers.drain(event.worker, self._time.now_s + event.seconds_left, self._time.now_s)
        attempt, left_s = self._workers.busy.get(event.worker), event.seconds_left - self.timing.drain_margin_s
        if attempt and not self._time.suffices(self._kind_of(attempt.spec_id), attempt.began_s, left_s):
            self._ask_back(event.worker)

    def _worker_left(self, event: WorkerLeft) -> None:
        attempt = self._workers.remove(event.worker, self._time.now_s)
        if not attempt or not self._counts(event.worker, attempt.spec_id):
            return
        cause = "the worker left before the retrain reached it"
        if not self._goes_on_elsewhere(attempt, cause):
            self._move(attempt.spec_id, "give_up", attempt, cause)

    def _worker_lost(self, event: WorkerLost) -> None:
        attempt = self._workers.remove(event.worker, self._time.now_s)
        if attempt and self._counts(event.worker, attempt.spec_id):
            self._attempt_failed(attempt, event.kind, event.message)

    def _completed(self, event: Completed) -> None:
        spec_id = event.outcome.spec_id
        accepted = self._specs.accepts(spec_id)
        attempt = self._workers.end(event.worker, spec_id, self._time.now_s)
        attempt = attempt or Attempt(event.worker, spec_id, 0, self._time.now_s)  # of a worker that was counted as lost
        self.durations.add(self._kind_of(spec_id), event.outcome.seconds)
        if accepted:
            for other in self._runners.get(spec_id, ()):
                if other != event.worker:  # nobody waits for it any more
                    self._workers.dismiss(other, self._time.now_s)
            self._specs.quarantined.pop(spec_id, None)
            self._move(spec_id, "result", attempt, event.outcome.status)

    def _failed(self, event: Failed) -> None:
        attempt = self._workers.end(event.worker, event.spec_id, self._time.now_s)
        if attempt and self._counts(event.worker, event.spec_id):  # else it was charged when its worker was lost
            self._attempt_failed(attempt, event.kind, event.message)

    def _attempt_failed(self, attempt: Attempt, kind: FailureKind, message: str) -> None:
        spec_id, cause = attempt.spec_id, f"{kind}: {message}"
        if self._goes_on_elsewhere(attempt, cause):
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

    def _goes_on_elsewhere(self, attempt: Attempt, cause: str) -> bool:
        """Whether a running spec goes on elsewhere now that this worker does not; then it costs nothing."""
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

    # --- what follows --------------------------------------------------------------------------------------------

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
        while workers.idle and (spec_id := self._queue.beside.pop(self._time.fits)) is not None:
            self._submit(next(iter(workers.idle)), spec_id)
        while workers.idle and (spec_id := self._tail.overdue(self._time.fits)) is not None:
            self.n_duplicates += 1
            self._submit(next(iter(workers.idle)), spec_id)

    def _hand_out_alone(self) -> None:
        """One keeper per spec that waits to run alone, before others get work: they begin as their devices become free."""
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
        elif not alone:  # a second attempt would need a device alone, too
            self._tail.begin(spec_id, self._kind_of(spec_id), self._time.now_s)
        self._out.append(Submit(worker, spec_id, attempt.number))

    def _ask_back(self, worker: str) -> None:
        attempt = self._workers.busy[worker]
        if not attempt.asked_back and self._counts(worker, attempt.spec_id):
            attempt.asked_back = True
            self._out.append(GiveBack(worker, attempt.spec_id))

    def _publish(self) -> None:
        if spec_ids := self._specs.begin_write():
            self._out.append(Publish(spec_ids))

    def _finish(self) -> None:
        if self._specs.publishing:  # and if not, then nothing is unpublished either: it would be publishing
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
