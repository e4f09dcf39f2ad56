"""Gradients and scores of an encoder on pairs of texts use the token types that it is trained with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from influence.checkpoint import Checkpoint
from influence.gradients import GradientSource
from influence.methods.tfidf import _words
from tasks.models.encoder import Encoder
from tests.fakes import tiny_bert
from tests.pair_tasks import pair_task

TYPES = "bert.embeddings.token_type_embeddings"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return pair_task(Encoder(pretrained=str(tiny_bert(folder)), max_length=32, num_layers=1), None)


@pytest.fixture(scope="module")
def network(task):
    return task.network(3).double().eval()


def test_gradients_of_single_examples_are_those_of_autograd(task, network):
    """For the word embedding (per position, summed by token), the token types and the last layer, in float64."""
    checkpoint = Checkpoint("s", 1, 1, 1.0, {name: weight.numpy() for name, weight in network.state_dict().items()})
    source = GradientSource(task, network, [checkpoint], frozenset({"embedding", "layers", "last"}), frozenset({TYPES}))
    rows = np.array([0, 3, 7])
    shard = source.shard("train", rows, task.splits["train"].labels[rows]).checkpoints[0]
    weights = dict(network.named_parameters())
    assert shard.embedding is not None
    assert shard.last is not None
    for position in range(len(rows)):
        loss = task.losses(network, task.batch("train", rows[position : position + 1])).sum()
        words, types, last = torch.autograd.grad(
            loss, [weights[f"{name}.weight"] for name in ("bert.embeddings.word_embeddings", TYPES, "classifier")]
        )
        for found, expected in ((shard.embedding, words), (shard.layers[TYPES], types)):
            dense = torch.zeros_like(expected)
            mine = found.rows == position  # type: ignore[union-attr]
            dense.index_add_(0, found.tokens[mine], found.vectors[mine])  # type: ignore[union-attr]
            torch.testing.assert_close(dense, expected, rtol=1e-9, atol=1e-12)
        outer = torch.outer(shard.last.logit_gradients[position], shard.last.activations[position])
        torch.testing.assert_close(outer, last, rtol=1e-9, atol=1e-12)
        assert types[1].abs().max() > 0, "the second segment has type 1"


def test_types_reach_the_network_and_change_its_logits(task, network):
    batch = task.batch("train", np.arange(4))
    plain = {**batch, "token_type_ids": torch.zeros_like(batch["token_type_ids"])}
    expected = network(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"].long(),
        token_type_ids=batch["token_type_ids"],
    )
    torch.testing.assert_close(task.logits(network, batch), expected.logits, rtol=0, atol=0)
    assert (task.logits(network, batch) - task.logits(network, plain)).abs().max() > 1e-6


def test_word_counts_hold_both_segments_and_no_special_token(task):
    counts = _words(task, "train")
    texts = task.splits["train"].segments()
    assert counts.sum(1).A1.tolist() == [sum(len(part.split()) for part in pair) for pair in texts]
