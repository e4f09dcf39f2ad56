"""Stores the snapshot of an unfinished retrain as one sealed safetensors file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import numpy as np

from orchestrator.storage.blobs import BlobStore
from orchestrator.storage.sealed import SEAL, UNSEALED, seal, sealed_metadata
from tasks.recipe import Snapshot

log = logging.getLogger(__name__)

FORMAT = "refit-snapshot-1"
_FOLDER, _NAME = "checkpoints/", "/resume.safetensors"


def spec_of_snapshot(key: str) -> str | None:
    """Return the spec id in the key of a snapshot; None if `key` is not the key of a snapshot."""
    is_one = key.startswith(_FOLDER) and key.endswith(_NAME)
    return key.removeprefix(_FOLDER).removesuffix(_NAME) if is_one else None


@dataclass(frozen=True)
class StoredSnapshot:
    """The snapshot `checkpoints/<spec id>/resume.safetensors`, with its facts as JSON in the metadata; a SnapshotStore.

    Two workers that train the same spec may overwrite each other's snapshot: every file is complete, and a training
    resumed from any of them ends with the same bits.
    """

    blobs: BlobStore
    spec_id: str

    @property
    def key(self) -> str:
        """The key in the store."""
        return f"{_FOLDER}{self.spec_id}{_NAME}"

    def save(self, snapshot: Snapshot) -> None:
        """Write or replace the snapshot. Raises OSError, and then the previous snapshot stays."""
        from safetensors.numpy import save

        metadata = {SEAL: UNSEALED, "format": FORMAT, "spec_id": self.spec_id, "facts": json.dumps(snapshot.facts)}
        tensors = {name: np.asarray(array, order="C") for name, array in snapshot.tensors.items()}
        self.blobs.put(self.key, seal(save(tensors, metadata)))

    def load(self) -> Snapshot | None:
        """Return the last snapshot written; None if there is none, or it is damaged or of another spec."""
        from safetensors.numpy import load

        try:
            data = self.blobs.get(self.key)
        except FileNotFoundError:
            return None
        metadata = sealed_metadata(data)
        if metadata is None or (metadata.get("format"), metadata.get("spec_id")) != (FORMAT, self.spec_id):
            log.warning("%s is damaged or of another spec; the retrain starts from the beginning", self.key)
            return None
        return Snapshot(load(data), json.loads(metadata["facts"]))

    def clear(self) -> None:
        """Delete the snapshot; a missing one is no error."""
        self.blobs.delete(self.key)
