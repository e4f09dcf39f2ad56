"""The states of a spec, the transitions between them, and the story: the transitions that happened, with time, worker and cause.

This module reads no clock and does no I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

State = Literal["waiting", "running", "done_unpublished", "publishing", "finished"]
Trigger = Literal[
    "submit", "result", "retry", "drop", "quarantine", "give_up", "publish", "published", "publish_failed"
]

TRANSITIONS: Mapping[tuple[State, Trigger], State] = {
    ("waiting", "submit"): "running",
    ("waiting", "result"): "done_unpublished",  # a late result of a worker that was reported as lost
    ("running", "submit"): "running",  # a second attempt starts while a straggler is still running
    ("running", "drop"): "running",  # one of two attempts failed, the other continues
    ("running", "result"): "done_unpublished",
    ("running", "retry"): "waiting",
    ("running", "quarantine"): "done_unpublished",
    ("running", "give_up"): "waiting",
    ("done_unpublished", "result"): "done_unpublished",  # quarantined, then a late result
    ("done_unpublished", "publish"): "publishing",
    ("publishing", "published"): "finished",
    ("publishing", "publish_failed"): "done_unpublished",
}
KEPT = 20_000  # transitions kept in memory, about 4 MB: those of the last 5,000 retrains if none fails
LONGEST_CAUSE = 300  # characters


class Transition(NamedTuple):
    """One change of a spec. `now_s` is the time of the last Tick; `attempt` is 1-based within this session, and 0 for no attempt."""

    now_s: float
    spec_id: str
    event: Trigger
    old: State
    new: State
    attempt: int = 0
    worker: str = ""
    cause: str = ""


class Story:
    """The last `kept` transitions of a campaign in their order, as dask's scheduler keeps them; older ones are dropped."""

    def __init__(self, kept: int = KEPT):
        self._all: deque[Transition] = deque(maxlen=kept)
        self._new: deque[Transition] = deque(maxlen=kept)

    def add(self, transition: Transition) -> None:
        """Append a transition."""
        self._all.append(transition)
        self._new.append(transition)

    def of(self, spec_id: str) -> list[Transition]:
        """Return the transitions of one spec, oldest first; O(kept)."""
        return [transition for transition in self._all if transition.spec_id == spec_id]

    def take(self) -> list[Transition]:
        """Return the transitions that no earlier call has returned, oldest first."""
        taken = list(self._new)
        self._new.clear()
        return taken
