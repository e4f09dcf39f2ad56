"""The ledgers of a campaign as one: arms that record the same splits share a ledger, others have their own."""

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


class Patiently(Protocol):
    """Makes a function that may be called again into one that does, while the store is away."""

    def __call__(self, function: Callable[Arguments, Result], /) -> Callable[Arguments, Result]: ...


def _at_once(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    return function


@dataclass(frozen=True)
class Ledgers:
    """`homes`: arm -> task id; `parts`: task id -> ledger; `expected`: spec id -> task id of the works known so far.

    A spec says what is trained, not what is recorded: of an expected spec only the row in its own arm's ledger counts, since another
    campaign may have recorded the same training in a ledger that is here another arm's.

    `patiently` makes of a reading function one that waits while the store is away, for who has machines waiting for it.
    """

    homes: Mapping[str, str]
    parts: Mapping[str, Ledger]
    expected: dict[str, str] = field(default_factory=dict)
    patiently: Patiently = _at_once

    @staticmethod
    def of(store: Store, homes: Mapping[str, str], patiently: Patiently = _at_once) -> Ledgers:
        """The ledgers of these arms in a store."""
        parts = {task_id: store.ledger(task_id) for task_id in sorted(set(homes.values()))}
        return Ledgers(dict(homes), parts, patiently=patiently)

    def expect(self, works: Iterable[Work]) -> dict[str, str]:
        """Say in which ledger the rows of these works are to be found; spec id -> task id."""
        home = {work.spec_id: self.homes[work.arm] for work in works}
        self.expected.update(home)
        return home

    def _at_home(self, found: Mapping[str, Mapping[str, Row]]) -> Mapping[str, Row]:
        """Of the rows by ledger those that count; of a single ledger, as it gave them: there may be a million."""
        if len(found) == 1:
            return next(iter(found.values()))
        by_ledger = ((task_id, rows.items()) for task_id, rows in found.items())
        return {s: row for task_id, rows in by_ledger for s, row in rows if self.expected.get(s, task_id) == task_id}

    def publisher(self, works: Iterable[Work]) -> Callable[[Sequence[LedgerRow]], str]:
        """What makes rows of these works durable, each in the ledger of its arm; it returns the names of the parts."""
        home = self.expect(works)

        def publish(rows: Sequence[LedgerRow]) -> str:
            by_ledger: dict[str, list[LedgerRow]] = {}
            for row in rows:
                by_ledger.setdefault(home[row.spec_id], []).append(row)
            return " ".join(self.parts[task_id].publish(mine) for task_id, mine in by_ledger.items())

        return publish

    def read(self, spec_ids: Collection[str] | None = None) -> LedgerView:
        """The rows with outputs, all or those of `spec_ids`."""
        views = {task_id: self.patiently(ledger.read)(spec_ids) for task_id, ledger in self.parts.items()}
        rows = self._at_home({task_id: view.rows for task_id, view in views.items()})
        conflicts = tuple(spec_id for view in views.values() for spec_id in view.conflicts)
        return LedgerView(rows, conflicts, tuple(bad for view in views.values() for bad in view.bad_parts))

    def index(self) -> LedgerIndex:
        """All rows without outputs."""
        found = {task_id: self.patiently(ledger.index)() for task_id, ledger in self.parts.items()}
        rows = self._at_home({task_id: index.rows for task_id, index in found.items()})
        return LedgerIndex(rows, tuple(bad for index in found.values() for bad in index.bad_parts))

    def verify(self) -> list[BadPart]:
        """Every damaged part."""
        return [bad for ledger in self.parts.values() for bad in ledger.verify()]

    def tidy(self, records: Mapping[str, Mapping]) -> list[BadPart]:
        """Set damaged parts aside, compact, and describe what each ledger records (task id -> record); the damaged ones."""
        found = []
        for task_id, ledger in self.parts.items():
            bad = ledger.index().bad_parts
            for part in bad:
                ledger.set_aside(part.name)
            found += bad
            ledger.compact()
            ledger.describe(records[task_id])
        return found
