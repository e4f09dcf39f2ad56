"""A real but tiny text task in memory, built from random token arrays, on which the recipe and model contracts train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.base import Batch, Split
from tasks.data.edits import Edit
from tasks.digests import digest, digest_arrays
from tasks.task import Task

PAD, UNKNOWN, START, END = range(4)
BLANK = np.array([START, END])


@dataclass(frozen=True)
class TokenTask(Task):
    """Classify rows of tokens. `tokens[split]` holds id arrays, including start and end."""

    model: Any
    recipe: Any
    splits: Mapping[str, Split]
    measured: Mapping[str, np.ndarray]
    tokens: Mapping[str, tuple[np.ndarray, ...]]
    vocabulary_size: int
    base_state: Mapping[str, np.ndarray] | None = None

    def train_identity(self) -> dict[str, Any]:
        tokens = [digest_arrays(row=row) for row in self.tokens["train"]]
        return {"train": self.splits["train"].content_digest(), "tokens": digest(tokens)}

    def model_identity(self) -> dict[str, Any]:
        return self.model.identity_of_weights(Path())

    def record_identity(self) -> dict[str, Any]:
        return {split: digest_arrays(ids=self.splits[split].ids[rows]) for split, rows in self.measured.items()}

    def network(self, seed: int) -> nn.Module:
        return self.model.build(len(self.splits["train"].classes), self.vocabulary_size, seed, self.base_state)

    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        blank = np.zeros(len(rows), bool) if blank is None else blank
        content = [BLANK if empty else self.tokens[split][row] for row, empty in zip(rows, blank, strict=True)]
        ids = np.full((len(rows), max(map(len, content))), PAD)
        for position, row in enumerate(content):
            ids[position, : len(row)] = row
        labels = np.where(blank, 0, self.splits[split].labels[rows])
        arrays = {"input_ids": ids, "attention_mask": ids != PAD, "labels": labels}
        return {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}

    def row_lengths(self, split: str, rows: np.ndarray, blank: np.ndarray) -> np.ndarray:
        return np.where(blank, len(BLANK), [len(self.tokens[split][row]) for row in rows])

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.model.forward(network, batch)

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.logits(network, batch), batch["labels"], reduction="none")

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return self.logits(network, self.batch(split, rows, device=device)).float().cpu().numpy()

    def with_replaced(self, edit: Edit) -> TokenTask:
        """Put the edit's special token at the replaced positions; padding is masked because its id is PAD."""
        if not edit.replaced:
            return self
        token = {"pad": PAD, "unknown": UNKNOWN}[edit.replace_by or "pad"]
        other = self.with_tokens_at(edit.replaced, lambda tokens: np.full(len(tokens), token))
        object.__setattr__(other, "replaced", edit.replaced)
        return other

    def with_tokens_at(
        self, replaced: tuple[tuple[int, tuple[int, ...]], ...], change: Callable[[np.ndarray], np.ndarray]
    ) -> TokenTask:
        """Return the same task in which `change` is applied to the tokens at these positions of train rows."""
        tokens, train = [row.copy() for row in self.tokens["train"]], self.splits["train"]
        for row, (_, positions) in zip(train.rows_of([i for i, _ in replaced]), replaced, strict=True):
            tokens[row][list(positions)] = change(tokens[row][list(positions)])
        return replace(self, tokens={**self.tokens, "train": tuple(tokens)})

    def with_noise_in(self, ids: np.ndarray, seed: int = 0) -> TokenTask:
        """Return the same task with other tokens (three times as many), labels and confounds in the train rows `ids`."""
        random, train = np.random.default_rng(seed), self.splits["train"]
        rows, tokens, labels = train.rows_of(ids), list(self.tokens["train"]), train.labels.copy()
        longest = max(map(len, tokens))
        for row in rows:
            tokens[row] = _row(random.integers(4, self.vocabulary_size, 3 * longest))
        labels[rows] = (labels[rows] + 1) % len(train.classes)
        confounds = np.array(train.confounds)
        confounds[rows] = (confounds[rows] + 1) % len(train.confound_names)
        splits = {**self.splits, "train": _split(train.ids, labels, train.classes, tokens, confounds)}
        return replace(self, splits=splits, tokens={**self.tokens, "train": tuple(tokens)})


class NamelessTask(Task):
    """A task for tests of gradients, which use no identity and record nothing."""

    def train_identity(self) -> dict[str, Any]:
        return {}

    def model_identity(self) -> dict[str, Any]:
        return {}

    def record_identity(self) -> dict[str, Any]:
        return {}

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        with torch.no_grad():
            return self.logits(network, self.batch(split, rows, device=device)).float().cpu().numpy()


def token_task(
    model: Any,
    recipe: Any,
    *,
    n_train: int = 24,
    n_test: int = 6,
    n_classes: int = 3,
    vocabulary_size: int = 40,
    max_tokens: int = 9,
    seed: int = 0,
    base_state: Mapping[str, np.ndarray] | None = None,
) -> TokenTask:
    """Return a task whose label can be read from the tokens: rows of class c favour ids that are c modulo `n_classes`.

    Example ids are not positions. Every example has one of two confounds, drawn independently of the labels.
    """
    random, splits, tokens = np.random.default_rng(seed), {}, {}
    confounds = np.random.default_rng([seed, 1])
    for name, n, first_id in (("train", n_train, 100), ("test", n_test, 5000)):
        labels = random.integers(0, n_classes, n)
        rows = [_row(_content(random, label, n_classes, vocabulary_size, max_tokens)) for label in labels]
        ids = first_id + random.permutation(n)
        classes = tuple(f"class{c}" for c in range(n_classes))
        splits[name] = _split(ids, labels, classes, rows, confounds.integers(0, 2, n))
        tokens[name] = tuple(rows)
    return TokenTask(model, recipe, splits, {"test": np.arange(n_test)}, tokens, vocabulary_size, base_state)


def _content(
    random: np.random.Generator, label: int, n_classes: int, vocabulary_size: int, max_tokens: int
) -> np.ndarray:
    ids = random.integers(4, vocabulary_size, random.integers(1, max_tokens + 1))
    telling = random.random(len(ids)) < 0.7
    own = np.arange(4, vocabulary_size)[np.arange(4, vocabulary_size) % n_classes == label]
    return np.where(telling, random.choice(own, len(ids)), ids)


def _row(content: np.ndarray) -> np.ndarray:
    return np.concatenate([[START], content, [END]])


def _split(
    ids: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], rows: list[np.ndarray], confounds: np.ndarray
) -> Split:
    texts = tuple(" ".join(map(str, row)) for row in rows)
    return Split(
        np.asarray(ids, np.int64),
        np.asarray(labels, np.int64),
        classes,
        texts,
        confounds=np.asarray(confounds, np.int64),
        confound_names=("first", "second"),
    )


def tiny_bert(directory: Path, *, vocabulary_size: int = 40, layers: int = 2, seed: int = 0) -> Path:
    """Save a random BERT encoder of width 16 with its word-piece tokeniser, as safetensors; return `directory`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from tasks.models.pretrained import quiet_transformers

    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(4, vocabulary_size))]
    fast = Tokenizer(models.WordPiece({word: position for position, word in enumerate(words)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.BertProcessing(("[SEP]", END), ("[CLS]", START))
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(directory)
        PreTrainedTokenizerFast(
            tokenizer_object=fast, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
        ).save_pretrained(directory)
    return directory
