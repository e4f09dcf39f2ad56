"""Ledger rows for the storage tests: real specs and edits, generated outcomes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from orchestrator.records import LedgerRow, Outcome, RetrainSpec
from orchestrator.storage.blobs import BlobStore, LocalBlobs
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.ledger_parts import row_key
from tasks.data.edits import Edit


def make_row(seed: int, *, second: int = 0, worker: str = "w0", **outcome) -> LedgerRow:
    """Return the row of the spec with this seed; `outcome` replaces fields of its Outcome."""
    edit = Edit.removal(range(seed, seed + 3))
    spec = RetrainSpec("t" * 32, {"name": "cnn"}, {"name": "finetune"}, edit.identity(), seed, {"device": "cpu"})
    outputs = {"test": np.random.default_rng(seed).normal(size=(5, 2)).astype(np.float32)}
    done = Outcome(spec.spec_id, "ok", outputs, {"loss": seed / 8}, None, 0.5, worker, "cpu")
    time = f"2024-05-06T07:{second // 60:02d}:{second % 60:02d}.000000+00:00"
    return LedgerRow(replace(done, **outcome), spec.json, edit, 1, time, "abc123")


def ledger_at(blobs: BlobStore) -> Ledger:
    """Return a Ledger as a fresh process sees it."""
    return Ledger(pickle.loads(pickle.dumps(blobs)), "task")


def uri_of(blobs: BlobStore) -> str:
    """Return the URI from which `open_blobs` opens the same store."""
    return str(blobs.root) if isinstance(blobs, LocalBlobs) else blobs.uri  # type: ignore[attr-defined]


def part_key(name: str) -> str:
    """Return the key of a part of that ledger."""
    return f"ledger/task/{name}"


def keys_of(rows: Mapping[str, LedgerRow]) -> dict[str, tuple[str, str]]:
    """Return rows in a form that can be compared: every field, outputs bit by bit."""
    return {spec_id: row_key(row) for spec_id, row in rows.items()}


def by_spec(rows) -> dict[str, tuple[str, str]]:
    """Return what reading a ledger of these rows must give."""
    return keys_of({row.spec_id: row for row in rows})
