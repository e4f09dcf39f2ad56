"""Whole campaigns in virtual time, failures decided by a seed: they end with exactly the sets these imply."""

import heapq
import itertools
import sys
from pathlib import Path

import pytest
from simulated_cluster import POLL_S, Cluster

from orchestrator.records import Outcome
from orchestrator.scheduling import scheduler as scheduler_module
from orchestrator.scheduling.events import (
    Completed,
    Failed,
    Finish,
    Publish,
    Published,
    PublishFailed,
    Submit,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import CHARGED_TO, Budgets, Timing
from orchestrator.scheduling.scheduler import Scheduler
from tasks.seeds import generator
from tests.orchestrator.scheduling.invariants import check_invariants

SCHEDULING = str(Path(scheduler_module.__file__).parent)

BUDGETS = Budgets(retries=2, preemptions=4)
FATES = ("error", "timeout", "out_of_memory", "preempted", "node_lost", "crash")


def fate(seed, spec_id, attempt):
    """What attempt number `attempt` of this spec comes to: None is success."""
    rng = generator(seed, "fate", spec_id, attempt)
    return FATES[int(rng.integers(len(FATES)))] if rng.uniform() < 0.6 else None


def expected_attempts(seed, spec_id):
    """Attempts until success or quarantine, and whether it ends in quarantine."""
    retries = preemptions = n_out_of_memory = 0
    for attempt in itertools.count(1):
        what = fate(seed, spec_id, attempt)
        if what is None:
            return attempt, False
        if CHARGED_TO.get(what, "retries") == "retries":
            retries += 1
        else:
            preemptions += 1
        n_out_of_memory += what == "out_of_memory"
        if n_out_of_memory == 2 or retries > BUDGETS.retries or preemptions > BUDGETS.preemptions:
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
            check_invariants(self.scheduler)
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


ORDER = [str(number) for number in range(80)]
LARGE, TOO_LARGE = ORDER[::11], ORDER[7::40]
SPOT = Budgets(retries=2, preemptions=50)


@pytest.mark.parametrize("seed", range(4))
def test_on_spot_nodes_everything_but_what_is_too_large_is_finished_once_and_the_nodes_go(seed):
    cluster = Cluster(seed, ORDER, n_nodes=1 + seed, large=LARGE, too_large=TOO_LARGE, budgets=SPOT).run()
    scheduler = cluster.scheduler
    assert cluster.finish == Finish(complete=True)
    assert set(scheduler.quarantined) == set(TOO_LARGE)
    assert sorted(s for part in cluster.parts for s in part) == sorted(ORDER)
    assert scheduler.failures["node_lost"] + scheduler.failures["preempted"] > 0
    assert scheduler.failures["out_of_memory"] >= 2 * len(TOO_LARGE)
    assert scheduler.failures["error"] == 0
    assert len(cluster.submits) == sum(map(scheduler.attempts, ORDER))


def test_stragglers_are_duplicated_and_end_the_campaign_sooner():
    with_duplicates, without = (
        Cluster(3, ORDER, n_nodes=8, life_s=1e9, slow=0.05, timing=Timing(straggler_min_s=min_s)).run()
        for min_s in (30.0, 1e9)
    )
    assert with_duplicates.scheduler.n_duplicates > 0 == without.scheduler.n_duplicates
    assert with_duplicates.now_s < without.now_s


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_is_kept_but_for_one_grace_and_what_is_finished_is_published(seed):
    timing, n_nodes = Timing(grace_s=10.0, idle_s=20.0), 1 + seed
    cluster = Cluster(seed, ORDER, n_nodes=n_nodes, budget_s=400.0, budgets=SPOT, timing=timing).run()
    n_done = sum(map(len, cluster.parts))
    assert cluster.finish == Finish(complete=False)
    assert 0 < n_done == cluster.scheduler.count("finished") < len(ORDER)
    assert cluster.spent_s <= 400.0 + n_nodes * (timing.grace_s + 2 * POLL_S)


def test_a_tick_with_nothing_to_do_costs_the_same_whatever_the_number_of_workers():
    def lines_run(n_workers):
        scheduler = Scheduler([str(number) for number in range(2 * n_workers)])
        scheduler.handle(Tick(0.0))
        for number in range(n_workers):
            scheduler.handle(WorkerJoined(f"w{number}", (f"gpu-{number // 2}",)))
        scheduler.handle(Completed("w0", Outcome("0", "ok", seconds=100.0)))
        return count_lines(lambda: scheduler.handle(Tick(10.0, 1000.0)))

    assert lines_run(1000) == lines_run(10) > 0


def test_work_per_event_does_not_grow_with_the_campaign():
    def lines_run(n_specs):
        scheduler = Scheduler([str(number) for number in range(n_specs)])
        scheduler.handle(WorkerJoined("w"))
        return count_lines(lambda: work_off(scheduler, 50))

    def work_off(scheduler, n_specs):
        for number in range(n_specs):
            scheduler.handle(Tick(float(number)))
            scheduler.handle(Completed("w", Outcome(str(number), "ok")))
            scheduler.handle(Published((str(number),)))

    assert lines_run(20_000) == lines_run(200) > 0


def count_lines(function):
    """Count the lines of the scheduling modules that a call runs.

    Lines of other files do not count: the garbage collector may run the finalizers of unrelated objects at any time.
    """
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(SCHEDULING):
            return None
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines
