"""Reads and writes all ledgers of a campaign as one; arms that record the same splits share a ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar

from orchestrator.records import LedgerRow, Work
from orchestrator.storage.ledger import BadPart, Ledger, LedgerIndex, LedgerView
from orchestrator.storage.store import Store

Row = TypeVar("Row")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Retrying(Protocol):
    """Wraps a function that is safe to repeat, so that it is retried while the store is unavailable."""

    def __call__(self, function: Callable[Arguments, Result], /) -> Callable[Arguments, Result]: ...


def _unchanged(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    return function


@dataclass(frozen=True)
class Ledgers:
    """The ledgers of a campaign.

    `homes`: arm -> task id; `parts`: task id -> ledger; `expected`: spec id -> task id of the works known so far.
    `retrying` wraps the reading functions; the driver passes one that waits while the store is unavailable.

    A spec describes what is trained, not what is recorded. Another campaign may have recorded the same training in a
    ledger that belongs to another arm here, so only the row in the ledger of the spec's own arm counts.
    """

    homes: Mapping[str, str]
    parts: Mapping[str, Ledger]
    expected: dict[str, str] = field(default_factory=dict)
    retrying: Retrying = _unchanged

    @staticmethod
    def of(store: Store, homes: Mapping[str, str], retrying: Retrying = _unchanged) -> Ledgers:
        """Open the ledgers of these arms in a store."""
        parts = {task_id: store.ledger(task_id) for task_id in sorted(set(homes.values()))}
        return Ledgers(dict(homes), parts, retrying=retrying)

    def expect(self, works: Iterable[Work]) -> dict[str, str]:
        """Record in which ledger the rows of these works belong; return spec id -> task id."""
        home = {work.spec_id: self.homes[work.arm] for work in works}
        self.expected.update(home)
        return home

    def _in_own_ledgers(self, found: Mapping[str, Mapping[str, Row]]) -> Mapping[str, Row]:
        """Select the rows that lie in the ledger of their own arm. With one ledger the mapping is returned without a copy,
        since it may hold a million rows.
        """
        if len(found) == 1:
            return next(iter(found.values()))
        by_ledger = ((task_id, rows.items()) for task_id, rows in found.items())
        return {s: row for task_id, rows in by_ledger for s, row in rows if self.expected.get(s, task_id) == task_id}

    def publisher(self, works: Iterable[Work]) -> Callable[[Sequence[LedgerRow]], str]:
        """Return a function that writes rows of these works, each to the ledger of its arm, and returns the part names."""
        home = self.expect(works)

        def publish(rows: Sequence[LedgerRow]) -> str:
            by_ledger: dict[str, list[LedgerRow]] = {}
            for row in rows:
                by_ledger.setdefault(home[row.spec_id], []).append(row)
            return " ".join(self.parts[task_id].publish(mine) for task_id, mine in by_ledger.items())

        return publish

    def read(self, spec_ids: Collection[str] | None = None) -> LedgerView:
        """Read the rows with outputs, all or those of `spec_ids`."""
        views = {task_id: self.retrying(ledger.read)(spec_ids) for task_id, ledger in self.parts.items()}
        rows = self._in_own_ledgers({task_id: view.rows for task_id, view in views.items()})
        conflicts = tuple(spec_id for view in views.values() for spec_id in view.conflicts)
        return LedgerView(rows, conflicts, tuple(bad for view in views.values() for bad in view.bad_parts))

    def index(self) -> LedgerIndex:
        """Return all rows without outputs."""
        found = {task_id: self.retrying(ledger.index)() for task_id, ledger in self.parts.items()}
        rows = self._in_own_ledgers({task_id: index.rows for task_id, index in found.items()})
        return LedgerIndex(rows, tuple(bad for index in found.values() for bad in index.bad_parts))

    def verify(self) -> list[BadPart]:
        """Find every damaged part."""
        return [bad for ledger in self.parts.values() for bad in ledger.verify()]

    def tidy(self, records: Mapping[str, Mapping]) -> list[BadPart]:
        """Set damaged parts aside, merge small parts and write the task records; return the damaged parts.

        `records`: task id -> task record.
        """
        found = []
        for task_id, ledger in self.parts.items():
            bad = ledger.index().bad_parts
            for part in bad:
                ledger.set_aside(part.name)
            found += bad
            ledger.compact()
            ledger.describe(records[task_id])
        return found
