"""A task in memory: random token texts, and a convolutional network or a tiny BERT."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import nn

from influence.checkpoint import Checkpoint, QueryBlock
from tasks.base import Split
from tasks.model import Model
from tasks.task import MASKED
from tests.fakes import NamelessTask

PAD, START, END = 0, 1, 2
CLASSES = ("a", "b", "c")


class SmallCNN(Model):
    """Embedding, two convolutions (valid and dilated same), maximum over real positions, linear."""

    name = "small_cnn"

    def build(self, vocabulary: int) -> nn.Module:
        return nn.ModuleDict(
            {
                "embedding": nn.Embedding(vocabulary, 6),
                "conv1": nn.Conv1d(6, 5, 3, padding=1),
                "conv2": nn.Conv1d(5, 4, 2, padding="same", dilation=2),
                "linear": nn.Linear(4, len(CLASSES)),
            }
        )

    def forward(self, network, batch):
        real = batch["attention_mask"].unsqueeze(1)
        hidden = network["embedding"](batch["input_ids"]).transpose(1, 2) * real
        for name in ("conv1", "conv2"):
            hidden = torch.tanh(network[name](hidden)) * real
        return network["linear"](hidden.masked_fill(real == 0, -torch.inf).amax(2))

    def embedding_module(self, network) -> str:
        return "embedding"

    def last_module(self, network) -> str:
        return "linear"

    def layer_modules(self, network) -> list[str]:
        return ["embedding", "conv1", "conv2", "linear"]


class SmallBert(Model):
    """A Hugging Face BERT with two layers and random weights."""

    name = "small_bert"

    def build(self, vocabulary: int) -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=10,
            max_position_embeddings=32,
            num_labels=len(CLASSES),
            pad_token_id=PAD,
        )
        return BertForSequenceClassification(config)

    def forward(self, network, batch):
        return network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].long()).logits

    def embedding_module(self, network) -> str:
        return "bert.embeddings.word_embeddings"

    def last_module(self, network) -> str:
        return "classifier"

    def layer_modules(self, network) -> list[str]:
        return ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler", "classifier"]


@dataclass
class SmallTask(NamelessTask):
    """Random texts of random length, whose ids are not positions."""

    model: object
    n_train: int = 30
    n_test: int = 9
    vocabulary: int = 20
    dtype: torch.dtype = torch.float32
    longest: int = 12

    def __post_init__(self):
        rng = np.random.default_rng(7)
        self.recipe, self.tokens, self.splits = None, {}, {}
        for split, n in (("train", self.n_train), ("test", self.n_test)):
            texts = [rng.integers(3, self.vocabulary, rng.integers(1, self.longest)).tolist() for _ in range(n)]
            self.tokens[split] = [[START, *text, END] for text in texts]
            ids, labels = rng.permutation(10 * n)[:n] + 100, rng.integers(0, len(CLASSES), n)
            words = tuple(" ".join(f"w{token}" for token in text) for text in texts)
            self.splits[split] = Split(ids, labels, CLASSES, words)
        self.measured = {"test": np.arange(self.n_test)}

    special_ids = frozenset({PAD, START, END})

    def network(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.model.build(self.vocabulary).to(self.dtype)

    def batch(self, split, rows, *, blank=None, device="cpu"):
        texts = [self.tokens[split][row] for row in rows]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [PAD] * (longest - len(text)) for text in texts], device=device)
        labels = torch.tensor(self.splits[split].labels[rows], device=device)
        mask = (ids != PAD).to(self.dtype)
        if split == MASKED:
            mask[torch.arange(len(texts)), torch.as_tensor(self.masked[rows])] = 0
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def row_lengths(self, split, rows, blank):
        return np.array([len(self.tokens[split][row]) for row in rows])

    def logits(self, network, batch):
        return self.model.forward(network, batch)

    def losses(self, network, batch):
        return torch.nn.functional.cross_entropy(self.logits(network, batch), batch["labels"], reduction="none")

    def with_masked(self, split, rows, positions):
        given, other = self.splits[split], copy.copy(self)
        masked = Split(np.arange(len(rows)), given.labels[rows], given.classes)
        other.splits = {**self.splits, MASKED: masked}
        other.tokens = {**self.tokens, MASKED: [self.tokens[split][row] for row in rows]}
        other.masked = np.asarray(positions)
        return other

    def token_spans(self, split, row):
        spans, start = [], 0
        for token in self.tokens[split][row]:
            length = 0 if token in self.special_ids else len(f"w{token}")
            spans.append((start, start + length, token) if length else (0, 0, token))
            start += length + (1 if length else 0)
        return spans

    def token_text(self, token_id):
        return f"w{token_id}"

    def token_counts(self, split):
        counts = np.stack([np.bincount(text, minlength=self.vocabulary) for text in self.tokens[split]])
        return csr_matrix(counts)

    def word_tokens(self, word):
        token = int(word.removeprefix("w")) if word.removeprefix("w").isdecimal() else self.vocabulary
        if not END < token < self.vocabulary:
            raise ValueError(f"{word!r} is not in the vocabulary of the tokenizer")
        return frozenset({token})

    def named_scores(self, name):
        if name != "oracle":
            raise KeyError(f"{name!r} is not one of oracle")
        train, test = self.splits["train"], self.splits["test"]
        return np.equal.outer(test.labels, train.labels).astype(np.float32), test.ids, train.ids


def checkpoint(task: SmallTask, seed: int = 0, step: int = 1, weight: float = 1.0, spec_id: str = "m0") -> Checkpoint:
    """Return the weights of a fresh network."""
    state = {name: tensor.numpy() for name, tensor in task.network(seed).state_dict().items()}
    return Checkpoint(spec_id, step, weight, weight, state)


def query_block(task: SmallTask, rows=(4, 0, 7)) -> QueryBlock:
    """Return some test rows as queries with their gold labels."""
    rows, split = np.asarray(rows), task.splits["test"]
    return QueryBlock("test", split.ids[rows], rows, split.labels[rows])


def autograd_gradients(task: SmallTask, state: Checkpoint, split: str, rows, labels) -> list[dict[str, torch.Tensor]]:
    """Return dense gradients of -log p(label) for every parameter, one example at a time, which the shards must equal."""
    from influence.gradients import loaded

    network = loaded(task.network(0), state).requires_grad_(True)
    parameters = dict(network.named_parameters())
    found = []
    for row, label in zip(rows, labels, strict=True):
        logits = task.logits(network, task.batch(split, [row]))
        loss = -torch.log_softmax(logits, 1)[0, int(label)]
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        found.append(
            {
                n: torch.zeros_like(p) if g is None else g
                for (n, p), g in zip(parameters.items(), gradients, strict=True)
            }
        )
    return found


def autograd_scores(task: SmallTask, state: Checkpoint, queries: QueryBlock, names) -> np.ndarray:
    """Return inner products of those gradients over the parameters called `names`: float64 [n_queries, n_train]."""
    labels = task.splits["train"].labels
    ours = autograd_gradients(task, state, queries.split, queries.rows, queries.labels)
    theirs = autograd_gradients(task, state, "train", range(len(labels)), labels)
    flat = [torch.stack([torch.cat([g[n].flatten() for n in names]) for g in side]).double() for side in (ours, theirs)]
    return (flat[0] @ flat[1].T).numpy()
