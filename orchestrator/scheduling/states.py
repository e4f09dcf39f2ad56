"""The state of every spec, its failures so far, and the specs that wait to be written to the ledger.

This module reads no clock and does no I/O.

A spec is waiting, running, done_unpublished, publishing or finished; TRANSITIONS lists all changes of state. A spec that
failed more often than its budget allows is marked as quarantined and reaches the ledger in the same way as a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from orchestrator.scheduling.events import FailureKind, Published, PublishFailed
from orchestrator.scheduling.policies import ChargedFailures, charge
from orchestrator.scheduling.story import LONGEST_CAUSE, TRANSITIONS, State, Story, Transition, Trigger
from orchestrator.scheduling.workers import Attempt


class Specs:
    """States, attempts and failures of all specs. Those in `finished` are already in the ledger.

    Raises ValueError if a spec id appears twice in `order`.
    """

    def __init__(self, order: Sequence[str], finished: Collection[str]):
        known = frozenset(finished)
        self.state: dict[str, State] = {s: "finished" if s in known else "waiting" for s in order}
        if len(self.state) != len(order):
            raise ValueError("a spec id appears twice in the order")
        self.count: Counter[State] = Counter(self.state.values())
        self.attempts: dict[str, int] = {}
        self.spent: dict[str, ChargedFailures] = {}
        self.quarantined: dict[str, str] = {}  # spec -> its last error
        self.unpublished: dict[str, None] = {}
        self.publishing: tuple[str, ...] = ()
        self.story = Story()
        self.now_s = 0.0  # time of the last Tick

    def accepts(self, spec_id: str) -> bool:
        """Return whether a result of this spec would be kept. A result replaces an unpublished quarantine, but no other result."""
        state = self.state[spec_id]
        return state in ("waiting", "running") or (state == "done_unpublished" and spec_id in self.quarantined)

    def move(
        self, spec_id: str, trigger: Trigger, attempt: Attempt | None = None, cause: str = ""
    ) -> tuple[State, State]:
        """Change the state of a spec, add the change to the story, and return (old, new).

        Raises RuntimeError if TRANSITIONS has no such change.
        """
        old = self.state[spec_id]
        new = TRANSITIONS.get((old, trigger))
        if new is None:
            raise RuntimeError(f"spec {spec_id} is in state {old}, which has no transition {trigger}")
        if new != old:
            self.state[spec_id] = new
            self.count[old] -= 1
            self.count[new] += 1
        if new == "done_unpublished":
            self.unpublished[spec_id] = None
        number, worker = (attempt.number, attempt.worker) if attempt else (0, "")
        self.story.add(Transition(self.now_s, spec_id, trigger, old, new, number, worker, cause[:LONGEST_CAUSE]))
        return old, new

    def begin_attempt(self, spec_id: str) -> int:
        """Return the number (1-based) of an attempt that begins now."""
        number = self.attempts[spec_id] = self.attempts.get(spec_id, 0) + 1
        return number

    def charge(self, spec_id: str, kind: FailureKind) -> ChargedFailures:
        """Charge one more failure to a spec and return all its failures so far."""
        spent = self.spent[spec_id] = charge(self.spent.get(spec_id, ChargedFailures()), kind)
        return spent

    def begin_write(self) -> tuple[str, ...]:
        """Begin a write of all completed specs and return them; () if there are none or a write is in progress."""
        if self.publishing or not self.unpublished:
            return ()
        self.publishing = tuple(self.unpublished)
        self.unpublished.clear()
        for spec_id in self.publishing:
            self.move(spec_id, "publish")
        return self.publishing

    def end_write(self, event: Published | PublishFailed) -> None:
        """Record the end of a write. Raises ValueError if it is not the one in progress."""
        trigger: Trigger = "published" if isinstance(event, Published) else "publish_failed"
        cause = "" if isinstance(event, Published) else event.message
        if not self.publishing or event.spec_ids != self.publishing:
            raise ValueError(f"{trigger}: the {len(event.spec_ids)} specs are not those of the write in progress")
        self.publishing = ()
        for spec_id in event.spec_ids:
            self.move(spec_id, trigger, cause=cause)
