"""Weights as safetensors, sealed with their SHA-256: a checkpoint is what was written, or it is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.storage.blobs import BlobStore
from tasks.base import KeepCheckpoint
from tasks.errors import RefitError

if TYPE_CHECKING:
    from torch import nn

_UNSEALED = b"0" * 64


class CheckpointError(RefitError):
    """A checkpoint is not in the store, or is not what was written there."""


@dataclass(frozen=True)
class CheckpointStore:
    """Weights under `checkpoints/<spec id>/<step>.safetensors`. Pickles: workers write where the driver reads."""

    blobs: BlobStore

    def keeper(self, spec_id: str) -> KeepCheckpoint:
        """What a recipe calls with (step, network) to store the network's weights."""

        def keep(step: int, network: nn.Module) -> None:
            self.blobs.put(_key(spec_id, step), _encode(network))

        return keep

    def load(self, spec_id: str, step: int) -> dict[str, np.ndarray]:
        """Parameter and buffer name -> array. Raises CheckpointError saying what is wrong."""
        from safetensors.numpy import load

        return load(self._verified(spec_id, step))

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
        if not _is_sealed(data):
            raise CheckpointError(f"{key}: its {len(data)} bytes are not those that were written")
        return data


def _key(spec_id: str, step: int) -> str:
    return f"checkpoints/{spec_id}/{int(step)}.safetensors"


def _encode(network: nn.Module) -> bytes:
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in network.state_dict().items():
        wide = tensor.detach().float() if tensor.dtype is torch.bfloat16 else tensor.detach()  # numpy has no bfloat16
        tensors[name] = wide.to("cpu", copy=True).contiguous()  # a copy per name: safetensors refuses shared memory
    data = save(tensors, metadata={"sha256": _UNSEALED.decode()})
    return data.replace(_UNSEALED, hashlib.sha256(data).hexdigest().encode(), 1)  # the header comes first


def _is_sealed(data: bytes) -> bool:
    """Whether the digest in the header is that of the file with the digest's place zeroed."""
    try:
        length = int.from_bytes(data[:8], "little")
        seal = json.loads(data[8 : 8 + length])["__metadata__"]["sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return len(seal) == len(_UNSEALED) and hashlib.sha256(data.replace(seal, _UNSEALED, 1)).hexdigest().encode() == seal
