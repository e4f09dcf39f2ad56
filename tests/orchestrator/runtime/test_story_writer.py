"""The driver writes the story of every spec: with each group commit, while nothing is published, and when the session ends."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from fake_backend import Chaos, FakeBackend, VirtualClock
from tiny_task import tiny_works

from orchestrator.runtime.driver import DriveOptions, StopSignal, drive
from orchestrator.runtime.story import EVERY_S, StoryWriter
from orchestrator.scheduling.events import Tick, WorkerJoined
from orchestrator.scheduling.policies import Budgets
from orchestrator.scheduling.scheduler import Scheduler


def driven(n_specs, write, **options):
    works, clock = tiny_works(n_specs), VirtualClock()
    scheduler = Scheduler(list(works), Budgets(retries=50, preemptions=50))
    result = drive(
        scheduler, FakeBackend(clock, **options), lambda rows: None, works, None, StopSignal(), clock,
        code_version="v1", options=DriveOptions(), write_stories=write,
    )  # fmt: skip
    return works, result


def test_every_spec_has_a_story_without_gaps_that_ends_in_the_ledger():
    written = []
    works, result = driven(20, written.extend, n_workers=3, chaos=Chaos(seed=1, fail=0.3, lose=0.2, late=0.3))
    assert result.complete
    assert result.n_attempts > 20
    steps = {spec_id: [s for story in written if story.spec_id == spec_id for s in story.steps] for spec_id in works}
    for own in steps.values():
        assert (own[0].old, own[-1].new) == ("waiting", "finished")
        assert all(before.new == after.old for before, after in pairwise(own))
    assert sum(step.event == "submit" for own in steps.values() for step in own) == result.n_attempts
    seeds = {story.spec_id: story.seed for story in written if story.seed is not None}
    assert seeds == {spec_id: work.spec.seed for spec_id, work in works.items()}


def test_a_disk_that_is_full_fails_no_campaign():
    def write(stories):
        raise OSError("no space left on the device")

    _, result = driven(5, write)
    assert result.complete


def test_steps_are_dated_by_the_day_and_written_before_anything_is_published():
    works, clock, written = tiny_works(1), VirtualClock(), []
    scheduler = Scheduler(list(works))
    writer = StoryWriter(scheduler, works, written.extend, clock)
    began = clock.utc()
    scheduler.handle(Tick(clock.now()))
    scheduler.handle(WorkerJoined("w1"))
    writer.write_if_due()
    assert written == []
    clock.sleep(EVERY_S)
    writer.write_if_due()
    [story] = written
    assert [step.event for step in story.steps] == ["submit"]
    assert abs((datetime.fromisoformat(story.steps[0].time) - began).total_seconds()) < 0.01
    writer.write()
    assert len(written) == 1
