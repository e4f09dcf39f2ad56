"""The ledgers of a campaign as one: arms that record the same splits share a ledger, others have their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.records import LedgerRow, Work
from orchestrator.storage.ledger import BadPart, Ledger, LedgerIndex, LedgerView
from orchestrator.store import Store


@dataclass(frozen=True)
class Ledgers:
    """`homes`: arm -> task id; `parts`: task id -> ledger. Spec ids are unique across them: a spec names what it trains on."""

    homes: Mapping[str, str]
    parts: Mapping[str, Ledger]

    @staticmethod
    def of(store: Store, homes: Mapping[str, str]) -> Ledgers:
        """The ledgers of these arms in a store."""
        return Ledgers(dict(homes), {task_id: store.ledger(task_id) for task_id in sorted(set(homes.values()))})

    def publisher(self, works: Iterable[Work]) -> Callable[[Sequence[LedgerRow]], str]:
        """What makes rows of these works durable, each in the ledger of its arm; it returns the names of the parts."""
        home = {work.spec_id: self.homes[work.arm] for work in works}

        def publish(rows: Sequence[LedgerRow]) -> str:
            by_ledger: dict[str, list[LedgerRow]] = {}
            for row in rows:
                by_ledger.setdefault(home[row.spec_id], []).append(row)
            return " ".join(self.parts[task_id].publish(mine) for task_id, mine in by_ledger.items())

        return publish

    def read(self, spec_ids: Collection[str] | None = None) -> LedgerView:
        """The rows with outputs, all or those of `spec_ids`."""
        views = [ledger.read(spec_ids) for ledger in self.parts.values()]
        rows = {spec_id: row for view in views for spec_id, row in view.rows.items()}
        conflicts = tuple(spec_id for view in views for spec_id in view.conflicts)
        return LedgerView(rows, conflicts, tuple(bad for view in views for bad in view.bad_parts))

    def index(self) -> LedgerIndex:
        """All rows without outputs."""
        found = [ledger.index() for ledger in self.parts.values()]
        rows = {spec_id: entry for index in found for spec_id, entry in index.rows.items()}
        return LedgerIndex(rows, tuple(bad for index in found for bad in index.bad_parts))

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
