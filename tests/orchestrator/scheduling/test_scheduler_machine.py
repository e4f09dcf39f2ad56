"""Any order of events: invariants hold after each, and the campaign can always be brought to its end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.records import Outcome
from orchestrator.scheduling.events import (
    Completed,
    Failed,
    Finish,
    Publish,
    Published,
    PublishFailed,
    StopRequested,
    Submit,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import CHARGED_TO, Budgets
from orchestrator.scheduling.scheduler import Scheduler

KINDS = st.sampled_from(sorted(CHARGED_TO))


class SchedulerMachine(RuleBasedStateMachine):
    """The world around the scheduler: which worker does what, which write is in progress, what the ledger holds."""

    @initialize(n=st.integers(0, 8), retries=st.integers(0, 2), preemptions=st.integers(0, 3), data=st.data())
    def begin(self, n, retries, preemptions, data):
        self.order = [f"spec-{number}" for number in range(n)]
        self.ledger = set(data.draw(st.sets(st.sampled_from(self.order)))) if self.order else set()
        self.scheduler = Scheduler(self.order, Budgets(retries, preemptions), self.ledger)
        self.working = {}  # worker -> spec or None
        self.lost = []  # (worker, spec) of workers that are gone and may still answer
        self.writing = None
        self.finish = None
        self.stopped = False
        self.n_joined = 0

    def send(self, event):
        for instruction in self.scheduler.handle(event):
            assert self.finish is None, "an instruction after Finish"
            self.obey(instruction)

    def obey(self, instruction):
        match instruction:
            case Submit(worker, spec_id, _):
                assert self.working[worker] is None, "submitted to a busy worker"
                assert spec_id not in self.ledger, "finished, and run again"
                assert not self.stopped, "submitted after a stop"
                self.working[worker] = spec_id
            case Publish(spec_ids):
                assert self.writing is None, "two writes at a time"
                assert spec_ids
                assert not set(spec_ids) & self.ledger, "published twice"
                self.writing = spec_ids
            case Finish(complete):
                assert complete == (self.ledger == set(self.order))
                assert self.writing is None
                self.finish = instruction

    def busy(self):
        return sorted(worker for worker, spec_id in self.working.items() if spec_id)

    @rule()
    def a_worker_joins(self):
        self.n_joined += 1
        worker = f"worker-{self.n_joined}"
        self.working[worker] = None
        self.send(WorkerJoined(worker))

    @precondition(lambda self: self.working)
    @rule(data=st.data(), kind=KINDS)
    def a_worker_is_lost(self, data, kind):
        worker = data.draw(st.sampled_from(sorted(self.working)))
        spec_id = self.working.pop(worker)
        if spec_id:
            self.lost.append((worker, spec_id))
        self.send(WorkerLost(worker, kind, "lost"))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), status=st.sampled_from(["ok", "diverged"]))
    def a_retrain_completes(self, data, status):
        worker = data.draw(st.sampled_from(self.busy()))
        spec_id, self.working[worker] = self.working[worker], None
        self.send(Completed(worker, Outcome(spec_id, status)))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), kind=KINDS)
    def a_retrain_fails(self, data, kind):
        worker = data.draw(st.sampled_from(self.busy()))
        spec_id, self.working[worker] = self.working[worker], None
        self.send(Failed(worker, spec_id, kind, "failed"))

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), completes=st.booleans())
    def a_lost_worker_answers(self, data, completes):
        worker, spec_id = data.draw(st.sampled_from(self.lost))
        answer = Completed(worker, Outcome(spec_id, "ok")) if completes else Failed(worker, spec_id, "error", "late")
        self.send(answer)

    @precondition(lambda self: self.writing)
    @rule(ok=st.booleans())
    def a_write_ends(self, ok):
        spec_ids, self.writing = self.writing, None
        if ok:
            self.ledger |= set(spec_ids)
        self.send(Published(spec_ids) if ok else PublishFailed(spec_ids, "disk full"))

    @precondition(lambda self: self.n_joined > 3 and not self.stopped)
    @rule()
    def a_stop_is_asked_for(self):
        self.stopped = True
        self.lost += [(worker, spec_id) for worker, spec_id in self.working.items() if spec_id]
        self.working = dict.fromkeys(self.working)
        self.send(StopRequested("test"))

    @invariant()
    def holds(self):
        if hasattr(self, "scheduler"):
            self.scheduler.check()
            assert self.scheduler.count("finished") == len(self.ledger)

    def teardown(self):
        """Liveness: with one healthy worker, at most 3 events per spec are needed to finish from here."""
        if not hasattr(self, "scheduler") or (self.scheduler.complete and self.finish is None):
            return
        self.a_worker_joins()
        steps = 0
        while self.finish is None:
            assert steps <= 3 * len(self.order) + 2, "no progress"
            steps += 1
            if self.writing:
                self.ledger |= set(self.writing)
                spec_ids, self.writing = self.writing, None
                self.send(Published(spec_ids))
            else:
                worker = self.busy()[0]
                spec_id, self.working[worker] = self.working[worker], None
                self.send(Completed(worker, Outcome(spec_id, "ok")))
        assert self.finish.complete or self.stopped


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestSchedulerMachine = SchedulerMachine.TestCase
