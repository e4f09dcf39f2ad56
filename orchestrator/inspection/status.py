"""The progress of a run, read from its plan, its ledger and its records of spending; usable while the run executes elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config.schema import LoadedConfig
from orchestrator.experiment.edited_plugins import edited_plugins
from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.spending.book import SpendBook, spent_line
from orchestrator.storage.ledger_parts import IndexEntry
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.parquet import DamagedError
from orchestrator.storage.store import Store
from orchestrator.storage.tables import read_plan
from orchestrator.terminal.progress import duration
from tasks.errors import InputError

RECENT = 50  # last finished retrains that the estimate of the time left uses


@dataclass(frozen=True)
class Status:
    """Counts of a run.

    `failures`: error type -> number of quarantined retrains. `eta_s`: seconds left at the pace of the last RECENT retrains. `spent`: what
    its sessions were charged (see Spent.summary), None if nothing was charged. `store`: URI of the store whose ledger was read.
    `notes`: one sentence for everything that has changed since the run was made.
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
    store: str = ""
    notes: tuple[str, ...] = ()

    def json(self) -> dict:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """Return the lines that `refit status` prints."""
        lines = [
            f"{self.run}: {self.stage}",
            f"retrains   {self.finished}/{self.planned} finished, {self.diverged} diverged, {self.quarantined} quarantined",
        ]
        if self.retries:
            lines.append(f"retries    {self.retries}")
        lines += [f"failures   {count} x {cause}" for cause, count in sorted(self.failures.items())]
        if self.eta_s is not None and not self.complete:
            lines.append(f"time left  about {duration(self.eta_s)}")
        lines += [f"store      {self.store}"] if self.store else []
        lines += [f"spent      {spent_line(self.spent)}"] if self.spent else []
        return lines + [f"note       {note}" for note in self.notes]


def status(path: str | Path) -> Status:
    """Return the status of the run directory at `path`. Raises InputError if it is not a run directory."""
    return StatusReader(path).now()


class StatusReader:
    """Reads the status of a run repeatedly; each time it reads only the new parts of the ledger."""

    def __init__(self, path: str | Path):
        self._path = path
        self._config: LoadedConfig | None = None
        self._ledgers: dict[tuple[str, ...], Ledgers] = {}

    def now(self) -> Status:
        """Return the present status. Raises InputError if there is no run directory, StoreAwayError while the store is unavailable."""
        run_dir = existing(self._path)
        config = self._config or run_dir.config()
        provenance = known_provenance(run_dir)
        self._config = config  # kept for later calls, since plugins may be edited meanwhile
        task_ids = ledgers_of(provenance)
        store, prices = Store(config.settings.output, run_dir.path), config.settings.prices
        book = SpendBook(store.blobs, provenance.get("run", run_dir.path.name))
        spent = book.read(prices.table() if prices else None).summary()
        if task_ids not in self._ledgers:
            self._ledgers[task_ids] = Ledgers.of(store, dict(zip(task_ids, task_ids, strict=True)))
        rows = self._ledgers[task_ids].index().rows
        if not run_dir.plan.exists():
            stage = "scoring" if rows and provenance else "not started"
            status = Status(run_dir.path.name, stage, 0, 0, 0, 0, 0, {}, 0, None, None, False, spent)
            return replace(status, store=store.uri, notes=_notes(run_dir, store))
        wanted = {*planned_cells(run_dir)["spec_id"], *provenance.get("references", ())}
        found = [entry for spec_id, entry in rows.items() if spec_id in wanted]
        return replace(_counted(run_dir, found, len(wanted), spent), store=store.uri, notes=_notes(run_dir, store))


def _notes(run_dir: RunDir, store: Store) -> tuple[str, ...]:
    note = run_dir.store_note(store.uri)
    return (*([note] if note else []), *edited_plugins(run_dir.provenance()))


def known_provenance(run_dir: RunDir) -> dict[str, Any]:
    """Return the content of provenance.json. Raises InputError if it is missing or damaged."""
    if not (provenance := run_dir.provenance()):
        problem = "is missing, so the ledger of this run is unknown; refit run writes the file again"
        raise InputError(run_dir.provenance_path, problem)
    return provenance


def ledgers_of(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the task ids of the ledgers that a run writes to."""
    return tuple(provenance.get("task_ids") or [provenance.get("task_id", "")])


def planned_cells(run_dir: RunDir) -> dict[str, np.ndarray]:
    """Return the columns of plan.parquet.

    Raises InputError if the file is damaged or belongs to another run, FileNotFoundError if there is none.
    """
    provenance = run_dir.provenance()
    try:
        return read_plan(run_dir.plan, {"run": provenance["run"]} if "run" in provenance else {})
    except DamagedError as error:
        problem = f"{str(error).removeprefix(f'{run_dir.plan}: ')}; refit run writes it again"
        raise InputError(run_dir.plan, problem) from error


def _is_analysed(run_dir: RunDir) -> bool:
    """Return whether results/ has a table of the analysis; those of diagnostics are there before the retrains."""
    return any(not path.name.startswith("diagnose_") for path in run_dir.results.glob("*.csv"))


def _counted(run_dir: RunDir, found: Sequence[IndexEntry], n_wanted: int, spent: dict[str, Any] | None) -> Status:
    counts = Counter(entry.status for entry in found)
    causes = Counter((entry.error or "unknown").partition(":")[0] for entry in found if entry.status == "quarantined")
    seconds = [entry.seconds for entry in found if entry.seconds > 0]
    complete = len(found) == n_wanted
    return Status(
        run=run_dir.path.name,
        stage="complete" if complete and _is_analysed(run_dir) else "retraining",
        planned=n_wanted,
        finished=len(found),
        ok=counts["ok"],
        diverged=counts["diverged"],
        quarantined=counts["quarantined"],
        failures=dict(causes),
        retries=sum(entry.attempts - 1 for entry in found),
        seconds_per_retrain=sum(seconds) / len(seconds) if seconds else None,
        eta_s=_eta(found, n_wanted - len(found)),
        complete=complete,
        spent=spent,
    )


def _eta(entries: Sequence[IndexEntry], left: int) -> float | None:
    stamps = sorted(datetime.fromisoformat(entry.committed_at) for entry in entries)[-RECENT:]
    if left == 0 or len(stamps) < 2:
        return 0.0 if left == 0 else None
    return left * (stamps[-1] - stamps[0]).total_seconds() / (len(stamps) - 1)
