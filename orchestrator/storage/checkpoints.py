"""Weights as safetensors, sealed with their SHA-256: a checkpoint is what was written, or it is missing."""

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
    """A checkpoint is not in the store, or is not what was written there."""


@dataclass(frozen=True)
class CheckpointStore:
    """Weights under `checkpoints/<spec id>/<step>.safetensors`. Pickles: workers write where the driver reads.

    `in_progress`: the retrains that had a snapshot when they were listed; None: nobody has looked.
    """

    blobs: BlobStore
    in_progress: frozenset[str] | None = None

    def keeper(self, spec_id: str) -> KeepCheckpoint:
        """What a recipe calls with (step, network) to store the network's weights."""

        def keep(step: int, network: nn.Module) -> None:
            self.blobs.put(_key(spec_id, step), _encode(spec_id, step, network))

        return keep

    def load(self, spec_id: str, step: int) -> dict[str, np.ndarray]:
        """Parameter and buffer name -> array. Raises CheckpointError saying what is wrong."""
        from safetensors.numpy import load

        return load(self._verified(spec_id, step))

    def progress(self, spec_id: str) -> SnapshotStore:
        """Where the snapshot of a retrain that is not finished lies."""
        return StoredSnapshot(self.blobs, spec_id)

    def may_have_progress(self, spec_id: str) -> bool:
        """Whether an earlier session may have left a snapshot of this retrain."""
        return self.in_progress is None or spec_id in self.in_progress

    def require(self, key: str) -> None:
        """Raise RefitError unless the store, as this process sees it, has the key."""
        try:
            is_there = self.blobs.exists(key)
        except StoreAwayError as error:
            if error.errno != errno.EACCES:
                raise
            raise RefitError(f"this node may not read the store: {error}") from error
        if not is_there:
            problem = "this node does not see what the driver has written there: output must be in a bucket, or on a disk that all nodes share"
            raise RefitError(f"{self.blobs.url(key)}: {problem}")

    def swept(self, finished: Collection[str]) -> CheckpointStore:
        """This store, told which retrains are in progress; the snapshots of `finished` ones are deleted. One listing.

        A retrain that is done again because its weights are lost must not go on behind a step that it is to keep: of a
        finished one no snapshot counts, deleted or not. Raises OSError if the store cannot be listed.
        """
        found = {spec_id for key in self.blobs.list("checkpoints/") if (spec_id := spec_of_snapshot(key))}
        self.clear_progress(sorted(found.intersection(finished)))
        return replace(self, in_progress=frozenset(found.difference(finished)))

    def clear_progress(self, spec_ids: Iterable[str]) -> None:
        """Delete the snapshots of finished retrains. What stays because the store is away costs room until the next sweep."""
        for spec_id in spec_ids:
            snapshot = StoredSnapshot(self.blobs, spec_id)
            try:
                snapshot.clear()
            except OSError as error:  # the others would wait for it, one by one
                log.warning("%s and those after it stay: %s: %s", snapshot.key, type(error).__name__, error)
                return

    def has(self, spec_id: str, steps: Iterable[int]) -> bool:
        """Whether the weights of all `steps` are there, every byte as written."""
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
            raise CheckpointError(f"{key}: its {len(data)} bytes are not those that were written")
        # those of versions before 0.2 do not say what they are
        said = metadata.get("spec_id", spec_id), metadata.get("step", str(int(step)))
        if said != (spec_id, str(int(step))):
            raise CheckpointError(f"{key}: holds the weights of {said[0]} at step {said[1]}")
        return data


def _key(spec_id: str, step: int) -> str:
    return f"checkpoints/{spec_id}/{int(step)}.safetensors"


def _encode(spec_id: str, step: int, network: nn.Module) -> bytes:
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in network.state_dict().items():
        wide = tensor.detach().float() if tensor.dtype is torch.bfloat16 else tensor.detach()  # numpy has no bfloat16
        tensors[name] = wide.to("cpu", copy=True).contiguous()  # a copy per name: safetensors refuses shared memory
    return seal(save(tensors, metadata={SEAL: UNSEALED, "spec_id": spec_id, "step": str(int(step))}))
