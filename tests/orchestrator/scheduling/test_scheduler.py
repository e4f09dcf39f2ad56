import pytest
from checked import Checked, done, with_workers

from orchestrator.scheduling.events import (
    Failed,
    Finish,
    Publish,
    Published,
    PublishFailed,
    Release,
    StopRequested,
    Submit,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.scheduler import Scheduler


def test_specs_are_submitted_in_the_order_given_one_to_a_worker():
    scheduler = Checked(["c", "a", "b"])
    assert scheduler.handle(WorkerJoined("w1")) == [Submit("w1", "c", 1)]
    assert scheduler.handle(WorkerJoined("w2")) == [Submit("w2", "a", 1)]
    assert scheduler.handle(done("w2", "a"))[0] == Submit("w2", "b", 1)


def test_the_worker_that_has_been_idle_longest_is_next():
    scheduler = with_workers(["a"], "w1", "w2", "w3")
    assert scheduler.handle(Failed("w1", "a", "error", "x")) == [Submit("w2", "a", 2)]


def test_results_are_published_in_groups_as_soon_as_the_previous_write_ended():
    scheduler = with_workers("abc", "w1", "w2", "w3")
    assert scheduler.handle(done("w2", "b")) == [Publish(("b",))]
    assert scheduler.handle(done("w1", "a")) == []
    assert scheduler.handle(done("w3", "c")) == []
    assert scheduler.handle(Published(("b",))) == [Publish(("a", "c"))]
    assert scheduler.handle(Published(("a", "c"))) == [Finish(complete=True)]


def test_nothing_is_finished_before_it_is_published():
    scheduler = with_workers("a", "w1")
    scheduler.handle(done("w1", "a"))
    assert not scheduler.complete
    assert scheduler.state("a") == "publishing"
    scheduler.handle(Published(("a",)))
    assert scheduler.complete


def test_what_the_ledger_holds_already_is_not_run_again():
    scheduler = with_workers("abc", finished={"a", "c", "unrelated"})
    assert scheduler.handle(WorkerJoined("w1")) == [Submit("w1", "b", 1)]
    assert scheduler.count("finished") == 2


def test_a_campaign_with_nothing_to_do_is_complete_from_the_start():
    assert Checked("ab", finished={"a", "b"}).complete
    assert Checked([]).complete


def test_a_failed_spec_goes_back_to_its_place_in_the_order():
    scheduler = with_workers("abcd", "w1", "w2")
    assert scheduler.handle(Failed("w1", "a", "error", "x")) == [Submit("w1", "a", 2)]
    assert scheduler.handle(done("w2", "b"))[0] == Submit("w2", "c", 1)


def test_a_spec_beyond_its_retries_is_quarantined_with_its_last_error_and_published():
    scheduler = with_workers("ab", "w1", budgets=Budgets(retries=1))
    scheduler.handle(Failed("w1", "a", "error", "first"))
    assert scheduler.handle(Failed("w1", "a", "out_of_memory", "second")) == [Submit("w1", "b", 1), Publish(("a",))]
    assert scheduler.quarantined == {"a": "second"}
    assert scheduler.attempts("a") == 2
    scheduler.handle(Published(("a",)))
    scheduler.handle(done("w1", "b"))
    assert scheduler.handle(Published(("b",))) == [Finish(complete=True)]


def test_preemptions_are_not_charged_to_the_retries():
    scheduler = Checked("a", Budgets(retries=0, preemptions=3))
    for number in range(3):
        scheduler.handle(WorkerJoined(f"w{number}"))
        assert scheduler.handle(WorkerLost(f"w{number}", "preempted", "gone")) == []
    scheduler.handle(WorkerJoined("w3"))
    assert scheduler.quarantined == {}
    scheduler.handle(WorkerLost("w3", "node_lost", "gone too"))
    assert scheduler.quarantined == {"a": "gone too"}
    assert scheduler.failures == {"preempted": 3, "node_lost": 1}


def test_a_worker_that_crashes_is_charged_to_its_spec_as_an_error():
    scheduler = with_workers("a", "w1", budgets=Budgets(retries=0))
    assert scheduler.handle(WorkerLost("w1", "error", "exit code 1")) == [Publish(("a",))]
    assert scheduler.quarantined == {"a": "exit code 1"}


def test_the_loss_of_an_idle_worker_costs_nothing():
    scheduler = with_workers("a", "w1", "w2")
    scheduler.handle(WorkerLost("w2", "error", "gone"))
    assert scheduler.failures.total() == 0
    assert scheduler.handle(Failed("w1", "a", "error", "x")) == [Submit("w1", "a", 2)]


def test_divergence_is_a_result_not_a_failure():
    scheduler = with_workers("a", "w1", budgets=Budgets(retries=5))
    assert scheduler.handle(done("w1", "a", "diverged")) == [Publish(("a",))]
    assert scheduler.quarantined == {}


def test_a_late_result_of_a_lost_worker_counts_and_the_second_attempt_does_not():
    scheduler = with_workers("ab", "w1")
    scheduler.handle(WorkerLost("w1", "node_lost", "gone"))
    scheduler.handle(WorkerJoined("w2"))
    assert scheduler.handle(done("w1", "a")) == [Release("w2"), Publish(("a",))]
    assert not scheduler.accepts("a")
    assert scheduler.handle(done("w2", "a")) == []
    scheduler.handle(Published(("a",)))
    assert scheduler.handle(done("w1", "a")) == []
    assert scheduler.handle(WorkerJoined("w3")) == [Submit("w3", "b", 1)]
    assert scheduler.count("finished") == 1


def test_a_late_result_of_a_waiting_spec_takes_it_out_of_the_queue():
    scheduler = with_workers("ab", "w1")
    scheduler.handle(WorkerLost("w1", "node_lost", "gone"))
    scheduler.handle(done("w1", "a"))
    assert scheduler.handle(WorkerJoined("w2")) == [Submit("w2", "b", 1)]


def test_a_late_failure_of_a_lost_worker_is_not_charged_twice():
    scheduler = with_workers("a", "w1", "w2", budgets=Budgets(retries=1))
    scheduler.handle(WorkerLost("w1", "error", "gone"))
    assert scheduler.handle(Failed("w1", "a", "error", "late")) == []
    assert scheduler.quarantined == {}


def test_a_failure_after_somebody_else_delivered_costs_nothing():
    scheduler = with_workers("ab", "w1", budgets=Budgets(retries=0, preemptions=1))
    scheduler.handle(WorkerLost("w1", "node_lost", "gone"))
    scheduler.handle(WorkerJoined("w2"))
    scheduler.handle(done("w1", "a"))
    assert scheduler.handle(Failed("w2", "a", "error", "x")) == []
    assert scheduler.failures == {"node_lost": 1}
    assert scheduler.quarantined == {}


def test_the_loss_of_a_worker_after_somebody_else_delivered_costs_nothing():
    scheduler = with_workers("ab", "w1", budgets=Budgets(retries=0, preemptions=1))
    scheduler.handle(WorkerLost("w1", "node_lost", "gone"))
    scheduler.handle(WorkerJoined("w2"))
    scheduler.handle(done("w1", "a"))
    assert scheduler.handle(WorkerLost("w2", "error", "gone")) == []
    assert scheduler.failures == {"node_lost": 1}
    assert scheduler.quarantined == {}


def test_a_result_beats_a_quarantine_that_is_not_published_yet():
    scheduler = with_workers("ab", "w1", "w2", budgets=Budgets(retries=0))
    scheduler.handle(done("w2", "b"))
    scheduler.handle(WorkerLost("w1", "error", "gone"))
    assert scheduler.quarantined == {"a": "gone"}
    scheduler.handle(done("w1", "a"))
    assert scheduler.quarantined == {}
    assert scheduler.handle(Published(("b",))) == [Publish(("a",))]


def test_a_failed_write_goes_into_the_next_one():
    scheduler = with_workers("ab", "w1")
    scheduler.handle(done("w1", "a"))
    scheduler.handle(done("w1", "b"))
    (again,) = scheduler.handle(PublishFailed(("a",), "disk full"))
    assert sorted(again.spec_ids) == ["a", "b"]


def test_news_of_a_write_that_is_not_in_progress_is_a_bug():
    scheduler = with_workers("ab", "w1")
    scheduler.handle(done("w1", "a"))
    with pytest.raises(ValueError, match="not those of the write in progress"):
        scheduler.handle(Published(("b",)))
    scheduler.handle(Published(("a",)))
    with pytest.raises(ValueError, match="not those of the write in progress"):
        scheduler.handle(Published(("a",)))


def test_a_stop_gives_up_what_runs_and_publishes_what_is_finished():
    scheduler = with_workers("abcd", "w1", "w2")
    scheduler.handle(done("w1", "a"))
    scheduler.handle(done("w2", "b"))
    assert scheduler.handle(StopRequested("Ctrl-C")) == []
    assert scheduler.count("running") == 0
    assert scheduler.handle(WorkerJoined("w3")) == []
    assert scheduler.handle(Published(("a",))) == [Publish(("b",))]
    assert scheduler.handle(Published(("b",))) == [Finish(complete=False)]
    assert scheduler.handle(WorkerJoined("w4")) == []


def test_a_stop_with_nothing_to_publish_ends_at_once():
    assert with_workers("a", "w1").handle(StopRequested("budget")) == [Finish(complete=False)]


def test_a_result_that_arrives_after_the_stop_is_published():
    scheduler = with_workers("ab", "w1", "w2")
    scheduler.handle(done("w1", "a"))
    scheduler.handle(StopRequested("Ctrl-C"))
    scheduler.handle(done("w2", "b"))
    assert scheduler.handle(Published(("a",))) == [Publish(("b",))]
    assert scheduler.handle(Published(("b",))) == [Finish(complete=True)]


def test_work_given_up_by_a_stop_is_not_charged():
    scheduler = with_workers("ab", "w1", "w2", budgets=Budgets(retries=0))
    scheduler.handle(done("w1", "a"))
    scheduler.handle(StopRequested("Ctrl-C"))
    scheduler.handle(WorkerLost("w2", "error", "killed by close"))
    assert scheduler.quarantined == {}
    assert scheduler.failures.total() == 0


@pytest.mark.parametrize("kind", ["store_refused", "source_changed"])
def test_what_ends_the_session_quarantines_nothing_however_small_the_budgets(kind):
    scheduler = with_workers("ab", "w1", "w2", budgets=Budgets(retries=0, preemptions=0))
    scheduler.handle(Failed("w1", "a", kind, "x"))
    scheduler.handle(Failed("w2", "b", kind, "x"))
    assert scheduler.quarantined == {}
    assert scheduler.failures == {kind: 2}


def test_a_spec_twice_in_the_order_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Scheduler(["a", "b", "a"])


def test_news_of_an_unknown_spec_is_a_bug():
    with pytest.raises(KeyError):
        with_workers("a", "w1").handle(done("w1", "z"))
