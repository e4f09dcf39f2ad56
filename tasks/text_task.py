"""A text classification task whose data is read and whose model and recipe are chosen."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Batch, Numerics, Split, Text
from tasks.data.edits import Edit
from tasks.data.segments import encoding_of_pairs
from tasks.data.tokens import Encoding, Tokeniser, cached_tokens, word_ids
from tasks.fresh_networks import FreshNetworks
from tasks.length_groups import by_length
from tasks.shared_parts import SharedParts
from tasks.task import MASKED, Task
from tasks.training import deterministic
from tasks.trunk_outputs import RowEvaluator, TrunkOutputs

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

INFERENCE_BATCH = 64  # fixed, because the batch in which a row is evaluated can change the last bits of its outputs
LENGTH_STEP = 16


class TextTask(Task):
    """A task over texts; `splits` has one called train, whose class order applies to all.

    A shallow copy may get another `recipe` and nothing else; it shares data, tokens, base weights and their identities.
    `base_dir` is where the model's relative paths start; `cache_dir` is where tokens are cached (None: nowhere).
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        splits: Mapping[str, Split],
        measured: Mapping[str, np.ndarray],
        model: Any,
        recipe: Any,
        base_dir: Path,
        cache_dir: Path | None = None,
    ):
        self.splits, self.measured = dict(splits), dict(measured)
        self.model, self.recipe = model, recipe
        self.base_dir, self.cache_dir = base_dir, cache_dir
        self.encoding: Encoding = model.encoding(base_dir)
        if self.splits["train"].pair_starts is not None:
            self.encoding = encoding_of_pairs(self.encoding, model.name)
        self._shared = SharedParts()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the logits."""
        return self.splits["train"].classes

    def train_identity(self) -> dict[str, Any]:
        """Return the digest of ids, joined texts, labels and class order of train, and of the encoding; no tokenising, no torch."""
        train = self._shared.identity("train", self.splits["train"].content_digest)
        return {"version": self.version, "train": train, "encoding": self.encoding.identity()}

    def model_identity(self) -> dict[str, Any]:
        """Return the model's identity of its weights: digests of files, or options and version; no torch."""
        return self._shared.identity("model", lambda: self.model.identity_of_weights(self.base_dir))

    def record_identity(self) -> dict[str, Any]:
        """Return the digest of the measured rows of every measured split, and the output schema; no torch."""
        splits = self._shared.identity("measured", self._measured_digests)
        return {"version": self.version, "splits": splits, "outputs": {"kind": "logits", "classes": list(self.classes)}}

    def _measured_digests(self) -> dict[str, str]:
        return {name: _subset(self.splits[name], rows).content_digest() for name, rows in self.measured.items()}

    def prepare(self) -> None:
        """Tokenise every split (or read the cache), and load base weights. Calling it again changes nothing."""
        shared = self._shared
        if shared.tokeniser is not None:
            return
        train_texts, tokeniser = self._texts("train"), self._fitted()
        shared.tokens = {
            name: cached_tokens(tokeniser, self.encoding, train_texts, self._texts(name), self.cache_dir)
            for name in self.splits
        }
        shared.base_state = self.model.base_state(self.base_dir)
        if not self.frozen_trunk_problem():
            shared.frozen_trunk = self.model.frozen_trunk(self.base_dir)
            self.model_identity()  # now, because a worker may not have the files
        shared.tokeniser = tokeniser

    def frozen_trunk_problem(self) -> str:
        """Return why the model has no frozen layers whose outputs are the same in every retrain; "" if it has some."""
        try:
            self.model.frozen_trunk(self.base_dir)
        except ValueError as error:
            return str(error)
        return ""

    def prepare_for(self, numerics: Numerics) -> None:
        """Compute the outputs of the frozen trunk for all train rows and all measured rows, or read them from the cache.

        With `numerics.frozen_trunk` = `computed` every pass computes them. Raises ValueError if there is no frozen trunk.
        """
        shared, trunk = self._shared, self._shared.frozen_trunk
        if shared.trunk_outputs is not None and shared.trunk_outputs.evaluator.numerics == numerics:
            return
        shared.trunk_outputs = shared.fresh_networks = None
        if numerics.frozen_trunk == "computed":
            return
        if trunk is None:
            raise ValueError(f"frozen_trunk {numerics.frozen_trunk!r}: {self.frozen_trunk_problem()}")
        deterministic(numerics)  # the outputs are stored under these numerics, so they are computed under them
        evaluator = RowEvaluator(trunk, lambda: self._build(0), self.tokeniser.pad_id, numerics)
        outputs = TrunkOutputs.of(
            evaluator, trunk, shared.tokens, self.tokeniser, self.model_identity(), numerics, self.cache_dir
        )
        outputs.load({**self.measured, "train": np.arange(len(self.splits["train"]))})
        shared.trunk_outputs = outputs
        shared.fresh_networks = FreshNetworks(self._build, trunk.names_in_classifier(shared.base_state or {}))

    def with_whole_network(self) -> TextTask:
        """Return the same task, in which every pass computes all layers; it shares everything else."""
        if self._shared.trunk_outputs is None:
            return self
        other = copy.copy(self)
        other._shared = replace(self._shared, trunk_outputs=None)
        return other

    def _fitted(self) -> Tokeniser:
        if self._shared.fitted is None:
            self._shared.fitted = self.encoding.fit(self._texts("train"), self.cache_dir)
        return self._shared.fitted

    def _texts(self, split: str) -> tuple[Text, ...]:
        return self.splits[split].segments()

    @property
    def tokeniser(self) -> Tokeniser:
        """The fitted tokeniser: vocabulary_size, pad_id, neutral_ids ... Raises RuntimeError before `prepare`."""
        if self._shared.tokeniser is None:
            raise RuntimeError("the task is not prepared")
        return self._shared.tokeniser

    def network(self, seed: int) -> nn.Module:
        """Return a fresh network; everything random in it is keyed (seed, 'init')."""
        fresh = self._shared.fresh_networks
        return self._build(seed) if fresh is None else fresh.get(seed)

    def _build(self, seed: int) -> nn.Module:
        return self.model.build(len(self.classes), self.tokeniser.vocabulary_size, seed, self._shared.base_state)

    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return `input_ids` int64 [n, length], `attention_mask` bool [n, length] and `labels` int64 [n].

        `length` is that of the longest row that is not blank, rounded up to a multiple of 16, at most the encoding's
        max_length; with length groups it is not rounded up. Blank rows hold the tokens of an empty text and label 0. For
        pairs of texts whose tokeniser tells the segments apart there is also `token_type_ids` int64 [n, length], 0 or 1. If
        the outputs of the frozen trunk are known (`prepare_for`), there is also `trunk`, their floats [n, length, width];
        [n, 1, width] if only the first token is read.
        """
        import torch

        rows = np.asarray(rows, np.int64)
        blank = np.zeros(len(rows), bool) if blank is None else np.asarray(blank, bool)
        ids, mask = self._inputs(split, rows, blank)
        labels = np.where(blank, 0, self.splits[split].labels[rows])
        arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        types = self._shared.tokens[split].padded_types(rows, ids.shape[1])
        if types is not None:
            arrays["token_type_ids"] = np.where(blank[:, None], 0, types)
        if self._shared.trunk_outputs is not None:
            arrays["trunk"] = self._shared.trunk_outputs.batch(split, rows, blank, ids.shape[1])
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

    def with_replaced(self, edit: Edit) -> TextTask:
        """Return a copy whose train tokens have the edit's special token at the replaced positions; it shares everything else.

        A token that is replaced by padding is also hidden from attention. Raises KeyError on an unknown id, ValueError if a text is
        too short or the tokeniser has no such token.
        """
        if not edit.replaced:
            return self
        by, allowed = str(edit.replace_by), self.tokeniser.replacements
        if by not in allowed:
            raise ValueError(f"the tokeniser has no token {by!r}; allowed: {', '.join(allowed)}")
        rows = self.splits["train"].rows_of([train_id for train_id, _ in edit.replaced])
        positions = [found for _, found in edit.replaced]
        train = self._shared.tokens["train"].with_token_at(rows, positions, allowed[by], hide=by == "pad")
        other = copy.copy(self)
        outputs = self._shared.trunk_outputs
        other._shared = replace(
            self._shared,
            tokens={**self._shared.tokens, "train": train},
            trunk_outputs=None if outputs is None else outputs.with_tokens(train, rows),
        )
        other.replaced = edit.replaced
        return other

    def row_lengths(self, split: str, rows: np.ndarray, blank: np.ndarray) -> np.ndarray:
        """Return the number of tokens of `rows`, special tokens included; of a blank row those of an empty text: int64."""
        return np.where(blank, len(self.tokeniser.neutral_ids), self._shared.tokens[split].lengths(rows))

    def with_masked(self, split: str, rows: np.ndarray, positions: np.ndarray) -> TextTask:
        """Return a copy with the split MASKED (Task.with_masked); it shares everything else. Raises ValueError for a position outside its text."""
        given, rows = self.splits[split], np.asarray(rows, np.int64)
        tokens = self._shared.tokens[split].with_masked(rows, positions)
        other = copy.copy(self)
        other.splits = {**self.splits, MASKED: replace(_subset(given, rows), ids=np.arange(len(rows)))}
        outputs = self._shared.trunk_outputs
        other._shared = replace(
            self._shared,
            tokens={**self._shared.tokens, MASKED: tokens},
            trunk_outputs=None if outputs is None else outputs.with_split(MASKED, tokens),
        )
        return other

    def _inputs(self, split: str, rows: np.ndarray, blank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens, neutral = self._shared.tokens[split], self.tokeniser.neutral_ids
        longest = max(int(tokens.lengths(rows[~blank]).max(initial=1)), len(neutral))
        step = 1 if self.length_group_cost else LENGTH_STEP
        length = min(-(-longest // step) * step, max(self.encoding.max_length, longest))
        ids, mask = tokens.padded(rows, length, self.tokeniser.pad_id)
        if blank.any():
            ids[blank], mask[blank] = self.tokeniser.pad_id, False
            ids[blank, : len(neutral)], mask[blank, : len(neutral)] = neutral, True
        return ids, mask

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return class logits [n, n_classes]."""
        return self.model.forward(network, batch)

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy of every example [n], in nats."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits(network, batch), batch["labels"], reduction="none")

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Return logits in evaluation mode, float32 [len(rows), n_classes], in batches of 64.

        Batches are cut in the order of `rows`, or by length with length groups.
        """
        import torch

        rows = np.asarray(rows, np.int64)
        order = by_length(self, split, rows)
        found = np.empty((len(rows), len(self.classes)), np.float32)
        was_training = network.training
        network.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(rows), INFERENCE_BATCH):
                    part = order[start : start + INFERENCE_BATCH]
                    found[part] = (
                        self.logits(network, self.batch(split, rows[part], device=device)).float().cpu().numpy()
                    )
        finally:
            network.train(was_training)
        return found

    def token_spans(self, split: str, row: int) -> list[tuple[int, int, int]]:
        """Return (start, end, token id) of every token of a row, in characters of its text; (0, 0, id) for special tokens."""
        tokens = self._shared.tokens[split]
        part = slice(tokens.offsets[row], tokens.offsets[row + 1])
        return [
            (start, end, token)
            for (start, end), token in zip(tokens.spans[part].tolist(), tokens.ids[part].tolist(), strict=True)
        ]

    @property
    def special_ids(self) -> frozenset[int]:
        """Return the ids of tokens that stand for no text: padding, start, end, separator. Raises RuntimeError before `prepare`."""
        return frozenset(self.tokeniser.special_ids)

    def token_text(self, token_id: int) -> str:
        """Return a token in a form that people can read."""
        return self.tokeniser.token_text(token_id)

    def word_tokens(self, word: str) -> frozenset[int]:
        """Return the ids of the tokens that stand for `word`, as tasks.data.tokens.word_ids does. Raises ValueError."""
        return word_ids(self._fitted(), word)

    def token_counts(self, split: str) -> csr_matrix:
        """Return token counts of a split, special tokens included: CSR float64 [n, vocabulary_size]."""
        return self._shared.tokens[split].counts(self.tokeniser.vocabulary_size)


def _subset(split: Split, rows: np.ndarray) -> Split:
    texts = tuple(split.texts[row] for row in rows) if split.texts is not None else None
    starts = split.pair_starts[rows] if split.pair_starts is not None else None
    return Split(split.ids[rows], split.labels[rows], split.classes, texts, pair_starts=starts)


def first_rows(splits: Mapping[str, Split], limits: Sequence[tuple[str, int | None]]) -> dict[str, np.ndarray]:
    """Return the measured rows: the first `limit` of each named split, or all of them."""
    return {name: np.arange(len(splits[name]), dtype=np.int64)[:limit] for name, limit in limits}
