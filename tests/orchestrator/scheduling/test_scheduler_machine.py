"""Any order of events: invariants hold after each, and the campaign can always be brought to its end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.records import Outcome
from orchestrator.scheduling.events import (
    Completed,
    Failed,
    Finish,
    GiveBack,
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
from orchestrator.scheduling.policies import CHARGED_TO, Budgets, Timing
from orchestrator.scheduling.scheduler import Scheduler
from tests.orchestrator.scheduling.invariants import check_invariants

KINDS = st.sampled_from(sorted(CHARGED_TO))
DEVICES = st.sampled_from([(), ("gpu-0",), ("gpu-0",), ("gpu-1",), ("gpu-0", "gpu-1"), ("gpu-1", "gpu-2")])
SECONDS = st.sampled_from([0.5, 4.0, 40.0])
TIMING = Timing(idle_s=20.0, straggler_factor=2.0, straggler_min_s=5.0, drain_margin_s=2.0, grace_s=10.0)


class SchedulerMachine(RuleBasedStateMachine):
    """The world around the scheduler: which worker does what and where, which write is in progress, what the ledger holds."""

    @initialize(n=st.integers(0, 8), retries=st.integers(0, 2), preemptions=st.integers(0, 3), data=st.data())
    def begin(self, n, retries, preemptions, data):
        self.order = [f"spec-{number}" for number in range(n)]
        self.ledger = set(data.draw(st.sets(st.sampled_from(self.order)))) if self.order else set()
        self.scheduler = Scheduler(
            self.order, Budgets(retries, preemptions), self.ledger, timing=TIMING, kind_of=lambda s: str(int(s[5:]) % 2)
        )
        self.working = {}  # worker -> spec or None
        self.devices = {}
        self.draining, self.asked = set(), set()  # workers
        self.needs_device = set()  # specs that ran out of memory
        self.lost = []  # (worker, spec) of workers that are gone and may still answer
        self.writing = self.finish = self.delivered = None
        self.stopped = self.used_up = False
        self.n_joined, self.now_s, self.left_s = 0, 0.0, None
        self.send(Tick(0.0))

    def send(self, event):
        self.delivered = event.outcome.spec_id if isinstance(event, Completed) else None
        for instruction in self.scheduler.handle(event):
            assert self.finish is None, "an instruction after Finish"
            self.obey(instruction)
        if self.scheduler.stopping and not self.stopped:
            self.give_up()

    def give_up(self):
        self.stopped = True
        self.lost += [(worker, spec_id) for worker, spec_id in self.working.items() if spec_id]
        self.working = dict.fromkeys(self.working)

    def obey(self, instruction):
        match instruction:
            case Submit(worker, spec_id, _):
                self.begin_attempt(worker, spec_id)
            case GiveBack(worker, spec_id):
                assert self.working[worker] == spec_id, "asked back what it does not have"
                assert worker not in self.asked, "asked twice"
                self.asked.add(worker)
            case Release(worker):
                spec_id = self.working.pop(worker)
                assert spec_id in (None, self.delivered), "let go with work"
                self.lost += [(worker, spec_id)] if spec_id else []
            case Publish(spec_ids):
                assert self.writing is None, "two writes at a time"
                assert spec_ids
                assert not set(spec_ids) & self.ledger, "published twice"
                self.writing = spec_ids
            case Finish(complete):
                assert complete == (self.ledger == set(self.order))
                assert self.writing is None
                assert complete or self.stopped or self.scheduler.stopping or self.left_s is not None
                self.finish = instruction

    def begin_attempt(self, worker, spec_id):
        assert self.working[worker] is None, "submitted to a busy worker"
        assert spec_id not in self.ledger, "finished, and run again"
        assert not self.stopped, "submitted after a stop"
        assert not self.used_up, "submitted beyond the budget"
        assert worker not in self.draining, "submitted to a node that goes away"
        others = [name for name, at in self.working.items() if at == spec_id]
        assert len(others) <= 1, "more than one attempt besides"
        company = {self.working[name] for name in self.neighbours(worker)} - {None}
        assert not company & self.needs_device, "company for one that must be alone"
        if spec_id in self.needs_device:
            assert not company, "not alone"
            assert not others, "a second attempt of one that must be alone"
        self.working[worker] = spec_id

    def neighbours(self, worker):
        return [name for name in self.working if name != worker and set(self.devices[name]) & set(self.devices[worker])]

    def busy(self):
        return sorted(worker for worker, spec_id in self.working.items() if spec_id)

    def ends(self, worker):
        """What it was doing; it does nothing now."""
        spec_id, self.working[worker] = self.working[worker], None
        self.asked.discard(worker)
        return spec_id

    @rule(devices=DEVICES)
    def a_worker_joins(self, devices):
        self.n_joined += 1
        worker = f"worker-{self.n_joined}"
        self.working[worker], self.devices[worker] = None, devices
        self.send(WorkerJoined(worker, devices))

    @precondition(lambda self: self.working)
    @rule(data=st.data(), kind=KINDS)
    def a_worker_is_lost(self, data, kind):
        worker = data.draw(st.sampled_from(sorted(self.working)))
        spec_id = self.working.pop(worker)
        if spec_id:
            self.lost.append((worker, spec_id))
        self.failing(WorkerLost(worker, kind, "lost"), spec_id, kind)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def a_worker_leaves(self, data):
        worker = data.draw(st.sampled_from(sorted(self.working)))
        self.working.pop(worker)
        self.send(WorkerLeft(worker))

    @precondition(lambda self: self.working)
    @rule(data=st.data(), seconds=SECONDS)
    def a_node_is_about_to_go(self, data, seconds):
        worker = data.draw(st.sampled_from(sorted(self.working)))
        self.draining.add(worker)
        self.send(WorkerDraining(worker, seconds))
        assert self.stopped or self.finish or self.working.get(worker, "gone"), "drained, idle, and kept"

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), status=st.sampled_from(["ok", "diverged"]), seconds=SECONDS)
    def a_retrain_completes(self, data, status, seconds):
        worker = data.draw(st.sampled_from(self.busy()))
        self.send(Completed(worker, Outcome(self.ends(worker), status, seconds=seconds)))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), kind=KINDS)
    def a_retrain_fails(self, data, kind):
        worker = data.draw(st.sampled_from(self.busy()))
        spec_id = self.ends(worker)
        self.failing(Failed(worker, spec_id, kind, "failed"), spec_id, kind)

    @precondition(lambda self: self.asked & set(self.working))
    @rule(data=st.data())
    def a_retrain_is_given_back(self, data):
        worker = data.draw(st.sampled_from(sorted(self.asked & set(self.working))))
        self.send(Failed(worker, self.ends(worker), "preempted", "given back"))

    def failing(self, event, spec_id, kind):
        """Out of memory once: needs a device. Twice: given up."""
        if kind != "out_of_memory" or spec_id is None or self.scheduler.state(spec_id) != "running":
            return self.send(event)
        again, other = spec_id in self.needs_device, spec_id in self.working.values()
        if not other:
            self.needs_device.add(spec_id)
        self.send(event)
        if again:
            assert spec_id in self.scheduler.quarantined

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

    @rule(seconds=SECONDS, left_s=st.sampled_from([None, None, None, 100.0, 20.0, 1.0]))
    def time_passes(self, seconds, left_s):
        self.tick(seconds, left_s)

    @precondition(lambda self: self.n_joined > 3)
    @rule(seconds=SECONDS)
    def the_budget_is_used_up(self, seconds):
        self.used_up = True
        self.tick(seconds, 0.0)

    def tick(self, seconds, left_s):
        self.now_s += seconds
        self.left_s = 0.0 if self.used_up else left_s
        self.send(Tick(self.now_s, left_s))

    @precondition(lambda self: self.n_joined > 3 and not self.stopped)
    @rule()
    def a_stop_is_asked_for(self):
        self.give_up()
        self.send(StopRequested("test"))

    @invariant()
    def holds(self):
        if hasattr(self, "scheduler"):
            check_invariants(self.scheduler)
            assert self.scheduler.count("finished") == len(self.ledger)
            n_left = self.scheduler.count("waiting") + 2 * self.scheduler.count("running")
            assert (self.scheduler.demand == 0) if self.finish or self.stopped else self.scheduler.demand <= n_left

    def teardown(self):
        """Liveness: with one healthy worker and without limit, few events per spec and worker are needed to finish from here."""
        if not hasattr(self, "scheduler") or (self.scheduler.complete and self.finish is None):
            return
        steps, most = 0, 3 * len(self.order) + len(self.working) + 5
        self.a_worker_joins(())
        self.tick(1.0, None)
        while self.finish is None:
            assert steps <= most, "no progress"
            steps += 1
            if self.writing:
                self.a_write_ends(ok=True)
            elif self.busy():
                worker = self.busy()[0]
                self.send(Completed(worker, Outcome(self.ends(worker), "ok")))
            else:
                self.tick(TIMING.grace_s, None)
        assert self.finish.complete or self.stopped or self.used_up


SchedulerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestSchedulerMachine = SchedulerMachine.TestCase
