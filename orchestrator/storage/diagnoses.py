"""Stores the tables of diagnostics by diagnosis id. Missing or damaged tables are computed again."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.storage.blobs import BlobStore
from orchestrator.storage.parquet import DamagedError
from tasks.digests import canonical_json

log = logging.getLogger(__name__)

Tables = Mapping[str, Mapping[str, Sequence[Any]]]  # table name -> column -> values, plain JSON
_NAME = re.compile(r"tables-([0-9a-f]{64})\.json")


class DiagnosisStore:
    """Tables under `diagnoses/<diagnosis id>/`; the name of a file contains the SHA-256 of its bytes, and the file its id."""

    def __init__(self, blobs: BlobStore):
        self._blobs = blobs

    def put(self, diagnosis_id: str, tables: Tables) -> None:
        """Write the tables of one diagnostic. Raises ValueError for values that are not plain, finite JSON."""
        data = _encode(diagnosis_id, tables)
        self._blobs.put(f"diagnoses/{diagnosis_id}/tables-{hashlib.sha256(data).hexdigest()}.json", data)

    def load(self, diagnosis_id: str) -> Tables | None:
        """Return the verified tables; None if there are none. Damaged files are moved to `corrupt/`."""
        for key in sorted(self._blobs.list(f"diagnoses/{diagnosis_id}/tables-")):
            try:
                return _decode(diagnosis_id, key, self._blobs.get(key))
            except FileNotFoundError:  # another driver moved it to corrupt/
                continue
            except DamagedError as error:
                self._set_aside(key, error)
        return None

    def _set_aside(self, key: str, error: DamagedError) -> None:
        log.warning("diagnoses: %s; it is moved to corrupt/ and computed again", error)
        folder, _, name = key.rpartition("/")
        self._blobs.put(f"{folder}/corrupt/{name}", self._blobs.get(key))
        self._blobs.delete(key)


def _encode(diagnosis_id: str, tables: Tables) -> bytes:
    """Encode tables as JSON lists, because canonical JSON sorts the keys of mappings and columns have an order."""
    listed = [[name, [[column, list(values)] for column, values in table.items()]] for name, table in tables.items()]
    return (canonical_json({"diagnosis_id": diagnosis_id, "tables": listed}) + "\n").encode()


def _decode(diagnosis_id: str, key: str, data: bytes) -> Tables:
    match = _NAME.fullmatch(key.rpartition("/")[2])
    if match is None or hashlib.sha256(data).hexdigest() != match[1]:
        raise DamagedError(f"{key}: its {len(data)} bytes do not have the SHA-256 in its name")
    found = json.loads(data)
    if found.get("diagnosis_id") != diagnosis_id:
        raise DamagedError(f"{key}: holds tables of the diagnosis id {found.get('diagnosis_id')!r}")
    return {name: dict(columns) for name, columns in found["tables"]}
