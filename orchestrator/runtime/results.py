"""Holds outcomes from their arrival until their ledger part is durable, and counts them. The scheduler holds no outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.records import LedgerRow, Outcome, Status, Work
from orchestrator.runtime.clock import Clock
from orchestrator.scheduling.scheduler import Scheduler


@dataclass
class SessionResults:
    """Makes the ledger rows of finished and quarantined specs; published outcomes are dropped to free memory."""

    scheduler: Scheduler
    works: Mapping[str, Work]
    clock: Clock
    code_version: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failed_s: dict[str, float] = field(default_factory=dict)
    published: Counter[Status] = field(default_factory=Counter)

    def failed(self, spec_id: str, seconds: float) -> None:
        """Record that an attempt failed after `seconds`."""
        self.failed_s[spec_id] = self.failed_s.get(spec_id, 0.0) + seconds

    def rows(self, spec_ids: Sequence[str]) -> list[LedgerRow]:
        """Return one row per spec, with the current time as `committed_at`."""
        committed_at = self.clock.utc().isoformat(timespec="microseconds")
        return [self._row(spec_id, committed_at) for spec_id in spec_ids]

    def _row(self, spec_id: str, committed_at: str) -> LedgerRow:
        work = self.works[spec_id]
        attempts = self.scheduler.attempts(spec_id)
        return LedgerRow(self._outcome(spec_id), work.spec.json, work.edit, attempts, committed_at, self.code_version)

    def _outcome(self, spec_id: str) -> Outcome:
        if spec_id in self.outcomes:
            return self.outcomes[spec_id]
        error = self.scheduler.quarantined[spec_id]
        return Outcome(spec_id, "quarantined", error=error, seconds=self.failed_s.get(spec_id, 0.0))

    def forget(self, spec_ids: Sequence[str]) -> None:
        """Count specs whose rows are durable, and drop their outcomes."""
        for spec_id in spec_ids:
            self.published[self._outcome(spec_id).status] += 1
            self.outcomes.pop(spec_id, None)
            self.failed_s.pop(spec_id, None)
