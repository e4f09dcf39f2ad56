"""The campaign as a state machine: events in, instructions out. Pure: no clock, no thread, no IO.

A spec is waiting, running, done_unpublished, publishing or finished; TRANSITIONS is all it can do. Specs that failed
beyond their budget take the same way to the ledger as results do, with a flag (`quarantined`).
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from orchestrator.scheduling.events import (
    Completed,
    Event,
    Failed,
    FailureKind,
    Finish,
    Instruction,
    Publish,
    Published,
    PublishFailed,
    StopRequested,
    Submit,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets, Spent, Timing, charge, is_exhausted

State = Literal["waiting", "running", "done_unpublished", "publishing", "finished"]
Trigger = Literal["submit", "result", "retry", "quarantine", "give_up", "publish", "published", "publish_failed"]

TRANSITIONS: Mapping[tuple[State, Trigger], State] = {
    ("waiting", "submit"): "running",
    ("waiting", "result"): "done_unpublished",  # late, from a worker that was counted as lost
    ("running", "result"): "done_unpublished",
    ("running", "retry"): "waiting",
    ("running", "quarantine"): "done_unpublished",
    ("running", "give_up"): "waiting",
    ("done_unpublished", "result"): "done_unpublished",  # quarantined, and a lost worker delivers after all
    ("done_unpublished", "publish"): "publishing",
    ("publishing", "published"): "finished",
    ("publishing", "publish_failed"): "done_unpublished",
}


class Scheduler:
    """Hands specs to workers in the order given, tries failures again within their budgets, publishes in groups.

    `order` lists spec ids in dispatch order; those in `finished` are in the ledger already. A failed spec goes back to
    its place in the order. A write starts as soon as the previous one ended and anything is finished (group commit).
    Worker names are never reused: a worker that comes back after a loss has a new name. O(log n) per event and spec.

    Raises ValueError if a spec id appears twice in `order`.
    """

    def __init__(
        self,
        order: Sequence[str],
        budgets: Budgets | None = None,
        finished: Collection[str] = (),
        timing: Timing | None = None,
    ):
        self.budgets = budgets or Budgets()
        self.failures: Counter[FailureKind] = Counter()  # attempts that were charged, by kind
        self._order = tuple(order)
        self._place = {spec_id: place for place, spec_id in enumerate(self._order)}
        if len(self._place) != len(self._order):
            raise ValueError("a spec id appears twice in the order")
        known = frozenset(finished)
        self._state: dict[str, State] = {s: "finished" if s in known else "waiting" for s in self._order}
        self._count: Counter[State] = Counter(self._state.values())
        # A heap of places in the order; a place whose spec is no longer waiting is skipped when it comes up.
        self._heap = [place for place, spec_id in enumerate(self._order) if self._state[spec_id] == "waiting"]
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._busy: dict[str, str] = {}  # worker -> spec it was given
        self._runner: dict[str, str] = {}  # running spec -> the worker whose attempt counts
        self._attempts: dict[str, int] = {}
        self._spent: dict[str, Spent] = {}
        self._quarantined: dict[str, str] = {}
        self._unpublished: dict[str, None] = {}
        self._publishing: tuple[str, ...] = ()
        self._stopping = False
        self._over = False

    @property
    def complete(self) -> bool:
        """Whether every spec is finished: published, not only done."""
        return self._count["finished"] == len(self._order)

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping

    @property
    def quarantined(self) -> Mapping[str, str]:
        """Specs given up in this session -> their last error."""
        return MappingProxyType(self._quarantined)

    def __len__(self) -> int:
        return len(self._order)

    def count(self, state: State) -> int:
        """How many specs are in this state."""
        return self._count[state]

    def state(self, spec_id: str) -> State:
        """The state of one spec."""
        return self._state[spec_id]

    def attempts(self, spec_id: str) -> int:
        """How often this spec was submitted in this session."""
        return self._attempts.get(spec_id, 0)

    def accepts(self, spec_id: str) -> bool:
        """Whether a result of this spec would count; what is done is not replaced, but a result beats a quarantine."""
        state = self._state[spec_id]
        return state in ("waiting", "running") or (state == "done_unpublished" and spec_id in self._quarantined)

    def handle(self, event: Event) -> list[Instruction]:
        """What to do now that this happened; nothing any more after Finish.

        Raises KeyError on a spec that is not in the order, ValueError on news of a write that is not in progress.
        """
        if self._over:
            return []
        self._react(event)
        return [*self._submit_waiting(), *self._publish_group(), *self._finish()]

    def _react(self, event: Event) -> None:
        match event:
            case WorkerJoined(worker):
                self._worker_joined(worker)
            case WorkerLost(worker, kind, message):
                self._worker_lost(worker, kind, message)
            case Completed(worker, outcome):
                self._completed(worker, outcome.spec_id)
            case Failed(worker, spec_id, kind, message):
                self._failed(worker, spec_id, kind, message)
            case Published(spec_ids):
                self._write_ended(spec_ids, "published")
            case PublishFailed(spec_ids):
                self._write_ended(spec_ids, "publish_failed")
            case StopRequested():
                self._stop()

    def _worker_joined(self, worker: str) -> None:
        if worker not in self._busy:
            self._idle[worker] = None

    def _worker_lost(self, worker: str, kind: FailureKind, message: str) -> None:
        self._idle.pop(worker, None)
        spec_id = self._busy.pop(worker, None)
        if spec_id is not None and self._runner.get(spec_id) == worker:
            self._attempt_failed(spec_id, kind, message)

    def _completed(self, worker: str, spec_id: str) -> None:
        accepted = self.accepts(spec_id)
        self._release(worker, spec_id)
        if accepted:
            self._quarantined.pop(spec_id, None)
            self._move(spec_id, "result")

    def _failed(self, worker: str, spec_id: str, kind: FailureKind, message: str) -> None:
        counts = self._runner.get(spec_id) == worker
        self._release(worker, spec_id)
        if counts:  # a late report of a lost worker was charged when it was lost
            self._attempt_failed(spec_id, kind, message)

    def _attempt_failed(self, spec_id: str, kind: FailureKind, message: str) -> None:
        self.failures[kind] += 1
        spent = self._spent[spec_id] = charge(self._spent.get(spec_id, Spent()), kind)
        if is_exhausted(spent, self.budgets):
            self._quarantined[spec_id] = message
            self._move(spec_id, "quarantine")
        else:
            self._move(spec_id, "retry")

    def _write_ended(self, spec_ids: tuple[str, ...], trigger: Literal["published", "publish_failed"]) -> None:
        if not self._publishing or spec_ids != self._publishing:
            raise ValueError(f"{trigger}: {len(spec_ids)} specs that are not the write in progress")
        self._publishing = ()
        for spec_id in spec_ids:
            self._move(spec_id, trigger)

    def _stop(self) -> None:
        self._stopping = True
        for spec_id in list(self._runner):
            self._move(spec_id, "give_up")

    def _release(self, worker: str, spec_id: str) -> None:
        if self._busy.get(worker) == spec_id:
            del self._busy[worker]
            self._idle[worker] = None

    def _move(self, spec_id: str, trigger: Trigger) -> None:
        old = self._state[spec_id]
        new = TRANSITIONS.get((old, trigger))
        if new is None:
            raise RuntimeError(f"spec {spec_id} is {old}: {trigger} is no transition of that state")
        self._state[spec_id] = new
        self._count[old] -= 1
        self._count[new] += 1
        if old == "running":
            del self._runner[spec_id]
        if new == "waiting":
            heapq.heappush(self._heap, self._place[spec_id])
        elif new == "done_unpublished":
            self._unpublished[spec_id] = None

    def _submit_waiting(self) -> list[Instruction]:
        instructions: list[Instruction] = []
        while self._idle and self._count["waiting"] and not self._stopping:
            spec_id = self._order[heapq.heappop(self._heap)]
            if self._state[spec_id] != "waiting":
                continue
            worker, _ = self._idle.popitem(last=False)
            self._move(spec_id, "submit")
            self._busy[worker], self._runner[spec_id] = spec_id, worker
            self._attempts[spec_id] = self.attempts(spec_id) + 1
            instructions.append(Submit(worker, spec_id, self._attempts[spec_id]))
        return instructions

    def _publish_group(self) -> list[Instruction]:
        if self._publishing or not self._unpublished:
            return []
        self._publishing = tuple(self._unpublished)
        self._unpublished.clear()
        for spec_id in self._publishing:
            self._move(spec_id, "publish")
        return [Publish(self._publishing)]

    def _finish(self) -> list[Instruction]:
        stopped = self._stopping and not self._publishing  # then nothing is unpublished either: it would be publishing
        if not (self.complete or stopped):
            return []
        self._over = True
        return [Finish(self.complete)]

    def check(self) -> None:
        """Assert what must hold between any two events; O(n), called after every event in tests."""
        self._check_states()
        self._check_workers()
        self._check_budgets()
        self._check_nothing_is_left_lying()

    def _check_states(self) -> None:
        assert +self._count == Counter(self._state.values()), "counts and states differ"
        in_state = {state: {s for s, at in self._state.items() if at == state} for state in self._state.values()}
        assert set(self._runner) == in_state.get("running", set()), "running specs and their workers differ"
        assert set(self._unpublished) == in_state.get("done_unpublished", set())
        assert sorted(self._publishing) == sorted(in_state.get("publishing", set()))
        queued = [self._order[place] for place in self._heap if self._state[self._order[place]] == "waiting"]
        assert sorted(queued) == sorted(in_state.get("waiting", set())), "a waiting spec is queued once"
        assert not any(self._state[s] in ("waiting", "running") for s in self._quarantined), "quarantined, and to run"

    def _check_workers(self) -> None:
        assert not self._idle.keys() & self._busy.keys(), "a worker is idle and busy"
        for spec_id, worker in self._runner.items():
            assert self._busy.get(worker) == spec_id, "a running spec has no worker of its own"
        assert len(set(self._runner.values())) == len(self._runner) <= len(self._busy), "more in flight than workers"

    def _check_budgets(self) -> None:
        for spec_id, spent in self._spent.items():
            assert not (self._state[spec_id] in ("waiting", "running") and is_exhausted(spent, self.budgets))
            assert spent.retries <= self.budgets.retries + 1
            assert spent.preemptions <= self.budgets.preemptions + 1
        assert all(n <= self.budgets.most_attempts for n in self._attempts.values()), "attempts exceed the budgets"

    def _check_nothing_is_left_lying(self) -> None:
        assert self._publishing or not self._unpublished, "something is done and no write is in progress"
        assert self._stopping or not (self._idle and self._count["waiting"]), "a worker is idle while specs wait"
        assert not self._over or self.complete or (self._stopping and not self._publishing), "over with work left"
