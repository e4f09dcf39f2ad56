"""A retrain that ran out of memory runs again alone on its device; out of memory alone, it is given up."""

import pytest
from checked import Checked, done, of_kind, out_of_memory, with_workers

from orchestrator.scheduling.events import (
    Failed,
    Publish,
    Release,
    Submit,
    Tick,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets

GPU0, GPU1 = ("node:0",), ("node:1",)


def crowded(order="abcdef"):
    """Three workers on one device: w1 has a, w2 has b, w3 has c."""
    return with_workers(order, ("w1", GPU0), ("w2", GPU0), ("w3", GPU0))


def submits(instructions):
    return of_kind(instructions, Submit)


def test_it_waits_until_nobody_else_works_on_its_device_and_these_wait_for_it():
    scheduler = crowded()
    assert submits(scheduler.handle(out_of_memory("w1", "a"))) == []
    assert submits(scheduler.handle(done("w2", "b"))) == []
    assert submits(scheduler.handle(done("w3", "c"))) == [Submit("w1", "a", 2)]
    assert submits(scheduler.handle(WorkerJoined("w4", GPU0))) == [], "a newcomer on the device waits, too"
    freed = submits(scheduler.handle(done("w1", "a")))
    assert sorted(submit.worker for submit in freed) == ["w2", "w3", "w4"], "the one that has been idle longest is next"
    assert [submit.spec_id for submit in freed] == ["d", "e", "f"]


def test_other_devices_go_on_meanwhile():
    scheduler = with_workers("abcde", ("w1", GPU0), ("w2", GPU0), ("w3", GPU1), ("w4", GPU1))
    scheduler.handle(out_of_memory("w1", "a"))
    assert submits(scheduler.handle(done("w3", "c"))) == [Submit("w3", "e", 1)]


def test_a_device_that_is_free_already_goes_before_one_that_has_to_be_cleared():
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU0), ("w3", GPU1))
    assert submits(scheduler.handle(out_of_memory("w1", "a"))) == [Submit("w3", "a", 2)]


def test_a_device_that_becomes_free_sooner_is_taken_instead():
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    assert submits(scheduler.handle(WorkerJoined("w3", GPU1))) == [Submit("w3", "a", 2)]


def test_out_of_memory_alone_is_the_end_whatever_retries_are_left():
    scheduler = with_workers("a", ("w1", GPU0), budgets=Budgets(retries=9))
    assert scheduler.handle(out_of_memory("w1", "a")) == [Submit("w1", "a", 2)]
    assert scheduler.handle(out_of_memory("w1", "a")) == [Publish(("a",))]
    assert scheduler.quarantined == {"a": "CUDA out of memory"}


def test_out_of_memory_in_company_uses_the_retries():
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU0), budgets=Budgets(retries=0))
    assert scheduler.handle(out_of_memory("w1", "a")) == [Publish(("a",))]
    assert scheduler.quarantined == {"a": "CUDA out of memory"}


def test_it_stays_alone_when_it_fails_for_another_reason():
    scheduler = crowded()
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(done("w2", "b"))
    scheduler.handle(done("w3", "c"))
    (again,) = submits(scheduler.handle(Failed("w1", "a", "preempted", "given back")))
    assert again.spec_id == "a"


def test_without_devices_any_worker_will_do():
    scheduler = with_workers("abc", "w1", "w2")
    assert submits(scheduler.handle(out_of_memory("w1", "a"))) == [Submit("w1", "a", 2)]
    assert submits(scheduler.handle(done("w2", "b"))) == [Submit("w2", "c", 1)]
    scheduler.handle(out_of_memory("w1", "a"))
    assert set(scheduler.quarantined) == {"a"}


def test_several_have_the_device_one_after_the_other():
    scheduler = crowded("abc")
    for worker, spec_id in (("w1", "a"), ("w2", "b"), ("w3", "c")):
        instructions = scheduler.handle(out_of_memory(worker, spec_id))
    ran = []
    for _ in range(3):
        (submit,) = submits(instructions)
        ran.append(submit.spec_id)
        instructions = scheduler.handle(done(submit.worker, submit.spec_id))
    assert ran == ["a", "b", "c"]


GONE = [
    lambda worker: WorkerLost(worker, "node_lost", "gone"),
    lambda worker: WorkerLeft(worker),
    lambda worker: WorkerDraining(worker, 100.0),
]


