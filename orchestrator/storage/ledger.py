"""The ledger: content-addressed, append-only parts that hold the rows of finished retrains."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from orchestrator.records import LedgerRow, digest_json
from orchestrator.storage.at_once import each
from orchestrator.storage.blobs import BlobStore, StoreAwayError
from orchestrator.storage.ledger_parts import (
    IndexEntry,
    check_ledger,
    check_rows,
    decode_index,
    decode_rows,
    distinct_rows,
    encode_rows,
    index_of,
    outcome_bits,
    part_name,
)
from orchestrator.storage.parquet import DamagedError
from orchestrator.storage.refusals import is_permanent
from tasks.digests import canonical_json, digest

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row", LedgerRow, IndexEntry)


@dataclass(frozen=True)
class BadPart:
    """The name of a damaged part, and what is wrong with it."""

    name: str
    problem: str


@dataclass(frozen=True)
class LedgerView:
    """One row per spec id. `conflicts`: ids of specs whose finished rows differ in status or in any bit of an output."""

    rows: Mapping[str, LedgerRow]
    conflicts: tuple[str, ...]
    bad_parts: tuple[BadPart, ...]


@dataclass(frozen=True)
class LedgerIndex:
    """One row without outputs per spec id. `rows` is read-only, because the next call may return the same mapping."""

    rows: Mapping[str, IndexEntry]
    bad_parts: tuple[BadPart, ...]


class _Indexed(NamedTuple):
    """The index entries of a part, and its size in bytes."""

    entries: list[IndexEntry]
    size: int


class Ledger:
    """The finished retrains of one task id, under `ledger/<task_id>/` of a store.

    Any number of readers and writers may work at the same time: parts never change, and a part is deleted only once
    another one holds its rows.
    """

    def __init__(self, blobs: BlobStore, task_id: str):
        self._blobs, self._task_id = blobs, task_id
        self._folder, self._record = f"ledger/{task_id}/", record_key(task_id)
        self._indexed: dict[str, _Indexed] = {}  # parts written or verified by this object
        self._last: tuple[frozenset[str], Mapping[str, IndexEntry]] = frozenset(), {}  # part names, and their index

    def publish(self, rows: Sequence[LedgerRow]) -> str:
        """Write the rows as one part and return its name; the rows are then durable.

        Raises OSError, and then no partial part is visible.
        """
        if not rows:
            raise ValueError("a part needs at least one row")
        data = encode_rows(rows, task_id=self._task_id, quick=True)
        name = self._write(data)
        self._indexed[name] = _Indexed(index_of(rows), len(data))
        return name

    def parts(self) -> list[str]:
        """Return the names of the parts, sorted."""
        return [key.removeprefix(self._folder) for key in self._blobs.list(self._folder + "part-")]

    def read(self, spec_ids: Collection[str] | None = None) -> LedgerView:
        """Read and verify the rows with outputs, all or those of `spec_ids`.

        A part is not read if this Ledger has indexed it and it holds none of `spec_ids`. If a spec has several rows, the
        first by (committed_at, part name) is returned, and finished rows come before quarantined ones.
        """
        wanted = None if spec_ids is None else frozenset(spec_ids)
        parts, bad = self._scan(lambda name: self._rows(name, wanted))
        rows, several = _by_spec(parts, lambda row: (row.outcome.status == "quarantined", row.committed_at))
        return LedgerView(rows, tuple(spec_id for spec_id, same in several.items() if _differ(same)), bad)

    def index(self) -> LedgerIndex:
        """Return the rows without outputs. Parts that this Ledger has written or verified are not read again."""
        parts, bad = self._scan(lambda name: self._index_of(name).entries)
        if self._last[0] != parts.keys():
            rows, _ = _by_spec(parts, lambda row: (row.status == "quarantined", row.committed_at))
            self._last = frozenset(parts), MappingProxyType(rows)
        return LedgerIndex(self._last[1], bad)

    def verify(self) -> list[BadPart]:
        """Find every part that is damaged, or that has a row whose id or edit does not match its spec."""
        names = self.parts()
        problems = each(self._problem, names, self._blobs.at_once)
        return [BadPart(name, problem) for name, problem in zip(names, problems, strict=True) if problem]

    def set_aside(self, name: str) -> None:
        """Move a part to `corrupt/`, so that its retrains are done again."""
        log.warning("ledger: part %s is moved to corrupt/", name)  # logged first, in case the process dies in between
        self._blobs.put(f"{self._folder}corrupt/{name}", self._blobs.get(self._folder + name))
        self._blobs.delete(self._folder + name)
        self._indexed.pop(name, None)

    def compact(self, min_parts: int = 16, max_rows: int = 4096, max_bytes: int = 64 << 20) -> list[str]:
        """Merge small parts if there are at least `min_parts` of them; return the names of the merged parts.

        A merged part has at most `max_rows` rows and about `max_bytes` bytes. Its sources are deleted once it has been
        read back, so that a crash at any point leaves every row readable.
        """
        parts = self._scan(self._index_of)[0]
        small = {
            name: part for name, part in sorted(parts.items()) if len(part.entries) < max_rows and part.size < max_bytes
        }
        if len(small) < max(min_parts, 2):
            return []
        groups = _groups(small, max_rows, max_bytes)
        return [merged for group in groups if len(group) > 1 and (merged := self._merge(group))]

    def describe(self, record: Mapping[str, Any]) -> None:
        """Write the task record, once; a damaged record, or one of another task, is replaced."""
        found = self.description()
        if found is None or (digest(record) == self._task_id and not self.is_described(found)):
            self._blobs.put(self._record, (canonical_json(record) + "\n").encode())

    def is_described(self, found: Mapping[str, Any]) -> bool:
        """Return whether `found` is the record of this ledger, that is, whether its digest is the task id."""
        try:
            return digest(found) == self._task_id
        except TypeError:  # a value that Refit never writes
            return False

    def description(self) -> dict[str, Any] | None:
        """Return the task record that `describe` wrote, or None."""
        try:
            record = json.loads(self._blobs.get(self._record))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def _write(self, data: bytes) -> str:
        name = part_name(data)
        self._blobs.put(self._folder + name, data)
        return name

    def _verified(self, name: str) -> bytes:
        data = self._blobs.get(self._folder + name)
        if part_name(data) != name:
            raise DamagedError(f"its {len(data)} bytes do not have the SHA-256 in its name")
        check_ledger(data, self._task_id)
        return data

    def _index_of(self, name: str) -> _Indexed:
        if name not in self._indexed:
            data = self._verified(name)
            self._indexed[name] = _Indexed(decode_index(data), len(data))
        return self._indexed[name]

    def _rows(self, name: str, wanted: frozenset[str] | None) -> list[LedgerRow]:
        known = self._indexed.get(name)
        if wanted is not None and known is not None and wanted.isdisjoint(entry.spec_id for entry in known.entries):
            return []
        data = self._verified(name)
        if known is None:
            self._indexed[name] = _Indexed(decode_index(data), len(data))
        return decode_rows(data, wanted)

    def _scan(self, decode: Callable[[str], T]) -> tuple[dict[str, T], tuple[BadPart, ...]]:
        """Decode every part.

        A part that vanishes meanwhile was merged into a new part by another driver, so the parts are listed again.
        """
        found: dict[str, T] = {}
        bad: list[BadPart] = []
        seen: set[str] = set()
        while pending := [name for name in self.parts() if name not in seen]:
            vanished = False
            results = each(partial(self._attempt, decode), pending, self._blobs.at_once)
            for name, result in zip(pending, results, strict=True):
                if isinstance(result, FileNotFoundError):
                    vanished = True
                elif isinstance(result, DamagedError):
                    bad.append(BadPart(name, str(result)))
                    self._indexed.pop(name, None)  # it may have been indexed before it was damaged
                else:
                    found[name] = result
            seen.update(pending)
            if not vanished:
                break
        return found, tuple(sorted(bad, key=lambda part: part.name))

    def _attempt(self, decode: Callable[[str], T], name: str) -> T | FileNotFoundError | DamagedError:
        """Decode one part; return the exception if it is missing or damaged.

        Other OSErrors (a stale handle, no file descriptors left, a bad sector) say nothing about the bytes of the part and
        are raised, as StoreAwayError unless they are permanent.
        """
        try:
            return decode(name)
        except (FileNotFoundError, DamagedError) as error:
            return error
        except StoreAwayError:
            raise
        except OSError as error:
            if is_permanent(error):
                raise
            url = self._blobs.url(self._folder + name)
            raise StoreAwayError(error.errno or errno.EIO, f"cannot be read: {error.strerror or error}", url) from error

    def _problem(self, name: str) -> str | None:
        try:
            rows = decode_rows(self._verified(name))
        except FileNotFoundError:
            return None  # another driver merged it after the listing
        except DamagedError as error:
            return str(error)
        except StoreAwayError:
            raise
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return next((f"row {row.spec_id}: {problem}" for row in rows if (problem := _row_problem(row))), None)

    def _merge(self, sources: Sequence[str]) -> str | None:
        try:
            parts = each(lambda name: decode_rows(self._verified(name)), sources, self._blobs.at_once)
            rows = list(chain.from_iterable(parts))
            merged = self._write(encode_rows(distinct_rows(rows), task_id=self._task_id))
            check_rows(self._verified(merged))
        except (OSError, DamagedError) as error:  # another driver merged them, one is damaged, or the disk is full
            log.warning("ledger: %d parts are not merged (%s: %s)", len(sources), type(error).__name__, error)
            return None
        merged_away = sorted(set(sources) - {merged})
        for name in each(self._delete, merged_away, self._blobs.at_once):
            self._indexed.pop(name, None)
        return merged

    def _delete(self, name: str) -> str:
        self._blobs.delete(self._folder + name)
        return name


def record_key(task_id: str) -> str:
    """Return the key of the task record, which describes what the rows of a ledger contain."""
    return f"ledger/{task_id}/task.json"


def _by_spec(
    parts: Mapping[str, list[Row]], rank: Callable[[Row], tuple[bool, str]]
) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Return the first row of every spec id, and all rows of the specs that have several, ordered by `rank`.

    `rank` gives (is quarantined, committed_at). Quarantined rows are dropped where a spec has a finished row. Nearly all
    specs have one row, for which no list is made.
    """
    rows: dict[str, Row] = {}
    several: dict[str, list[Row]] = {}
    for row in chain.from_iterable(parts[name] for name in sorted(parts)):
        first = rows.setdefault(row.spec_id, row)
        if first is not row:
            several.setdefault(row.spec_id, [first]).append(row)
    several = {spec_id: _standing(several[spec_id], rank) for spec_id in sorted(several)}
    rows |= {spec_id: same[0] for spec_id, same in several.items()}
    return {spec_id: rows[spec_id] for spec_id in sorted(rows)}, several


def _standing(same: list[Row], rank: Callable[[Row], tuple[bool, str]]) -> list[Row]:
    ordered = sorted(same, key=rank)  # the sort is stable: rows with equal times stay in the order of their parts
    return [row for row in ordered if rank(row)[0] == rank(ordered[0])[0]]


def _differ(rows: Sequence[LedgerRow]) -> bool:
    if rows[0].outcome.status == "quarantined":
        return False
    return len({outcome_bits(row) for row in rows}) > 1


def _row_problem(row: LedgerRow) -> str | None:
    if digest_json(row.spec) != row.spec_id:
        return "the id is not the digest of its spec"
    if json.loads(row.spec).get("edit") != row.edit.identity():
        return "the edit is not the one that its spec names"
    return None


def _groups(parts: Mapping[str, _Indexed], max_rows: int, max_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = []
    n_rows, n_bytes = max_rows, max_bytes
    for name, part in parts.items():
        if not groups or n_rows + len(part.entries) > max_rows or n_bytes + part.size > max_bytes:
            groups.append([])
            n_rows = n_bytes = 0
        groups[-1].append(name)
        n_rows, n_bytes = n_rows + len(part.entries), n_bytes + part.size
    return groups
