"""Whole campaigns in virtual time, failures decided by a seed: they end with exactly the sets these imply."""

import heapq
import itertools
import sys

import pytest

from orchestrator.records import Outcome
from orchestrator.scheduling.events import (
    Completed,
    Failed,
    Finish,
    Publish,
    Published,
    PublishFailed,
    Submit,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import CHARGED_TO, Budgets
from orchestrator.scheduling.scheduler import Scheduler
from tasks.seeds import generator

BUDGETS = Budgets(retries=2, preemptions=4)
FATES = ("error", "timeout", "out_of_memory", "preempted", "node_lost", "crash")


def fate(seed, spec_id, attempt):
    """What attempt number `attempt` of this spec comes to: None is success."""
    rng = generator(seed, "fate", spec_id, attempt)
    return FATES[int(rng.integers(len(FATES)))] if rng.uniform() < 0.6 else None


def expected_attempts(seed, spec_id):
    """Attempts until success or quarantine, and whether it ends in quarantine."""
    retries = preemptions = 0
    for attempt in itertools.count(1):
        what = fate(seed, spec_id, attempt)
        if what is None:
            return attempt, False
        if CHARGED_TO.get(what, "retries") == "retries":
            retries += 1
        else:
            preemptions += 1
        if retries > BUDGETS.retries or preemptions > BUDGETS.preemptions:
            return attempt, True


class Simulation:
    def __init__(self, seed, n_specs, n_workers):
        self.seed, self.time = seed, 0.0
        self.rng = generator(seed, "durations")
        self.scheduler = Scheduler([str(number) for number in range(n_specs)], BUDGETS)
        self.queue, self.ties = [], itertools.count()
        self.finish, self.parts = None, []
        self.names = (f"w{number}" for number in itertools.count())
        for _ in range(n_workers):
            self.after(0.0, WorkerJoined(next(self.names)))

    def after(self, seconds, event):
        heapq.heappush(self.queue, (self.time + seconds, next(self.ties), event))

    def run(self):
        while self.finish is None:
            self.time, _, event = heapq.heappop(self.queue)
            for instruction in self.scheduler.handle(event):
                self.obey(instruction)
            self.scheduler.check()
        return self

    def obey(self, instruction):
        match instruction:
            case Submit(worker, spec_id, attempt):
                self.attempt(worker, spec_id, fate(self.seed, int(spec_id), attempt), self.rng.uniform(0.5, 3.0))
            case Publish(spec_ids):
                ok = self.rng.uniform() > 0.2
                if ok:
                    self.parts.append(spec_ids)
                self.after(self.rng.uniform(0.0, 2.0), Published(spec_ids) if ok else PublishFailed(spec_ids, "full"))
            case Finish():
                self.finish = instruction

    def attempt(self, worker, spec_id, what, seconds):
        if what in (None, "error", "timeout", "out_of_memory"):
            event = Completed(worker, Outcome(spec_id, "ok")) if what is None else Failed(worker, spec_id, what, what)
            self.after(seconds, event)
            return
        self.after(seconds, WorkerLost(worker, "error" if what == "crash" else what, what))
        self.after(seconds + 1.0, WorkerJoined(next(self.names)))


@pytest.mark.parametrize("seed", range(6))
def test_a_faulty_campaign_ends_with_exactly_the_implied_sets(seed):
    n_specs = 60
    simulation = Simulation(seed, n_specs, n_workers=1 + seed).run()
    expected = {str(number): expected_attempts(seed, number) for number in range(n_specs)}
    scheduler = simulation.scheduler
    assert simulation.finish == Finish(complete=True)
    assert set(scheduler.quarantined) == {spec_id for spec_id, (_, given_up) in expected.items() if given_up}
    assert 0 < len(scheduler.quarantined) < n_specs
    assert {spec_id: scheduler.attempts(spec_id) for spec_id in expected} == {s: n for s, (n, _) in expected.items()}
    assert sorted(s for part in simulation.parts for s in part) == sorted(expected)


def test_work_per_event_does_not_grow_with_the_campaign():
    def lines_run(n_specs):
        scheduler = Scheduler([str(number) for number in range(n_specs)])
        scheduler.handle(WorkerJoined("w"))
        lines = 0

        def count(frame, event, argument):
            nonlocal lines
            lines += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for number in range(50):
                scheduler.handle(Completed("w", Outcome(str(number), "ok")))
                scheduler.handle(Published((str(number),)))
        finally:
            sys.settrace(before)
        return lines

    assert lines_run(20_000) == lines_run(200)
