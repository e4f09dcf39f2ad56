"""Edits: which examples of a train set are removed or weighted, which of their words are replaced, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from tasks.digests import digest_arrays

Mode = Literal["mask", "drop", "each", "select"]
ReplaceBy = Literal["pad", "unknown", "mask"]


@dataclass(frozen=True)
class Edit:
    """Weights other than one for some training examples; a removed example has weight zero.

    `ids` are ids of the train split ("TrainIds"), sorted and unique; `weights` has the same length. In mode `mask` an example keeps its slot in
    the batches, and the batch loss is sum(w l) / max(sum w, 1). In mode `drop` examples of weight zero leave the train
    set and the batches are rebuilt. The empty edit is the reference; it is the same edit in every mode. Mode `each`
    stands for a stack of as many retrains as there are ids, trained together: in each of them one id has its weight, and
    all other examples have weight one (as in mode `mask`). In mode `select` the listed examples are the whole train set on which a parent
    model is fine-tuned, with weights of either sign. The loss of an example of weight -1 is subtracted in the train
    objective, so that training raises this loss instead of lowering it.

    `replaced` holds pairs (TrainId, positions) in rising order: the tokens at these positions of the example are replaced by
    a special token of the tokeniser, which `replace_by` names: `pad`, which is also hidden from attention, `unknown` or
    `mask`. The other tokens keep their positions, and the example keeps its weight and label.
    """

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    mode: Mode = "mask"
    replaced: tuple[tuple[int, tuple[int, ...]], ...] = ()
    replace_by: ReplaceBy | None = None
    version: ClassVar[int] = 1

    @staticmethod
    def removal(ids: Iterable[int], mode: Mode = "mask") -> Edit:
        """Return the edit that removes `ids`."""
        kept = tuple(sorted({int(i) for i in ids}))
        return Edit(kept, (0.0,) * len(kept), mode if kept else "mask")

    @staticmethod
    def each_left_out(ids: Iterable[int]) -> Edit:
        """Return the stack of retrains that each leave out one of `ids`. Raises ValueError without ids."""
        removal = Edit.removal(ids, "each")
        if removal.is_empty:
            raise ValueError("a stack of removals needs at least one id")
        return removal

    @staticmethod
    def selection(weights: Mapping[int, float]) -> Edit:
        """Return the edit of mode `select` that trains only on the TrainIds in `weights`, each with its weight.

        Ids with weight one must be listed too, because an example that is not listed is not trained on. Raises ValueError
        without ids.
        """
        items = sorted((int(i), float(w)) for i, w in weights.items())
        if not items:
            raise ValueError("a selection needs at least one id")
        return Edit(tuple(i for i, _ in items), tuple(w for _, w in items), "select")

    @staticmethod
    def replacement(positions: Mapping[int, Iterable[int]], by: ReplaceBy) -> Edit:
        """Return the edit that replaces the tokens at `positions` (TrainId -> positions), and removes no example.

        An example with an empty list of positions stays unchanged and is not part of the edit. If no example has
        positions, the result is the empty edit.
        """
        replaced = tuple(sorted((int(i), tuple(sorted({int(p) for p in at}))) for i, at in positions.items()))
        replaced = tuple((i, at) for i, at in replaced if at)
        return Edit(replaced=replaced, replace_by=by) if replaced else Edit()

    @property
    def is_empty(self) -> bool:
        """Whether this is the reference: nothing is removed, re-weighted or replaced."""
        return not self.ids and not self.replaced

    @property
    def n_examples(self) -> int:
        """The number of examples that the edit changes."""
        return len({*self.ids, *(i for i, _ in self.replaced)})

    @cached_property
    def edit_id(self) -> str:
        """The digest of the sorted ids and weights, and of the replaced positions if there are any, computed once."""
        arrays = {"ids": np.asarray(self.ids, np.int64), "weights": np.asarray(self.weights, np.float64)}
        if self.replaced:
            pairs = [(i, position) for i, positions in self.replaced for position in positions]
            arrays["replaced"] = np.asarray(pairs, np.int64)
            arrays["replace_by"] = np.frombuffer(str(self.replace_by).encode(), np.uint8)
        return digest_arrays(**arrays)

    @cached_property
    def key(self) -> tuple[str, str]:
        """The pair (edit_id, mode), which distinguishes edits in look-ups."""
        return self.edit_id, self.mode

    def identity(self) -> Mapping[str, Any]:
        """Return the part of an edit that enters a RetrainSpec.

        The specs of all seeds share one mapping, which must not be changed.
        """
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {"edit_id": self.edit_id, "mode": self.mode, "version": self.version}

    def weights_of(self, train_ids: np.ndarray) -> np.ndarray:
        """Return the weight of every training example, in the order of `train_ids`: float32 [n_train].

        For mode `each` the result sets the weights of all ids of the stack at once, so it is not the weights of any single
        retrain of the stack, each of which changes the weight of one id only. Raises KeyError naming the first id of the
        edit that is not a TrainId.
        """
        weights = np.full(len(train_ids), 0 if self.mode == "select" else 1, np.float32)
        if not self.ids:
            return weights
        weights[self.rows_of(train_ids)] = np.asarray(self.weights, np.float32)
        return weights

    def rows_of(self, train_ids: np.ndarray) -> np.ndarray:
        """Return the positions of the edit's ids in `train_ids`: int64 [len(ids)]. Raises KeyError naming the first missing one."""
        order = np.argsort(train_ids, kind="stable")
        wanted = np.asarray(self.ids, np.int64)
        found = np.searchsorted(train_ids, wanted, sorter=order).clip(max=len(train_ids) - 1)
        rows = order[found]
        missing = train_ids[rows] != wanted
        if missing.any():
            raise KeyError(f"id {int(wanted[missing][0])} is not in the train set")
        return rows
