"""Hands the scheduler's story to whoever keeps it, with the time of day in the place of the driver's own clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from orchestrator.records import Work
from orchestrator.runtime.clock import Clock
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.story_file import SpecStory, Step

log = logging.getLogger(__name__)
EVERY_S = 10.0  # between two writes while nothing is published

WriteStories = Callable[[Collection[SpecStory]], object]


class StoryWriter:
    """Writes the transitions since the last write: with each group commit, and every ten seconds between two.

    A file that cannot be written never fails the campaign: what it would have held is lost, which is logged once.
    """

    def __init__(self, scheduler: Scheduler, works: Mapping[str, Work], write: WriteStories | None, clock: Clock):
        self._scheduler, self._works, self._write, self._clock = scheduler, works, write, clock
        self._next, self._has_failed = clock.now() + EVERY_S, False

    def write_if_due(self) -> None:
        """Write if the last time is long ago."""
        if self._clock.now() >= self._next:
            self.write()

    def write(self) -> None:
        """Write what is new."""
        self._next = self._clock.now() + EVERY_S
        if self._write is None or not (stories := self._stories()):
            return
        try:
            self._write(stories)
        except OSError as error:
            if not self._has_failed:
                log.warning("the story of the retrains could not be written (%s); parts of it will be missing", error)
            self._has_failed = True

    def _stories(self) -> Collection[SpecStory]:
        """The new transitions by spec, in the order in which the specs first occur."""
        now_s, today = self._clock.now(), self._clock.utc()
        times: dict[float, str] = {}
        found: dict[str, SpecStory] = {}
        for at_s, spec_id, event, old, new, attempt, worker, cause in self._scheduler.story.take():
            if at_s not in times:
                times[at_s] = (today - timedelta(seconds=now_s - at_s)).isoformat(timespec="milliseconds")
            story = found.get(spec_id)
            if story is None:
                story = found[spec_id] = SpecStory(spec_id, [])
            if event == "submit":
                work = self._works[spec_id]
                story.seed, story.n_edited = work.spec.seed, work.edit.n_examples
            story.steps.append(Step(times[at_s], event, old, new, attempt, worker, cause))
        return found.values()
