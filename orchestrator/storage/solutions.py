"""Stores what solvers found for ranges of queries, until the scores are complete. A damaged file is solved again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from influence.solvers import Solution
from orchestrator.storage.blobs import BlobStore, LocalBlobs
from orchestrator.storage.sealed import SEAL, UNSEALED, seal, sealed_metadata

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
# In memory, torch aligns tensors to 64 bytes; in the file they are aligned in the same way, because the last digits of a
# matrix product may depend on it.
ALIGNMENT = 64


@dataclass(frozen=True)
class SolvedRange:
    """The queries [start, stop) of the scores `score_id`, at the weights of the scoring model `spec_id` after `step` steps."""

    score_id: str
    spec_id: str
    step: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """The key in the store."""
        span = f"{self.start:06d}-{self.stop:06d}"
        return f"{_prefix(self.score_id)}{self.spec_id}-{self.step}-{span}.safetensors"

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says that it holds."""
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SolutionStore:
    """Solutions under `scores/<score id>/solutions-*.safetensors`; each file contains its own SHA-256.

    It can be pickled, so that workers write to the store that other workers read. A file holds the tensor x, and in its
    metadata which queries diverged, and the diagnostics. In a local store it is mapped into memory.
    """

    blobs: BlobStore

    def put(self, at: SolvedRange, solution: Solution) -> None:
        """Write or replace the solutions of one range."""
        from safetensors.torch import save

        metadata = {
            SEAL: UNSEALED,
            **at.metadata,
            "diverged": json.dumps(solution.diverged.tolist()),
            "diagnostics": json.dumps(solution.diagnostics),
        }
        data = save({"x": solution.x.detach().cpu().contiguous()}, metadata)
        self.blobs.put(at.key, seal(data, ALIGNMENT))

    def load(self, at: SolvedRange) -> Solution | None:
        """Return the solutions of one range on the CPU; None if they are missing, or damaged, which is logged."""
        if not self.blobs.exists(at.key):
            return None
        try:
            if isinstance(self.blobs, LocalBlobs):
                return self._from_file(at, self.blobs.root / at.key)
            return self._from_bytes(at, self.blobs.get(at.key))
        except FileNotFoundError:  # another driver deleted it, because the scores are complete
            return None

    def clear(self, score_id: str) -> None:
        """Delete all solutions of these scores."""
        for key in self.blobs.list(_prefix(score_id)):
            self.blobs.delete(key)

    def _from_file(self, at: SolvedRange, path: Path) -> Solution | None:
        from safetensors import safe_open

        if not path.stat().st_size:
            return _damaged(at)  # an empty file cannot be mapped
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            metadata = _checked(at, data)
        if metadata is None:
            return _damaged(at)
        with safe_open(path, "pt") as opened:
            return _solution(opened.get_tensor("x"), metadata)

    def _from_bytes(self, at: SolvedRange, data: bytes) -> Solution | None:
        from safetensors.torch import load

        metadata = _checked(at, data)
        return _damaged(at) if metadata is None else _solution(load(data)["x"], metadata)


def _prefix(score_id: str) -> str:
    return f"scores/{score_id}/solutions-"


def _checked(at: SolvedRange, data: bytes | mmap) -> Mapping[str, str] | None:
    """Return the metadata of an intact file that holds this range, else None."""
    metadata = sealed_metadata(data)
    return metadata if metadata is not None and at.metadata.items() <= metadata.items() else None


def _damaged(at: SolvedRange) -> None:
    log.warning("%s is damaged or holds something else; its queries are solved again", at.key)


def _solution(x: Tensor, metadata: Mapping[str, str]) -> Solution:
    return Solution(x, np.array(json.loads(metadata["diverged"]), bool), json.loads(metadata["diagnostics"]))
