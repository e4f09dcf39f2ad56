"""Methods against gradients that autograd forms densely, one example at a time."""

import numpy as np
import pytest
import torch
from small_task import SmallBert, SmallCNN, SmallTask, autograd_scores, checkpoint, query_block

from influence.methods.tfidf import TfIdf
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.methods.tracin_we import TracInWE
from influence.methods.tracin_we_topk import TracInWETopK
from influence.scoring import Scorer

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-6}  # scores leave as float32


def score(task, method, checkpoints, queries=None, **options):
    queries = queries or query_block(task)
    prepared = {"m": method.prepare(task, None, queries)}
    return Scorer(task, checkpoints, queries, {"m": method}, prepared, **options).score_range(
        0, len(task.splits["train"])
    )["m"]


def weights(task, *, bias=False):
    return [n for n, _ in task.network(0).named_parameters() if bias or not n.endswith("bias")]


def assert_close(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.fixture(params=[SmallCNN, SmallBert], ids=["cnn", "bert"])
def model(request):
    return request.param()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tracin_we_equals_dense_embedding_gradients(model, dtype):
    task = SmallTask(model, dtype=dtype)
    point = checkpoint(task)
    name = model.embedding_module(None) + ".weight"
    assert_close(
        score(task, TracInWE(), [point]), autograd_scores(task, point, query_block(task), [name]), DTYPES[dtype]
    )


@pytest.mark.parametrize("bias", [False, True])
def test_tracin_last_equals_autograd(model, bias):
    task = SmallTask(model)
    point = checkpoint(task)
    names = [f"{model.last_module(None)}.{kind}" for kind in ("weight", "bias")[: 1 + bias]]
    expected = autograd_scores(task, point, query_block(task), names)
    assert_close(score(task, TracInLast(bias=bias), [point]), expected, 1e-5)
    assert_close(score(task, TracIn(layers="last", bias=bias), [point]), expected, 1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tracin_all_equals_autograd(model, dtype, bias):
    task = SmallTask(model, dtype=dtype)
    point = checkpoint(task)
    expected = autograd_scores(task, point, query_block(task), weights(task, bias=bias))
    assert_close(score(task, TracIn(bias=bias), [point]), expected, DTYPES[dtype])


@pytest.mark.parametrize(
    ("layers", "prefixes"),
    [
        ("first", ["embedding."]),
        ("second", ["conv1."]),
        ("third", ["conv2."]),
        (["conv*", "linear"], ["conv1.", "conv2.", "linear."]),
    ],
)
def test_tracin_layers_of_the_cnn_equal_autograd(layers, prefixes):
    task = SmallTask(SmallCNN())
    point = checkpoint(task)
    names = [n for n in weights(task) if n.startswith(tuple(prefixes))]
    assert_close(
        score(task, TracIn(layers=layers), [point]), autograd_scores(task, point, query_block(task), names), 1e-5
    )


@pytest.mark.parametrize(
    ("layers", "prefix"),
    [
        ("second", "bert.embeddings."),
        ("third", "bert.encoder.layer.0."),
        (["*.attention.self.query"], "query"),
        (["*LayerNorm"], "LayerNorm"),
        (["*position_embeddings"], "position_embeddings"),
    ],
)
def test_tracin_layers_of_bert_equal_autograd(layers, prefix):
    task = SmallTask(SmallBert())
    point = checkpoint(task)
    names = [n for n in weights(task) if prefix in n and "word_embeddings" not in n]
    assert_close(
        score(task, TracIn(layers=layers), [point]), autograd_scores(task, point, query_block(task), names), 1e-5
    )


def test_tracin_first_is_tracin_we(model):
    task = SmallTask(model)
    points = [checkpoint(task, seed, step=seed, weight=0.1 * (seed + 1)) for seed in (1, 2)]
    assert_close(score(task, TracIn(layers="first"), points), score(task, TracInWE(), points), 1e-6)


def test_checkpoints_add_up_with_their_weights():
    task = SmallTask(SmallCNN())
    a, b = (checkpoint(task, seed, step=seed, weight=w, spec_id="m") for seed, w in ((1, 0.3), (2, 0.05)))
    alone = [score(task, TracIn(learning_rate_weights=False), [c]) for c in (a, b)]
    assert_close(score(task, TracIn(), [a, b]), 0.3 * alone[0] + 0.05 * alone[1], 1e-5)
    assert_close(score(task, TracIn(learning_rate_weights=False), [a, b]), alone[0] + alone[1], 1e-5)
    assert_close(score(task, TracIn(checkpoints="last"), [b, a]), alone[1], 1e-5)


def test_last_checkpoints_of_several_models_are_averaged():
    task = SmallTask(SmallCNN())
    points = [
        checkpoint(task, seed, step=step, weight=0.1, spec_id=spec)
        for seed, step, spec in ((1, 1, "x"), (2, 5, "x"), (3, 4, "y"))
    ]
    alone = [score(task, TracInLast(checkpoints="last"), [c]) for c in points]
    assert_close(score(task, TracInLast(checkpoints="last"), points), (alone[1] + alone[2]) / 2, 1e-5)


def test_a_learning_rate_of_zero_everywhere_is_refused():
    task = SmallTask(SmallCNN())
    with pytest.raises(ValueError, match="learning_rate_weights"):
        score(task, TracIn(), [checkpoint(task, weight=0.0)])


def test_special_and_content_tokens_split_the_score(model):
    task = SmallTask(model)
    point = checkpoint(task)
    parts = [score(task, TracInWE(tokens=tokens), [point]) for tokens in ("special", "content")]
    assert all(np.abs(part).max() > 0 for part in parts)
    assert_close(sum(parts), score(task, TracInWE(), [point]), 1e-5)


def test_topk_with_all_positions_is_tracin_we(model):
    task = SmallTask(model)
    point = checkpoint(task)
    assert_close(score(task, TracInWETopK(k=99), [point]), score(task, TracInWE(), [point]), 1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_topk_keeps_the_positions_with_the_largest_gradients_at_each_checkpoint(k):
    """Against a plain loop over positions, with gradients of inputs_embeds formed one example at a time."""
    task = SmallTask(SmallCNN(), n_train=8)
    points, queries = [checkpoint(task, seed, step=seed, weight=0.5) for seed in (1, 2)], query_block(task)
    expected = np.zeros((len(queries.rows), 8))
    for point in points:
        ours = [
            _strongest(task, point, "test", row, label, k)
            for row, label in zip(queries.rows, queries.labels, strict=True)
        ]
        theirs = [_strongest(task, point, "train", row, task.splits["train"].labels[row], k) for row in range(8)]
        for q, a in enumerate(ours):
            for i, b in enumerate(theirs):
                expected[q, i] += 0.5 * sum(float(g @ h) for w, g in a for v, h in b if w == v)
    assert_close(score(task, TracInWETopK(k=k), points), expected, 1e-5)


def _strongest(task, point, split, row, label, k):
    from influence.gradients import loaded

    network = loaded(task.network(0), point)
    batch, held = task.batch(split, [row]), {}
    network["embedding"].register_forward_hook(lambda m, a, out: held.setdefault("out", out.requires_grad_()))
    loss = -torch.log_softmax(task.logits(network, batch), 1)[0, int(label)]
    gradients = torch.autograd.grad(loss, held["out"])[0][0]
    order = torch.argsort(-gradients.norm(dim=1))[:k]
    return [(int(batch["input_ids"][0, p]), gradients[p]) for p in order]


def test_tfidf_is_cosine_times_logit_gradient_product():
    task = SmallTask(SmallCNN())
    point, queries = checkpoint(task), query_block(task)
    counts = task.token_counts("train").toarray()[:, 3:].astype(float)
    idf = np.log((1 + len(counts)) / (1 + (counts > 0).sum(0))) + 1
    train, asked = (
        x * idf / np.linalg.norm(x * idf, axis=1, keepdims=True)
        for x in (counts, task.token_counts("test").toarray()[queries.rows, 3:])
    )
    bias = autograd_scores(task, point, queries, ["linear.bias"])  # d loss / d bias is d loss / d logits
    assert_close(score(task, TfIdf(), [point]), (asked @ train.T) * bias, 1e-5)


def test_scores_follow_the_labels_of_the_queries():
    from dataclasses import replace

    task = SmallTask(SmallCNN())
    point, queries = checkpoint(task), query_block(task)
    other = replace(queries, labels=(queries.labels + 1) % 3)
    assert_close(score(task, TracIn(), [point], other), autograd_scores(task, point, other, weights(task)), 1e-5)
    assert np.abs(score(task, TracIn(), [point], other) - score(task, TracIn(), [point])).max() > 1e-3


def test_all_leaves_out_what_is_not_trained():
    class Frozen(SmallCNN):
        def build(self, vocabulary):
            network = super().build(vocabulary)
            network["conv1"].requires_grad_(False)
            return network

    task = SmallTask(Frozen())
    point = checkpoint(task)
    names = [n for n in weights(task) if not n.startswith("conv1")]
    assert_close(score(task, TracIn(), [point]), autograd_scores(task, point, query_block(task), names), 1e-5)
