"""The story of a spec: every transition with its attempt, worker and cause, in order, and no more of them than are kept."""

from checked import done, out_of_memory, with_workers

from orchestrator.scheduling.events import (
    Failed,
    Published,
    PublishFailed,
    StopRequested,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.story import TRANSITIONS, Story, Transition


def steps(scheduler, spec_id):
    return [(t.event, t.attempt, t.worker, t.cause) for t in scheduler.story.of(spec_id)]


def test_a_retrain_that_succeeds_at_once_has_four_steps():
    scheduler = with_workers("ab", "w1")
    scheduler.handle(Tick(5.0))
    scheduler.handle(done("w1", "a"))
    scheduler.handle(Published(("a",)))
    assert scheduler.story.of("a") == [
        Transition(0.0, "a", "submit", "waiting", "running", 1, "w1", ""),
        Transition(5.0, "a", "result", "running", "done_unpublished", 1, "w1", "ok"),
        Transition(5.0, "a", "publish", "done_unpublished", "publishing"),
        Transition(5.0, "a", "published", "publishing", "finished"),
    ]
    assert steps(scheduler, "b") == [("submit", 1, "w1", "")]


def test_failures_say_on_which_worker_in_which_attempt_and_why():
    scheduler = with_workers("a", "w1", "w2", budgets=Budgets(retries=1, preemptions=1))
    scheduler.handle(WorkerLost("w1", "preempted", "the node was taken away"))
    scheduler.handle(Failed("w2", "a", "error", "ValueError: bad"))
    scheduler.handle(WorkerJoined("w3"))
    scheduler.handle(Failed("w2", "a", "error", "ValueError: worse"))
    assert steps(scheduler, "a")[:6] == [
        ("submit", 1, "w1", ""),
        ("retry", 1, "w1", "preempted: the node was taken away"),
        ("submit", 2, "w2", ""),
        ("retry", 2, "w2", "error: ValueError: bad"),
        ("submit", 3, "w2", ""),
        ("quarantine", 3, "w2", "error: ValueError: worse"),
    ]


def test_a_result_that_comes_late_belongs_to_no_attempt_and_beats_a_quarantine():
    scheduler = with_workers("a", "w1", budgets=Budgets(retries=0))
    scheduler.handle(WorkerLost("w1", "error", "the process died"))
    scheduler.handle(PublishFailed(("a",), "the disk is full"))
    assert steps(scheduler, "a")[-2:] == [("publish_failed", 0, "", "the disk is full"), ("publish", 0, "", "")]
    scheduler = with_workers("ab", "w1", "w2", budgets=Budgets(retries=0))
    scheduler.handle(done("w2", "b"))  # its part is being written, so that a is not
    scheduler.handle(WorkerLost("w1", "error", "the process died"))
    scheduler.handle(done("w1", "a"))
    assert steps(scheduler, "a")[-2:] == [
        ("quarantine", 1, "w1", "error: the process died"),
        ("result", 0, "w1", "ok"),
    ]


def test_a_stop_says_why_what_ran_was_ended():
    scheduler = with_workers("a", "w1")
    scheduler.handle(StopRequested("SIGTERM"))
    assert steps(scheduler, "a")[-1] == ("give_up", 0, "", "SIGTERM")


def test_every_step_is_a_transition_of_the_table_that_starts_where_the_one_before_ended():
    scheduler = with_workers("abc", ("w1", ("gpu",)), ("w2", ("gpu",)))
    scheduler.handle(out_of_memory("w1", "a"))
    scheduler.handle(done("w2", "b", "diverged"))
    scheduler.handle(Published(("b",)))
    for spec_id in "abc":
        state = "waiting"
        for step in scheduler.story.of(spec_id):
            assert (step.old, TRANSITIONS[step.old, step.event]) == (state, step.new)
            state = step.new
        assert state == scheduler.state(spec_id)


def test_new_steps_are_taken_once_and_old_ones_are_forgotten():
    story = Story(kept=3)
    for number in range(5):
        story.add(Transition(float(number), "ab"[number % 2], "submit", "running", "running"))
    assert [step.now_s for step in story.take()] == [2.0, 3.0, 4.0]
    assert story.take() == []
    assert [step.now_s for step in story.of("a")] == [2.0, 4.0]
