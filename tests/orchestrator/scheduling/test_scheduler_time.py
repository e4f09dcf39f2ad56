"""What happens because time has passed: idle workers go, stragglers get a second attempt, budgets end a campaign."""

import math

import pytest
from checked import done, of_kind, with_workers

from orchestrator.scheduling.eta import Durations
from orchestrator.scheduling.events import (
    Failed,
    Finish,
    GiveBack,
    Publish,
    Published,
    Release,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets, Timing

TIMING = Timing(idle_s=60.0, straggler_factor=3.0, straggler_min_s=30.0, drain_margin_s=10.0, grace_s=30.0)


def knowing(seconds, kind=""):
    """Durations of a campaign in which retrains typically take this long."""
    durations = Durations()
    durations.add(kind, seconds)
    return durations


# --- idle workers ----------------------------------------------------------------------------------------------------


def test_an_idle_worker_is_let_go_after_a_while_and_the_one_at_work_stays():
    scheduler = with_workers("a", "w1", "w2", timing=TIMING)
    assert scheduler.handle(Tick(59.0)) == []
    assert scheduler.handle(Tick(60.0)) == [Release("w2")]
    assert scheduler.handle(Tick(600.0)) == []


def test_a_worker_is_idle_since_it_last_worked():
    scheduler = with_workers("ab", "w1", "w2", timing=TIMING)
    scheduler.handle(Tick(50.0))
    scheduler.handle(done("w1", "a", seconds=50.0))
    assert scheduler.handle(Tick(109.0)) == []
    assert scheduler.handle(Tick(110.0)) == [Release("w1")]


def test_who_was_let_go_is_forgotten_and_demand_asks_for_another():
    scheduler = with_workers("a", "w1", "w2", timing=TIMING)
    scheduler.handle(Tick(60.0))
    assert scheduler.demand == 1
    assert scheduler.handle(WorkerLost("w1", "node_lost", "gone")) == []
    assert scheduler.demand == 1
    assert scheduler.handle(WorkerJoined("w3")) == [Submit("w3", "a", 2)]


def test_demand_is_what_waits_and_what_runs():
    scheduler = with_workers("abc")
    assert scheduler.demand == 3
    scheduler.handle(WorkerJoined("w1"))
    assert scheduler.demand == 3
    scheduler.handle(done("w1", "a"))
    assert scheduler.demand == 2


def test_a_worker_that_leaves_by_intent_costs_nothing_even_with_work_on_its_way_to_it():
    scheduler = with_workers("a", "w1", budgets=Budgets(retries=0, preemptions=0))
    scheduler.handle(WorkerLeft("w1"))
    assert (scheduler.failures.total(), scheduler.state("a")) == (0, "waiting")
    assert scheduler.handle(WorkerJoined("w2")) == [Submit("w2", "a", 2)]


# --- stragglers ------------------------------------------------------------------------------------------------------


def straggling(seconds=100.0):
    """Spec a runs on w1 since 0, typical is 20 s; w2 has nothing to do."""
    scheduler = with_workers("a", "w1", timing=TIMING, durations=knowing(20.0))
    scheduler.handle(Tick(seconds))
    return scheduler, scheduler.handle(WorkerJoined("w2"))


def test_a_straggler_gets_a_second_attempt_on_a_worker_that_idles():
    scheduler, instructions = straggling()
    assert instructions == [Submit("w2", "a", 2)]
    assert scheduler.n_duplicates == 1
    assert scheduler.handle(WorkerJoined("w3")) == [], "a third"


@pytest.mark.parametrize(("typical_s", "limit_s"), [(5.0, 30.0), (20.0, 60.0)])
def test_how_long_a_straggler_takes(typical_s, limit_s):
    scheduler = with_workers("a", "w1", "w2", timing=Timing(idle_s=1e9), durations=knowing(typical_s))
    assert scheduler.handle(Tick(limit_s)) == []
    assert scheduler.handle(Tick(limit_s + 0.1)) == [Submit("w2", "a", 2)]


def test_nobody_is_a_straggler_before_anybody_is_done():
    scheduler = with_workers("a", "w1", "w2", timing=Timing(idle_s=1e9))
    assert scheduler.handle(Tick(1e6)) == []


def test_what_waits_goes_before_a_second_attempt():
    scheduler = with_workers("abc", "w1", "w2", timing=TIMING, durations=knowing(20.0))
    scheduler.handle(Tick(100.0))
    assert scheduler.handle(done("w2", "b"))[0] == Submit("w2", "c", 1)
    assert of_kind(scheduler.handle(done("w2", "c")), Submit) == [Submit("w2", "a", 2)]


@pytest.mark.parametrize(("first", "second"), [("w1", "w2"), ("w2", "w1")])
def test_whichever_result_comes_first_counts_and_who_still_works_on_it_is_let_go(first, second):
    scheduler, _ = straggling()
    assert scheduler.handle(done(first, "a")) == [Release(second), Publish(("a",))]
    assert not scheduler.accepts("a")
    assert scheduler.handle(done(second, "a")) == []
    assert scheduler.handle(Published(("a",))) == [Finish(complete=True)]


@pytest.mark.parametrize(("first", "second"), [("w1", "w2"), ("w2", "w1")])
def test_one_of_two_attempts_may_fail_for_nothing_but_not_both(first, second):
    scheduler, _ = straggling()
    assert of_kind(scheduler.handle(Failed(first, "a", "error", "x")), Submit) == []
    assert scheduler.failures.total() == 0
    scheduler.handle(WorkerLost(second, "error", "gone"))
    assert scheduler.failures == {"error": 1}
    assert scheduler.attempts("a") == 3


@pytest.mark.parametrize(("first", "second"), [("w1", "w2"), ("w2", "w1")])
def test_one_of_two_attempts_may_leave(first, second):
    scheduler, _ = straggling()
    assert scheduler.handle(WorkerLeft(first)) == []
    assert scheduler.state("a") == "running"
    assert scheduler.handle(done(second, "a")) == [Publish(("a",))]


def test_the_attempt_that_is_left_gets_no_further_company_or_failures_would_never_be_charged():
    scheduler, _ = straggling()
    scheduler.handle(Failed("w2", "a", "error", "x"))
    assert of_kind(scheduler.handle(Tick(1000.0)), Submit) == []


def test_a_straggler_without_an_idle_worker_is_a_demand_for_one():
    scheduler = with_workers("a", "w1", timing=TIMING, durations=knowing(20.0))
    assert scheduler.demand == 1
    scheduler.handle(Tick(100.0))
    assert scheduler.demand == 2
    scheduler.handle(WorkerJoined("w2"))
    assert scheduler.demand == 1


def test_kinds_are_judged_by_their_own_length():
    durations = knowing(100.0, "long")
    durations.add("short", 1.0)
    kind_of = {"a": "long", "b": "short"}.__getitem__
    scheduler = with_workers("ab", "w1", "w2", "w3", timing=TIMING, durations=durations, kind_of=kind_of)
    assert scheduler.handle(Tick(50.0)) == [Submit("w3", "b", 2)]


# --- nodes that go away ----------------------------------------------------------------------------------------------


def test_a_drained_worker_without_work_is_let_go_at_once():
    scheduler = with_workers("a", "w1", "w2")
    assert scheduler.handle(WorkerDraining("w2", 120.0)) == [Release("w2")]


def test_what_fits_is_finished_on_a_node_that_goes_and_then_its_worker_is_let_go():
    scheduler = with_workers("ab", "w1", timing=TIMING, durations=knowing(100.0))
    scheduler.handle(Tick(50.0))
    assert scheduler.handle(WorkerDraining("w1", 60.0)) == []
    assert scheduler.handle(done("w1", "a")) == [Release("w1"), Publish(("a",))]
    assert scheduler.handle(WorkerJoined("w2")) == [Submit("w2", "b", 1)]


def test_what_does_not_fit_is_asked_back_once_and_costs_a_preemption():
    scheduler = with_workers("a", "w1", timing=TIMING, durations=knowing(100.0), budgets=Budgets(retries=0))
    scheduler.handle(Tick(40.0))
    assert scheduler.handle(WorkerDraining("w1", 60.0)) == [GiveBack("w1", "a")]
    assert scheduler.handle(WorkerDraining("w1", 55.0)) == []
    assert scheduler.handle(Tick(99.0)) == []
    assert scheduler.handle(Failed("w1", "a", "preempted", "given back")) == [Release("w1")]
    assert scheduler.failures == {"preempted": 1}
    assert scheduler.handle(WorkerJoined("w2")) == [Submit("w2", "a", 2)]


def test_what_was_thought_to_fit_is_asked_back_just_before_the_node_goes():
    scheduler = with_workers("a", "w1", timing=TIMING)
    assert scheduler.handle(WorkerDraining("w1", 60.0)) == [], "nobody knows how long it takes"
    assert scheduler.handle(Tick(49.0)) == []
    assert scheduler.handle(Tick(50.0)) == [GiveBack("w1", "a")]
    assert scheduler.handle(Tick(55.0)) == []


def test_who_is_worn_is_let_go_after_what_it_does_and_not_asked_to_give_it_back():
    scheduler = with_workers("ab", "w1", timing=TIMING, durations=knowing(1.0))
    assert scheduler.handle(WorkerDraining("w1", math.inf)) == []
    assert scheduler.handle(Tick(1e6)) == []
    assert scheduler.handle(done("w1", "a")) == [Release("w1"), Publish(("a",))]


def test_a_drain_that_was_put_off_gives_more_time():
    scheduler = with_workers("a", "w1", timing=TIMING)
    scheduler.handle(WorkerDraining("w1", 60.0))
    scheduler.handle(WorkerDraining("w1", 120.0))
    assert scheduler.handle(Tick(60.0)) == []
    assert scheduler.handle(Tick(110.0)) == [GiveBack("w1", "a")]


# --- budget and deadline ---------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_the_time_left_is_not_submitted():
    scheduler = with_workers("ab", timing=TIMING, durations=knowing(100.0))
    scheduler.handle(Tick(0.0, 150.0))
    assert scheduler.handle(WorkerJoined("w1")) == [Submit("w1", "a", 1)]
    scheduler.handle(Tick(90.0, 60.0))
    assert scheduler.demand == 1
    assert scheduler.handle(done("w1", "a", seconds=90.0)) == [Publish(("a",))]
    assert scheduler.handle(Published(("a",))) == [Finish(complete=False)]


def test_as_long_as_nobody_knows_how_long_it_takes_any_time_will_do():
    scheduler = with_workers("a")
    scheduler.handle(Tick(0.0, 0.1))
    assert scheduler.handle(WorkerJoined("w1")) == [Submit("w1", "a", 1)]


def test_a_kind_that_fits_goes_before_one_that_does_not():
    durations = knowing(100.0, "long")
    durations.add("short", 1.0)
    kind_of = {"a": "long", "b": "short"}.__getitem__
    scheduler = with_workers("ab", durations=durations, kind_of=kind_of)
    scheduler.handle(Tick(0.0, 50.0))
    assert scheduler.demand == 1
    assert scheduler.handle(WorkerJoined("w1")) == [Submit("w1", "b", 1)]


def test_when_fewer_workers_burn_less_submitting_goes_on():
    scheduler = with_workers("abc", "w1", "w2", timing=TIMING, durations=knowing(100.0))
    scheduler.handle(Tick(50.0, 60.0))
    scheduler.handle(done("w2", "b", seconds=50.0))
    assert of_kind(scheduler.handle(Tick(110.0, 40.0)), Release) == [Release("w2")], "waiting specs kept it"
    assert of_kind(scheduler.handle(Tick(111.0, 120.0)), Submit) == []
    assert of_kind(scheduler.handle(done("w1", "a", seconds=50.0)), Submit) == [Submit("w1", "c", 1)]


def test_when_the_time_is_up_what_runs_is_asked_back_and_given_up_after_a_grace():
    scheduler = with_workers("abc", "w1", "w2", timing=TIMING)
    assert scheduler.handle(Tick(10.0, 0.0)) == [GiveBack("w1", "a"), GiveBack("w2", "b")]
    assert scheduler.handle(Failed("w1", "a", "preempted", "given back")) == []
    assert scheduler.handle(Tick(39.0, 0.0)) == []
    assert not scheduler.stopping
    assert scheduler.handle(Tick(40.0, 0.0)) == [Finish(complete=False)]
    assert scheduler.failures == {"preempted": 1}


def test_what_ends_within_the_grace_is_kept():
    scheduler = with_workers("ab", "w1", timing=TIMING)
    scheduler.handle(Tick(10.0, -5.0))
    assert scheduler.handle(done("w1", "a")) == [Publish(("a",))]
    assert scheduler.handle(Published(("a",))) == [Finish(complete=False)]


def test_what_is_used_up_does_not_come_back():
    scheduler = with_workers("ab", "w1", timing=TIMING)
    scheduler.handle(Tick(10.0, 0.0))
    scheduler.handle(Tick(11.0, 1000.0))
    assert of_kind(scheduler.handle(done("w1", "a")), Submit) == []
    assert scheduler.demand == 0


def test_a_straggler_gets_no_second_attempt_that_does_not_fit():
    scheduler = with_workers("a", "w1", "w2", timing=TIMING, durations=knowing(20.0))
    assert of_kind(scheduler.handle(Tick(100.0, 15.0)), Submit) == []


def test_nothing_fits_from_the_start():
    scheduler = with_workers("a")
    assert scheduler.handle(Tick(0.0, 0.0)) == [Finish(complete=False)]


# --- how long a retrain takes ----------------------------------------------------------------------------------------


def test_typical_is_what_nine_in_ten_of_the_last_results_do_not_exceed():
    durations = Durations()
    assert durations.typical_s("a") is None
    for seconds in range(1000, 1128):
        durations.add("a", float(seconds))
    assert durations.typical_s("b") is None
    for seconds in reversed(range(1, 129)):
        durations.add("a", float(seconds))
    assert durations.typical_s("a") == pytest.approx(0.9 * 128, abs=1.0)


# --- retrains that hang ------------------------------------------------------------------------------------------------


def test_retrains_that_run_ten_times_as_long_as_is_typical_are_counted_whatever_runs_beside_them():
    scheduler = with_workers("abc", "w1", "w2", "w3", timing=TIMING, durations=knowing(60.0))
    scheduler.handle(Tick(50.0))
    scheduler.handle(done("w3", "c", seconds=50.0))
    scheduler.handle(Tick(600.0))
    assert scheduler.n_stuck == 0
    scheduler.handle(Tick(601.0))
    assert scheduler.n_stuck == 2
    scheduler.handle(done("w1", "a", seconds=60.0))
    assert scheduler.n_stuck == 1


def test_short_retrains_are_not_stuck_at_once_and_without_results_nobody_knows():
    scheduler = with_workers("a", "w1", timing=TIMING, durations=knowing(0.1))
    scheduler.handle(Tick(300.0))
    assert scheduler.n_stuck == 0
    scheduler.handle(Tick(301.0))
    assert scheduler.n_stuck == 1
    unknown = with_workers("a", "w1", timing=TIMING)
    unknown.handle(Tick(1e9))
    assert unknown.n_stuck == 0
