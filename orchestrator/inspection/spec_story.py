"""The status of one retrain for `refit status --spec`: its role, its state, its ledger row and its story."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.experiment.run_dir import RunDir, existing
from orchestrator.inspection.status import known_provenance, ledgers_of, planned_cells
from orchestrator.records import LedgerRow
from orchestrator.storage.ledgers import Ledgers
from orchestrator.storage.store import Store
from orchestrator.storage.story_file import SpecStory, Step, read_stories
from orchestrator.terminal.progress import duration
from tasks.errors import InputError

SHOWN_CELLS = 10  # cells of the plan that are listed
SHOWN_IDS = 3
STATES = {
    "waiting": "it waits for a worker",
    "running": "it runs on a worker",
    "done_unpublished": "it is completed and waits to be written to the ledger",
    "publishing": "it is completed and is being written to the ledger",
    "finished": "it is finished: its row is in the ledger",
}
EVENTS = {
    "submit": "attempt {attempt} was given to worker {worker}",
    "result": "worker {worker} returned a result{of_attempt}",
    "retry": "attempt {attempt} failed on worker {worker} and will be repeated",
    "drop": "attempt {attempt} failed on worker {worker}, while another attempt was still running",
    "quarantine": "attempt {attempt} failed on worker {worker}; the retrain was quarantined, since its budget of retries is used up",
    "give_up": "the attempt that was running was ended",
    "publish": "the driver began to write its row to the ledger",
    "published": "its row was written to the ledger",
    "publish_failed": "its row could not be written to the ledger; the next write includes it",
}
KILLED = "the driver ended here without recording a reason: it was killed, or its machine was lost; a later session started this retrain again"
REPEATED = "a later session repeated this retrain"
MISSING = "some steps were not recorded here"


@dataclass(frozen=True)
class SpecStatus:
    """One retrain of a run.

    `role`: cell, reference, or other (a scoring model, or a retrain of another run that records to the same ledger). `cells`: the rows of
    plan.parquet that it serves. `seed` and `n_edited` (the number of training examples removed or re-weighted) are None while neither
    ledger nor story has them. `row`: its ledger row without outputs. `steps`: its story.
    """

    spec_id: str
    role: str
    state: str
    cells: tuple[dict[str, Any], ...]
    seed: int | None
    n_edited: int | None
    row: dict[str, Any] | None
    steps: tuple[Step, ...]

    def json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "cells": list(self.cells), "steps": [step._asdict() for step in self.steps]}

    def lines(self) -> list[str]:
        """Return the lines that `refit status --spec` prints."""
        return [
            f"Retrain {self.spec_id}",
            *self._which(),
            f"State: {STATES[self.state]}{self._as_of()}.",
            *self._ledger(),
            *self._story(),
        ]

    def _which(self) -> Iterable[str]:
        n_edited = "not known before it is submitted" if self.n_edited is None else f"{self.n_edited} training examples"
        seed = "not known before it is submitted" if self.seed is None else self.seed
        yield f"Edit: {n_edited}. Seed: {seed}."
        if self.role == "reference":
            yield "It is a reference: the retrain with nothing removed that others are compared with."
        if self.role == "other":
            yield "It is not in the plan: it is a scoring model, or belongs to another run that records to the same ledger."
        if self.cells:
            yield f"It serves {len(self.cells)} {'cell' if len(self.cells) == 1 else 'cells'} of the plan:"
        for cell in self.cells[:SHOWN_CELLS]:
            yield "  " + ", ".join(f"{name} {value}" for name, value in cell.items())
        if len(self.cells) > SHOWN_CELLS:
            yield f"  and {len(self.cells) - SHOWN_CELLS} more (--json lists all)"

    def _as_of(self) -> str:
        """Return the time at which the state was true, unless the ledger confirms it: the driver that wrote the last step may have ended since."""
        return f", as of {_clock(self.steps[-1].time)}" if self.steps and self.state != "finished" else ""

    def _ledger(self) -> Iterable[str]:
        if self.row is None:
            yield "It has no row in the ledger yet."
            return
        row = self.row
        attempts = "1 attempt" if row["attempts"] == 1 else f"{row['attempts']} attempts"
        on = f" on worker {row['worker']}" if row["worker"] else ""
        took = f"{row['seconds']:.2f} s" if row["seconds"] < 60 else duration(row["seconds"])
        yield f"Ledger: {row['status']} after {attempts}, {took}{on}, written {_clock(row['committed_at'])}."
        if row["error"]:
            yield f"Error: {_one_line(row['error'])}"

    def _story(self) -> Iterable[str]:
        if not self.steps:
            yield "story.jsonl has no steps of it yet, or another run or an older version of Refit trained it."
            return
        yield "Story:"
        state = "waiting"
        for step in self.steps:
            if step.old != state:
                yield f"  ({_gap(state, step.old)})"
            of_attempt = f" of attempt {step.attempt}" if step.attempt else " after it had been reported as lost"
            text = EVENTS.get(step.event, step.event).format(
                attempt=step.attempt, worker=step.worker, of_attempt=of_attempt
            )
            cause = f" ({_one_line(step.cause)})" if step.cause not in ("", "ok") else ""
            yield f"  {_clock(step.time)}  {text}{cause}"
            state = step.new


def spec_status(path: str | Path, prefix: str) -> SpecStatus:
    """Return the status of the retrain whose spec id begins with `prefix`.

    Raises InputError if no retrain or several retrains match, or if there is no run at `path`.
    """
    run_dir = existing(path)
    config, provenance = run_dir.config(), known_provenance(run_dir)
    task_ids = ledgers_of(provenance)
    ledgers = Ledgers.of(Store(config.settings.output, run_dir.path), dict(zip(task_ids, task_ids, strict=True)))
    plan = planned_cells(run_dir) if run_dir.plan.exists() else {}
    planned, references = plan.get("spec_id", np.array([], object)), provenance.get("references", [])
    stories = read_stories(run_dir.story, prefix)
    spec_id = _only(prefix, [planned, references, stories, ledgers.index().rows], run_dir)
    row = ledgers.read({spec_id}).rows.get(spec_id)
    story = stories.get(spec_id) or SpecStory(spec_id, [])
    cells = tuple(_cell(plan, int(i)) for i in np.flatnonzero(planned == spec_id))
    return SpecStatus(
        spec_id,
        "cell" if cells else "reference" if spec_id in references else "other",
        _state(row, story.steps),
        cells,
        json.loads(row.spec)["seed"] if row else story.seed,
        row.edit.n_examples if row else story.n_edited,
        _row(row) if row else None,
        tuple(story.steps),
    )


def _only(prefix: str, known: Sequence[Collection[str]], run_dir: RunDir) -> str:
    """Return the only spec id that begins with `prefix`. Raises InputError if there is none or more than one."""
    found = {spec_id for ids in known for spec_id in ids if spec_id.startswith(prefix)} if prefix else set()
    if not found:
        raise InputError("--spec", f"no retrain of {run_dir.path} has an id that begins with {prefix!r}")
    if len(found) > 1:
        shown = ", ".join(sorted(found)[:SHOWN_IDS])
        problem = f"{len(found)} retrains have ids that begin with {prefix!r} ({shown}{' ...' if len(found) > SHOWN_IDS else ''})"
        raise InputError("--spec", f"{problem}; give more digits")
    return found.pop()


def _state(row: LedgerRow | None, steps: Sequence[Step]) -> str:
    """Return the state: finished if there is a ledger row, unless the story has a later step; else that of the last step."""
    last = steps[-1] if steps else None
    if row and not (last and datetime.fromisoformat(last.time) > datetime.fromisoformat(row.committed_at)):
        return "finished"
    return last.new if last else "waiting"


def _cell(plan: Mapping[str, np.ndarray], position: int) -> dict[str, Any]:
    """Return one row of plan.parquet as plain values."""
    values = {name: column[position] for name, column in plan.items() if name != "spec_id"}
    return {name: value if isinstance(value, str) else int(value) for name, value in values.items()}


def _row(row: LedgerRow) -> dict[str, Any]:
    outcome = row.outcome
    return {
        "status": outcome.status,
        "attempts": row.attempts,
        "seconds": outcome.seconds,
        "worker": outcome.worker,
        "device": outcome.device,
        "committed_at": row.committed_at,
        "error": outcome.error,
        "code_version": row.code_version,
    }


def _gap(before: str, after: str) -> str:
    """Return the reason why the next step of a story does not start from the state that the previous step led to."""
    if after != "waiting":
        return MISSING
    return REPEATED if before == "finished" else KILLED


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _clock(time: str) -> str:
    """Format a time as 2026-12-01 08:00:00 UTC."""
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S} UTC"