@pytest.mark.parametrize("gone", GONE)
def test_when_the_chosen_worker_goes_another_on_the_device_takes_over(gone):
    scheduler = with_workers("abc", ("w1", GPU0), ("w2", GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    assert submits(scheduler.handle(gone("w1"))) == []
    assert submits(scheduler.handle(done("w2", "b"))) == [Submit("w2", "a", 2)]


@pytest.mark.parametrize("gone", GONE[:2])
def test_when_the_last_neighbour_at_work_goes_it_begins(gone):
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    assert submits(scheduler.handle(gone("w2"))) == [Submit("w1", "a", 2)]


@pytest.mark.parametrize("gone", GONE[:2])
def test_when_the_worker_that_is_alone_goes_its_neighbours_work_again(gone):
    scheduler = with_workers("abcd", ("w1", GPU0), ("w2", GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(done("w2", "b"))
    assert submits(scheduler.handle(gone("w1"))) == [Submit("w2", "a", 3)]
    assert submits(scheduler.handle(done("w2", "a"))) == [Submit("w2", "c", 1)]


def test_a_full_machine_uses_the_retries_and_nobody_waits_to_be_alone():
    scheduler = with_workers("ab", "w1", "w2", budgets=Budgets(retries=2))
    for attempt in (2, 3):
        assert submits(scheduler.handle(WorkerLost(f"w{2 * attempt - 3}", "host_memory", "killed by the system"))) == []
        joined = submits(scheduler.handle(WorkerJoined(f"w{2 * attempt - 1}")))
        assert joined == [Submit(f"w{2 * attempt - 1}", "a", attempt)], "beside the others, as before"
    assert scheduler.handle(WorkerLost("w5", "host_memory", "killed by the system")) == [Publish(("a",))]
    assert scheduler.quarantined == {"a": "killed by the system"}


def test_a_late_result_frees_the_device_that_was_kept_for_it():
    scheduler = with_workers("abcd", ("w1", GPU0), ("w2", GPU0), ("w3", GPU0))
    scheduler.handle(WorkerLost("w1", "out_of_memory", "killed by the system"))
    scheduler.handle(done("w2", "b"))
    assert scheduler.state("a") == "waiting"
    assert submits(scheduler.handle(done("w1", "a"))) == [Submit("w2", "d", 1)]


def test_a_worker_on_two_devices_is_alone_on_both():
    scheduler = with_workers("abcd", ("w1", GPU0 + GPU1), ("w2", GPU0), ("w3", GPU1))
    scheduler.handle(out_of_memory("w1", "a"))
    assert submits(scheduler.handle(done("w2", "b"))) == []
    assert submits(scheduler.handle(done("w3", "c"))) == [Submit("w1", "a", 2)]


def test_a_worker_between_two_that_are_alone_waits_for_both():
    workers = [("w1", GPU0), ("w2", GPU1), ("w3", GPU0 + GPU1)]
    scheduler = with_workers("abcd", *workers)
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(out_of_memory("w2", "b"))
    assert len(submits(scheduler.handle(done("w3", "c")))) == 2
    assert submits(scheduler.handle(done("w1", "a"))) == [Submit("w1", "d", 1)]
    assert submits(scheduler.handle(Failed("w1", "d", "error", "x"))) == [Submit("w1", "d", 2)], "not on w3"


def test_no_worker_is_let_go_while_it_waits_for_its_neighbour_and_after_that_its_time_begins_anew():
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(done("w2", "b"))
    assert of_kind(scheduler.handle(Tick(1000.0)), Release) == []
    scheduler.handle(done("w1", "a"))
    assert of_kind(scheduler.handle(Tick(1059.0)), Release) == []
    assert len(of_kind(scheduler.handle(Tick(1060.0)), Release)) == 2


def test_one_that_is_alone_gets_no_second_attempt_however_long_it_takes():
    scheduler = with_workers("ab", ("w1", GPU0), ("w2", GPU1))
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(done("w2", "b", seconds=1.0))
    assert scheduler.state("a") == "running"
    assert of_kind(scheduler.handle(Tick(59.0)), Submit) == []


def test_what_no_longer_fits_into_the_time_left_keeps_no_device():
    scheduler = Checked("abc")
    scheduler.handle(Tick(0.0, 100.0))
    for worker in ("w1", "w2"):
        scheduler.handle(WorkerJoined(worker, GPU0))
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(Tick(1.0, 0.0))
    assert of_kind(scheduler.handle(Tick(2.0, 0.0)), Submit) == []
    assert of_kind(scheduler.handle(done("w2", "b")), Submit) == []
