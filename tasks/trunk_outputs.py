"""The outputs of a frozen trunk for the rows of a text task: each row is computed once, alone, and served to every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Numerics
from tasks.data.tokens import Tokeniser, Tokens
from tasks.data.vector_shards import VectorShards, padded
from tasks.digests import digest, digest_arrays
from tasks.models.classifier_inputs import classifier_inputs
from tasks.models.frozen_trunk import FrozenTrunk

if TYPE_CHECKING:
    from torch import nn

VERSION = 1  # increased when the same tokens give other outputs
_NUMERICS = ("device", "device_model", "dtype", "threads", "torch", "environment")


class RowEvaluator:
    """Computes the outputs of the trunk for one row, without padding, so that they depend on no other row.

    `build` returns a network with the trunk's weights. It is called when the first row is computed; `release` drops the
    network.
    """

    def __init__(self, trunk: FrozenTrunk, build: Callable[[], nn.Module], pad_id: int, numerics: Numerics):
        self._trunk, self._build, self._pad_id, self.numerics = trunk, build, pad_id, numerics
        self._network: nn.Module | None = None

    def outputs(self, tokens: Tokens, row: int) -> np.ndarray:
        """Return the outputs of the trunk for a row: [n_tokens, width], or [1, width] if only the first token is read."""
        import torch

        rows = np.array([row])
        length = int(tokens.lengths(rows)[0])
        ids, mask = tokens.padded(rows, length, self._pad_id)
        arrays = {"input_ids": ids, "attention_mask": mask}
        types = tokens.padded_types(rows, length)
        if types is not None:
            arrays["token_type_ids"] = types
        batch = {name: torch.from_numpy(array).to(self.numerics.device) for name, array in arrays.items()}
        network = self._evaluated()
        with torch.no_grad():
            return self._trunk.outputs(network, classifier_inputs(network, batch))[0].cpu().numpy()

    def _evaluated(self) -> nn.Module:
        import torch

        if self._network is None:
            dtype = getattr(torch, self.numerics.dtype)
            self._network = self._build().requires_grad_(False).eval().to(device=self.numerics.device, dtype=dtype)
        return self._network

    def release(self) -> None:
        """Free the memory of the network."""
        self._network = None


@dataclass(frozen=True)
class TrunkOutputs:
    """The outputs of the trunk for all splits, and for the empty text, which stands in for removed rows.

    `renewed` holds those of train rows whose words are replaced.
    """

    evaluator: RowEvaluator
    splits: Mapping[str, VectorShards]
    empty: np.ndarray
    first_token: bool
    renewed: Mapping[int, np.ndarray]

    @staticmethod
    def of(
        evaluator: RowEvaluator,
        trunk: FrozenTrunk,
        tokens: Mapping[str, Tokens],
        tokeniser: Tokeniser,
        made_by: Any,
        numerics: Numerics,
        cache_dir: Path | None,
    ) -> TrunkOutputs:
        """Return the outputs for `tokens`, stored below `cache_dir` under digests of all that they depend on.

        `made_by` is the identity of the model. They are stored in the dtype of the numerics, or in half precision.
        """
        dtype = "float16" if numerics.frozen_trunk == "cached_half" else numerics.dtype
        environment = {name: value for name, value in numerics.identity().items() if name in _NUMERICS}
        parts = [VERSION, made_by, trunk.identity(), dtype, environment, metadata.version("transformers")]

        def shards(of: Tokens) -> VectorShards:
            key = digest(["trunk", *parts, _digest_of(of)])
            lengths = np.ones(len(of), np.int64) if trunk.whole else np.diff(of.offsets)
            folder = None if cache_dir is None else cache_dir / "trunk" / key
            return VectorShards(key, lengths, dtype, lambda row: evaluator.outputs(of, row), folder)

        neutral = _single(tokeniser.neutral_ids, has_types=tokens["train"].types is not None)
        splits = {name: shards(of) for name, of in tokens.items()}
        return TrunkOutputs(evaluator, splits, shards(neutral)[0], trunk.whole, {})

    def load(self, rows_of: Mapping[str, np.ndarray]) -> None:
        """Read or compute the outputs of these rows of each split, and drop the network that computed them."""
        for split, rows in rows_of.items():
            self.splits[split].load(rows)
        self.evaluator.release()

    def with_tokens(self, tokens: Tokens, rows: np.ndarray) -> TrunkOutputs:
        """Return outputs in which those of the train rows `rows` are computed from `tokens`, the changed tokens of train."""
        dtype = self.empty.dtype
        renewed = {int(row): self.evaluator.outputs(tokens, int(row)).astype(dtype) for row in rows}
        return replace(self, renewed={**self.renewed, **renewed})

    def with_split(self, name: str, tokens: Tokens) -> TrunkOutputs:
        """Return outputs with one more split, whose rows are computed when they are first needed and are not stored."""
        lengths = np.ones(len(tokens), np.int64) if self.first_token else np.diff(tokens.offsets)
        dtype = str(self.empty.dtype)
        shards = VectorShards("", lengths, dtype, lambda row: self.evaluator.outputs(tokens, row), None)
        return replace(self, splits={**self.splits, name: shards})

    def batch(self, split: str, rows: np.ndarray, blank: np.ndarray, length: int) -> np.ndarray:
        """Return the outputs of a batch: [n, length, width], zeros at padding; [n, 1, width] if only the first token is read.

        Rows where `blank` is true have the outputs of the empty text.
        """
        shards, renewed = self.splits[split], self.renewed if split == "train" else {}
        texts = [
            self.empty if empty else renewed[row] if row in renewed else shards[row]
            for row, empty in zip(rows.tolist(), blank.tolist(), strict=True)
        ]
        return padded(texts, 1 if self.first_token else length)


def _digest_of(tokens: Tokens) -> str:
    arrays = {"offsets": tokens.offsets, "ids": tokens.ids, "types": tokens.types, "hidden": tokens.hidden}
    return digest_arrays(**{name: array for name, array in arrays.items() if array is not None})


def _single(ids: tuple[int, ...], has_types: bool) -> Tokens:
    """Return the tokens `ids` as one text."""
    zeros = np.zeros(len(ids), np.int32)
    spans = np.zeros((len(ids), 2), np.int32)
    return Tokens(np.array([0, len(ids)]), np.asarray(ids, np.int32), spans, zeros if has_types else None)
