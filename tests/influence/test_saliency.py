"""Saliency against its closed form on a linear network, and against finite differences of the loss on a BERT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_task import CLASSES, SmallBert, SmallTask, checkpoint, query_block
from torch import nn

from influence.diagnostic import ScoredModels
from influence.diagnostics.saliency import Saliency
from influence.gradients import loaded
from influence.saliency import class_probabilities, normalised, token_saliency
from tasks.model import Model


class Bag(Model):
    """logits = W (sum of the embeddings of the real positions) + b."""

    name = "bag"

    def build(self, vocabulary: int) -> nn.Module:
        return nn.ModuleDict({"embedding": nn.Embedding(vocabulary, 6), "linear": nn.Linear(6, len(CLASSES))})

    def forward(self, network, batch):
        return network["linear"](
            (network["embedding"](batch["input_ids"]) * batch["attention_mask"][:, :, None]).sum(1)
        )

    def embedding_module(self, network) -> str:
        return "embedding"


ROWS = np.array([4, 0, 7, 2])
LABELS = np.array([1, 0, 2, 2])


def test_on_a_linear_network_it_is_the_closed_form():
    """d l / d e_t = W^T (p - onehot) at every real position."""
    task = SmallTask(Bag(), dtype=torch.float64)
    point = checkpoint(task, 3)
    weights, words = point.state["linear.weight"], point.state["embedding.weight"]
    found = token_saliency(task, [point], "test", ROWS, LABELS)
    for row, label, values in zip(ROWS, LABELS, found, strict=True):
        tokens = task.tokens["test"][row]
        logits = weights @ words[tokens].sum(0) + point.state["linear.bias"]
        p = np.exp(logits) / np.exp(logits).sum()
        expected = -words[tokens] @ (weights.T @ (p - np.eye(len(CLASSES))[label]))
        np.testing.assert_allclose(values[: len(tokens)], expected, rtol=1e-12)
        assert (values[len(tokens) :] == 0).all(), "padding has no saliency"


def test_it_is_minus_the_change_of_the_loss_when_an_embedding_grows():
    """The loss with e_t (1 + h) in place of e_t changes by h grad . e_t = -h saliency_t, in float64."""
    task = SmallTask(SmallBert(), dtype=torch.float64)
    point = checkpoint(task, 1)
    row, label, h = 4, 2, 1e-4
    [values] = token_saliency(task, [point], "test", np.array([row]), np.array([label]))
    network, batch = loaded(task.network(0), point), task.batch("test", [row])
    embedding = network.get_submodule(task.model.embedding_module(network))

    def loss(position, factor):
        def grown(module, args, output):
            return torch.cat([output[:, :position], output[:, position : position + 1] * factor, output[:, position + 1 :]], 1)  # fmt: skip

        handle = embedding.register_forward_hook(grown)
        try:
            with torch.no_grad():
                return -float(torch.log_softmax(task.logits(network, batch), 1)[0, label])
        finally:
            handle.remove()

    numeric = [-(loss(t, 1 + h) - loss(t, 1 - h)) / (2 * h) for t in range(len(values))]
    np.testing.assert_allclose(values, numeric, rtol=1e-5, atol=1e-10)
    assert np.abs(values).max() > 1e-3


def test_it_does_not_depend_on_the_batch_and_is_the_mean_over_models():
    task = SmallTask(SmallBert(), dtype=torch.float64)
    points = [checkpoint(task, seed, spec_id=f"m{seed}") for seed in (1, 2)]
    both = token_saliency(task, points, "test", ROWS, LABELS)
    each = [token_saliency(task, [point], "test", ROWS, LABELS, batch_size=1) for point in points]
    for place, row in enumerate(ROWS):
        n = len(task.tokens["test"][row])
        expected = (each[0][place][:n] + each[1][place][:n]) / 2
        np.testing.assert_allclose(both[place][:n], expected, rtol=1e-8, atol=1e-14)


def test_the_norm_is_one_and_zeros_stay_zero():
    assert normalised(np.array([3.0, -1.0, 0.0])).tolist() == [0.75, -0.25, 0.0]
    assert normalised(np.zeros(3)).tolist() == [0, 0, 0]


def rows_of(table):
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


@pytest.mark.parametrize("of_label", ["predicted", "query"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_tables_hold_the_saliency_of_every_token(of_label, normalise):
    task = SmallTask(Bag(), dtype=torch.float64)
    points, queries = [checkpoint(task, 5, spec_id=f"m{n}", step=n) for n in (1, 2)], query_block(task)
    found = Saliency(of_label=of_label, normalise=normalise).compute(ScoredModels(task, points, queries))
    labels = queries.labels
    if of_label == "predicted":
        labels = class_probabilities(task, points, "test", queries.rows).argmax(1)
        logits = task.outputs(loaded(task.network(0), points[0]), "test", queries.rows)
        assert labels.tolist() == logits.argmax(1).tolist()
    expected = token_saliency(task, points[:1], "test", queries.rows, labels)
    whole, tokens = (rows_of(found[name]) for name in ("", "tokens"))
    for place, (query_id, row) in enumerate(zip(queries.ids.tolist(), queries.rows, strict=True)):
        mine = [one for one in tokens if one["query_id"] == query_id]
        ids = task.tokens["test"][row]
        assert [one["token"] for one in mine] == [f"w{token}" for token in ids]
        values = expected[place][: len(ids)]
        values = values / np.abs(values).sum() if normalise else values
        np.testing.assert_allclose([one["saliency"] for one in mine], values, rtol=1e-12)
        assert [one["begins_word"] for one in mine] == [False, *[True] * (len(ids) - 2), False]
        text = task.splits["test"].texts[row]
        assert [text[one["start"] : one["end"]] for one in mine[1:-1]] == [f"w{token}" for token in ids[1:-1]]
        assert whole[place]["label"] == CLASSES[labels[place]]
        assert whole[place]["highest_saliency"] == pytest.approx(values.max())
        assert whole[place]["lowest_token"] == f"w{ids[values.argmin()]}"
