"""Progress of a run from another terminal: read from the plan, the ledger and the book of what was spent."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.ledgers import Ledgers
from orchestrator.progress import duration
from orchestrator.run_dir import existing
from orchestrator.spend_book import SpendBook, spent_line
from orchestrator.storage.tables import read_plan
from orchestrator.store import Store

RECENT = 50


@dataclass(frozen=True)
class Status:
    """Counts of a run. `failures`: error type -> quarantined retrains; `eta_s` from the pace of the last retrains.

    `spent`: what its sessions were charged (see Spent.summary), None if no machine was.
    """

    run: str
    stage: str
    planned: int
    finished: int
    ok: int
    diverged: int
    quarantined: int
    failures: dict[str, int]
    retries: int
    seconds_per_retrain: float | None
    eta_s: float | None
    complete: bool
    spent: dict[str, Any] | None = None

    def json(self) -> dict:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"{self.run}: {self.stage}",
            f"retrains   {self.finished}/{self.planned} finished, {self.diverged} diverged, {self.quarantined} quarantined",
        ]
        if self.retries:
            lines.append(f"retries    {self.retries}")
        lines += [f"failures   {count} x {cause}" for cause, count in sorted(self.failures.items())]
        if self.eta_s is not None and not self.complete:
            lines.append(f"time left  about {duration(self.eta_s)}")
        return lines + ([f"spent      {spent_line(self.spent)}"] if self.spent else [])


def status(path: str | Path) -> Status:
    """The status of the run directory at `path`. Raises InputError if it is none."""
    run_dir = existing(path)
    provenance = run_dir.provenance()
    config = run_dir.config()
    task_ids = provenance.get("task_ids") or [provenance.get("task_id", "")]
    store = Store(config.settings.output, run_dir.path)
    prices = config.settings.prices
    book = SpendBook(store.blobs, provenance.get("run", run_dir.path.name))
    spent = book.read(prices.table() if prices else None).summary()
    ledger = Ledgers.of(store, dict(zip(task_ids, task_ids, strict=True)))
    if not run_dir.plan.exists():
        n = len(ledger.index().rows) if provenance else 0
        return Status(
            run_dir.path.name, "scoring" if n else "not started", 0, 0, 0, 0, 0, {}, 0, None, None, False, spent
        )
    wanted = {*read_plan(run_dir.plan)["spec_id"], *provenance.get("references", ())}
    found = {spec_id: entry for spec_id, entry in ledger.index().rows.items() if spec_id in wanted}
    counts = Counter(entry.status for entry in found.values())
    failures = Counter(
        (entry.error or "unknown").partition(":")[0] for entry in found.values() if entry.status == "quarantined"
    )
    seconds = [entry.seconds for entry in found.values() if entry.seconds > 0]
    complete = len(found) == len(wanted)
    stage = "complete" if complete and any(run_dir.results.glob("*.csv")) else "retraining"
    return Status(
        run_dir.path.name,
        stage,
        len(wanted),
        len(found),
        counts["ok"],
        counts["diverged"],
        counts["quarantined"],
        dict(failures),
        sum(entry.attempts - 1 for entry in found.values()),
        sum(seconds) / len(seconds) if seconds else None,
        _eta(found.values(), len(wanted) - len(found)),
        complete,
        spent,
    )


def _eta(entries, left: int) -> float | None:
    stamps = sorted(datetime.fromisoformat(entry.committed_at) for entry in entries)[-RECENT:]
    if left == 0 or len(stamps) < 2:
        return 0.0 if left == 0 else None
    return left * (stamps[-1] - stamps[0]).total_seconds() / (len(stamps) - 1)
