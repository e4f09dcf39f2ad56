"""The ledger: content-addressed, append-only parts of finished retrains. Nothing finished is lost or redone."""

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
    """A part that is not what was written, and why."""

    name: str
    problem: str


@dataclass(frozen=True)
class LedgerView:
    """One row per spec id. `conflicts`: specs whose finished rows differ in a bit of status or outputs."""

    rows: Mapping[str, LedgerRow]
    conflicts: tuple[str, ...]
    bad_parts: tuple[BadPart, ...]


@dataclass(frozen=True)
class LedgerIndex:
    """As LedgerView, without outputs; read-only, since the next call may give the same one."""

    rows: Mapping[str, IndexEntry]
    bad_parts: tuple[BadPart, ...]


class _Indexed(NamedTuple):
    """A part as the index knows it. `size`: bytes."""

    entries: list[IndexEntry]
    size: int


class Ledger:
    """The finished retrains of one task id, under `ledger/<task_id>/` of a store.

    Any number of readers and writers may work at once: parts never change, and one is deleted only when its rows are
    in another.
    """

    def __init__(self, blobs: BlobStore, task_id: str):
        self._blobs, self._task_id = blobs, task_id
        self._folder, self._record = f"ledger/{task_id}/", record_key(task_id)
        self._indexed: dict[str, _Indexed] = {}  # parts written or verified here; a part's content is its name
        self._last: tuple[frozenset[str], Mapping[str, IndexEntry]] = frozenset(), {}  # parts, and what stands of them

    def publish(self, rows: Sequence[LedgerRow]) -> str:
        """Write one part; its rows are durable when this returns its name. Raises OSError, leaving no partial part."""
        if not rows:
            raise ValueError("a part needs at least one row")
        data = encode_rows(rows, task_id=self._task_id, quick=True)
        name = self._write(data)
        self._indexed[name] = _Indexed(index_of(rows), len(data))  # no need to read it to know what it holds
        return name

    def parts(self) -> list[str]:
        """Names of the parts, sorted."""
        return [key.removeprefix(self._folder) for key in self._blobs.list(self._folder + "part-")]

    def read(self, spec_ids: Collection[str] | None = None) -> LedgerView:
        """The rows with outputs, all or those of `spec_ids`; every byte is verified.

        A part that this Ledger has indexed, and that holds none of `spec_ids`, is not read again.
        Of several rows of one spec the first by (committed_at, part name) stands; finished come before quarantined.
        """
        wanted = None if spec_ids is None else frozenset(spec_ids)
        parts, bad = self._scan(lambda name: self._rows(name, wanted))
        rows, several = _by_spec(parts, lambda row: (row.outcome.status == "quarantined", row.committed_at))
        return LedgerView(rows, tuple(spec_id for spec_id, same in several.items() if _differ(same)), bad)

    def index(self) -> LedgerIndex:
        """The rows without outputs; parts this Ledger has written, or verified before, are not read again."""
        parts, bad = self._scan(lambda name: self._index_of(name).entries)
        if self._last[0] != parts.keys():
            rows, _ = _by_spec(parts, lambda row: (row.status == "quarantined", row.committed_at))
            self._last = frozenset(parts), MappingProxyType(rows)
        return LedgerIndex(self._last[1], bad)

    def verify(self) -> list[BadPart]:
        """Every part that is damaged, or has a row whose id is not the digest of its spec or whose edit is another."""
        names = self.parts()
        problems = each(self._problem, names, self._blobs.at_once)
        return [BadPart(name, problem) for name, problem in zip(names, problems, strict=True) if problem]

    def set_aside(self, name: str) -> None:
        """Move a part to `corrupt/`, so that its rows become work again."""
        log.warning("ledger: part %s is moved to corrupt/", name)  # whoever asked for it may not live to tell
        self._blobs.put(f"{self._folder}corrupt/{name}", self._blobs.get(self._folder + name))
        self._blobs.delete(self._folder + name)
        self._indexed.pop(name, None)

    def compact(self, min_parts: int = 16, max_rows: int = 4096, max_bytes: int = 64 << 20) -> list[str]:
        """Merge small parts into ones of up to `max_rows`, about `max_bytes`, if there are `min_parts`; the new names.

        A part is deleted once the merged one has been read back; a crash at any point leaves every row readable.
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
        """Write what the task records beside its parts, once; a damaged record, or another task's, is replaced."""
        found = self.description()
        if found is None or (digest(record) == self._task_id and not self.is_described(found)):
            self._blobs.put(self._record, (canonical_json(record) + "\n").encode())

    def is_described(self, found: Mapping[str, Any]) -> bool:
        """Whether a record is that of this ledger, whose name is its digest."""
        try:
            return digest(found) == self._task_id
        except TypeError:  # no value of ours
            return False

    def description(self) -> dict[str, Any] | None:
        """What `describe` wrote, or None."""
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
        """Decode every part. One that goes while we read was merged into a part that the next listing shows."""
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
                    self._indexed.pop(name, None)  # it may have been known while it was sound
                else:
                    found[name] = result
            seen.update(pending)
            if not vanished:
                break
        return found, tuple(sorted(bad, key=lambda part: part.name))

    def _attempt(self, decode: Callable[[str], T], name: str) -> T | FileNotFoundError | DamagedError:
        """A stale handle, no file descriptors, a bad sector: that a part could not be read says nothing about its bytes."""
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
            return None  # compacted since the listing
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
        except (OSError, DamagedError) as error:  # another driver merged it too, it went bad, the disk is full
            log.warning("ledger: %d parts stay as they are (%s: %s)", len(sources), type(error).__name__, error)
            return None
        merged_away = sorted(set(sources) - {merged})
        for name in each(self._delete, merged_away, self._blobs.at_once):
            self._indexed.pop(name, None)
        return merged

    def _delete(self, name: str) -> str:
        self._blobs.delete(self._folder + name)
        return name


def record_key(task_id: str) -> str:
    """Where a ledger says what its rows record."""
    return f"ledger/{task_id}/task.json"


def _by_spec(
    parts: Mapping[str, list[Row]], rank: Callable[[Row], tuple[bool, str]]
) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """The row of every spec id, and all rows of those that have several, by `rank` = (is quarantined, committed_at).

    Quarantined rows count only where there is no other. A spec with one row, which is nearly all, costs no list.
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
    ordered = sorted(same, key=rank)  # stable: equal times stay in the order of part names
    return [row for row in ordered if rank(row)[0] == rank(ordered[0])[0]]


def _differ(rows: Sequence[LedgerRow]) -> bool:
    if rows[0].outcome.status == "quarantined":
        return False
    return len({outcome_bits(row) for row in rows}) > 1


def _row_problem(row: LedgerRow) -> str | None:
    if digest_json(row.spec) != row.spec_id:
        return "the id is not the digest of its spec"
    if json.loads(row.spec).get("edit") != row.edit.identity():
        return "the edit is not the one its spec names"
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
