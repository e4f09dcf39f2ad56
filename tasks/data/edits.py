"""What a removal does to a train set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from tasks.digests import digest_arrays

Mode = Literal["mask", "drop", "each", "select"]


@dataclass(frozen=True)
class Edit:
    """Weights other than one for some training examples; a removed example has weight zero.

    `ids` are TrainIds, sorted and unique; `weights` has the same length. In mode `mask` an example keeps its slot in the batches and
    the batch loss is sum(w l) / max(sum w, 1); in mode `drop` examples of weight zero leave the train set and the batches are rebuilt.
    The empty edit is the reference: it is the same edit in every mode.
    Mode `each` stands for as many retrains as there are ids, made as one stack: in each of them one id alone has its weight, the others
    weight one (masked). In mode `select` the listed examples are the whole train set: what a fine-tune of a parent model is shown,
    with weights of either sign (-1: a step away from the example).
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
    def each_left_out(ids: Iterable[int]) -> Edit:
        """The stack of retrains that each leave out one of `ids`. Raises ValueError without ids."""
        removal = Edit.removal(ids, "each")
        if removal.is_empty:
            raise ValueError("a stack of removals needs at least one id")
        return removal

    @staticmethod
    def selection(weights: Mapping[int, float]) -> Edit:
        """The edit that shows these TrainIds only, each with its weight; weights of one are kept. Raises ValueError without ids."""
        items = sorted((int(i), float(w)) for i, w in weights.items())
        if not items:
            raise ValueError("a selection needs at least one id")
        return Edit(tuple(i for i, _ in items), tuple(w for _, w in items), "select")

    @property
    def is_empty(self) -> bool:
        """Whether this is the reference: nothing removed, nothing re-weighted."""
        return not self.ids

    @cached_property
    def edit_id(self) -> str:
        """Digest of the sorted ids and weights, hashed once."""
        return digest_arrays(ids=np.asarray(self.ids, np.int64), weights=np.asarray(self.weights, np.float64))

    @cached_property
    def key(self) -> tuple[str, str]:
        """What tells edits apart, to look them up by: what they do, and how."""
        return self.edit_id, self.mode

    def identity(self) -> Mapping[str, Any]:
        """What of an edit enters a RetrainSpec; the same mapping every time, shared by the specs of all seeds: not to be changed."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {"edit_id": self.edit_id, "mode": self.mode, "version": self.version}

    def weights_of(self, train_ids: np.ndarray) -> np.ndarray:
        """Weight of every training example, in the order of `train_ids`: float32 [n_train]; of a stack, all its removals at once.

        Raises KeyError naming the first id of the edit that is not a TrainId.
        """
        weights = np.full(len(train_ids), 0 if self.mode == "select" else 1, np.float32)
        if self.is_empty:
            return weights
        weights[self.rows_of(train_ids)] = np.asarray(self.weights, np.float32)
        return weights

    def rows_of(self, train_ids: np.ndarray) -> np.ndarray:
        """Positions of the edit's ids in `train_ids`: int64 [len(ids)]. Raises KeyError naming the first that is not there."""
        order = np.argsort(train_ids, kind="stable")
        wanted = np.asarray(self.ids, np.int64)
        found = np.searchsorted(train_ids, wanted, sorter=order).clip(max=len(train_ids) - 1)
        rows = order[found]
        missing = train_ids[rows] != wanted
        if missing.any():
            raise KeyError(f"id {int(wanted[missing][0])} is not in the train set")
        return rows
