"""The snapshot of a retrain in progress, as one sealed safetensors file."""

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
    """The retrain whose snapshot has this name; None if it is no name of a snapshot."""
    is_one = key.startswith(_FOLDER) and key.endswith(_NAME)
    return key.removeprefix(_FOLDER).removesuffix(_NAME) if is_one else None


@dataclass(frozen=True)
class StoredSnapshot:
    """`checkpoints/<spec id>/resume.safetensors`: tensors, and facts as JSON in the metadata; implements SnapshotStore.

    Two workers on one spec may write in turns: each file is whole, and going on from any of them ends in the same bits.
    """

    blobs: BlobStore
    spec_id: str

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{_FOLDER}{self.spec_id}{_NAME}"

    def save(self, snapshot: Snapshot) -> None:
        """Write or replace. Raises OSError, and what was there before stays."""
        from safetensors.numpy import save

        metadata = {SEAL: UNSEALED, "format": FORMAT, "spec_id": self.spec_id, "facts": json.dumps(snapshot.facts)}
        tensors = {name: np.asarray(array, order="C") for name, array in snapshot.tensors.items()}
        self.blobs.put(self.key, seal(save(tensors, metadata)))

    def load(self) -> Snapshot | None:
        """The last one written; None if there is none, or its bytes are not those that were written for this spec."""
        from safetensors.numpy import load

        try:
            data = self.blobs.get(self.key)
        except FileNotFoundError:
            return None
        metadata = sealed_metadata(data)
        if metadata is None or (metadata.get("format"), metadata.get("spec_id")) != (FORMAT, self.spec_id):
            log.warning("%s is no whole snapshot of this retrain, which starts anew", self.key)
            return None
        return Snapshot(load(data), json.loads(metadata["facts"]))

    def clear(self) -> None:
        """Delete it; none is fine."""
        self.blobs.delete(self.key)
