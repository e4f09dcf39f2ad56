"""What a removal does to a train set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from tasks.digests import digest_arrays

Mode = Literal["mask", "drop"]


@dataclass(frozen=True)
class Edit:
    """Weights other than one for some training examples; a removed example has weight zero.

    `ids` are TrainIds, sorted and unique; `weights` has the same length. In mode `mask` an example keeps its slot in the batches and
    the batch loss is sum(w l) / max(sum w, 1); in mode `drop` examples of weight zero leave the train set and the batches are rebuilt.
    The empty edit is the reference: it is the same edit in both modes.
    """

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    mode: Mode = "mask"
    version: ClassVar[int] = 1

    @staticmethod
    def removal(ids: Iterable[int], mode: Mode = "mask") -> Edit:
        """The edit that removes `ids`."""
        kept = tuple(sorted({int(i) for i in ids}))
        return Edit(kept, (0.0,) * len(kept), mode if kept else "mask")

    @staticmethod
    def reweighting(weights: Mapping[int, float], mode: Mode = "mask") -> Edit:
        """The edit that gives each TrainId of `weights` its weight; weights of one are left out."""
        items = sorted((int(i), float(w)) for i, w in weights.items() if w != 1)
        return Edit(tuple(i for i, _ in items), tuple(w for _, w in items), mode if items else "mask")

    @property
    def is_empty(self) -> bool:
        """Whether this is the reference: nothing removed, nothing re-weighted."""
        return not self.ids

    @cached_property
    def edit_id(self) -> str:
        """Digest of the sorted ids and weights, hashed once."""
        return digest_arrays(ids=np.asarray(self.ids, np.int64), weights=np.asarray(self.weights, np.float64))

    def identity(self) -> dict:
        """What of an edit enters a RetrainSpec."""
        return {"edit_id": self.edit_id, "mode": self.mode, "version": self.version}

    def weights_of(self, train_ids: np.ndarray) -> np.ndarray:
        """Weight of every training example, in the order of `train_ids`: float32 [n_train].

        Raises KeyError naming the first id of the edit that is not a TrainId.
        """
        weights = np.ones(len(train_ids), np.float32)
        if self.is_empty:
            return weights
        order = np.argsort(train_ids, kind="stable")
        wanted = np.asarray(self.ids, np.int64)
        found = np.searchsorted(train_ids, wanted, sorter=order).clip(max=len(train_ids) - 1)
        rows = order[found]
        missing = train_ids[rows] != wanted
        if missing.any():
            raise KeyError(f"id {int(wanted[missing][0])} is not in the train set")
        weights[rows] = np.asarray(self.weights, np.float32)
        return weights
