"""Stores weights as safetensors files that contain their own SHA-256, so that a damaged checkpoint is detected."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.storage.blobs import BlobStore, StoreAwayError
from orchestrator.storage.sealed import SEAL, UNSEALED, seal, sealed_metadata
from orchestrator.storage.snapshots import StoredSnapshot, spec_of_snapshot
from tasks.errors import RefitError
from tasks.recipe import KeepCheckpoint, SnapshotStore

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


class CheckpointError(RefitError):
    """A checkpoint is missing in the store, or its bytes are not those that were written."""


@dataclass(frozen=True)
class CheckpointStore:
    """Weights under `checkpoints/<spec id>/<step>.safetensors`.

    It can be pickled, so that workers write to the store that the driver reads. `in_progress`: spec ids that had a
    snapshot when `swept` listed the store; None if it has not been listed.
    """

    blobs: BlobStore
    in_progress: frozenset[str] | None = None

    def keeper(self, spec_id: str) -> KeepCheckpoint:
        """Return the function that a recipe calls with (step, network) to store the network's weights."""

        def keep(step: int, network: nn.Module) -> None:
            self.blobs.put(_key(spec_id, step), _encode(spec_id, step, network))

        return keep

    def load(self, spec_id: str, step: int) -> dict[str, np.ndarray]:
        """Return the arrays by parameter or buffer name. Raises CheckpointError that names the problem."""
        from safetensors.numpy import load

        return load(self._verified(spec_id, step))

    def progress(self, spec_id: str) -> SnapshotStore:
        """Return the place of the snapshot of an unfinished retrain."""
        return StoredSnapshot(self.blobs, spec_id)

    def may_have_progress(self, spec_id: str) -> bool:
        """Return whether an earlier session may have stored a snapshot of this retrain."""
        return self.in_progress is None or spec_id in self.in_progress

    def require(self, key: str) -> None:
        """Check that this process finds `key` in the store. Raises RefitError if it does not."""
        try:
            is_there = self.blobs.exists(key)
        except StoreAwayError as error:
            if error.errno != errno.EACCES:
                raise
            raise RefitError(f"this node has no permission to read the store: {error}") from error
        if not is_there:
            problem = "this node does not find the file that the driver wrote; output must be in a bucket or on a disk that all nodes share"
            raise RefitError(f"{self.blobs.url(key)}: {problem}")

    def swept(self, finished: Collection[str]) -> CheckpointStore:
        """Delete the snapshots of `finished` retrains; return this store with `in_progress` filled in, from one listing.

        A finished retrain that is repeated because its weights are lost must start from the beginning, since a resumed
        one would skip the steps whose weights are needed. Its snapshot is therefore never used, even if the deletion
        fails. Raises OSError if the store cannot be listed.
        """
        found = {spec_id for key in self.blobs.list("checkpoints/") if (spec_id := spec_of_snapshot(key))}
        self.clear_progress(sorted(found.intersection(finished)))
        return replace(self, in_progress=frozenset(found.difference(finished)))

    def clear_progress(self, spec_ids: Iterable[str]) -> None:
        """Delete the snapshots of finished retrains. If the store is unavailable, the rest stays until the next sweep."""
        for spec_id in spec_ids:
            snapshot = StoredSnapshot(self.blobs, spec_id)
            try:
                snapshot.clear()
            except OSError as error:  # each further deletion would wait for the store again
                log.warning(
                    "snapshot %s and later ones are not deleted: %s: %s", snapshot.key, type(error).__name__, error
                )
                return

    def has(self, spec_id: str, steps: Iterable[int]) -> bool:
        """Return whether the weights of all `steps` are stored and undamaged."""
        try:
            for step in steps:
                self._verified(spec_id, step)
        except CheckpointError:
            return False
        return True

    def _verified(self, spec_id: str, step: int) -> bytes:
        key = _key(spec_id, step)
        try:
            data = self.blobs.get(key)
        except FileNotFoundError:
            raise CheckpointError(f"{key}: no such checkpoint") from None
        metadata = sealed_metadata(data)
        if metadata is None:
            raise CheckpointError(f"{key}: its {len(data)} bytes do not have the SHA-256 in its metadata")
        # checkpoints written by versions before 0.2 name neither spec nor step
        stored = metadata.get("spec_id", spec_id), metadata.get("step", str(int(step)))
        if stored != (spec_id, str(int(step))):
            raise CheckpointError(f"{key}: holds the weights of {stored[0]} at step {stored[1]}")
        return data


def _key(spec_id: str, step: int) -> str:
    return f"checkpoints/{spec_id}/{int(step)}.safetensors"


def _encode(spec_id: str, step: int, network: nn.Module) -> bytes:
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in network.state_dict().items():
        wide = tensor.detach().float() if tensor.dtype is torch.bfloat16 else tensor.detach()  # numpy has no bfloat16
        tensors[name] = wide.to("cpu", copy=True).contiguous()  # a copy, since safetensors rejects shared memory
    return seal(save(tensors, metadata={SEAL: UNSEALED, "spec_id": spec_id, "step": str(int(step))}))
