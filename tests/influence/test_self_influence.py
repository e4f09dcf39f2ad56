"""The influence of examples on themselves, and which methods are inner products."""

import numpy as np
import pytest
from small_task import SmallBert, SmallCNN, SmallTask, checkpoint

from influence.checkpoint import QueryBlock
from influence.diagnostics.mislabel_clusters import influence_distance
from influence.methods.gradient_cosine import GradientCosine
from influence.methods.self_influence import SelfInfluence
from influence.methods.tracin import TracIn
from influence.methods.tracin_last import TracInLast
from influence.methods.tracin_we import TracInWE
from influence.methods.tracin_we_topk import TracInWETopK
from influence.registry import METHODS
from influence.scoring import Scorer

INNER = {
    "tracin": TracIn(bias=True),
    "second": TracIn(layers="second"),
    "gradient_cosine": GradientCosine(),
    "tracin_last": TracInLast(),
    "tracin_we": TracInWE(),
    "tracin_we_topk": TracInWETopK(k=3),
}
N = 30


def train_queries(task: SmallTask) -> QueryBlock:
    split = task.splits["train"]
    return QueryBlock("train", split.ids, np.arange(N), split.labels)


def scores(task: SmallTask, methods: dict, size: int = N) -> dict[str, np.ndarray]:
    queries = train_queries(task)
    prepared = {label: method.prepare(task, None, queries) for label, method in methods.items()}
    points = [checkpoint(task, seed, step=seed, weight=0.1) for seed in (1, 2)]
    scorer = Scorer(task, points, queries, methods, prepared, batch_size=7)
    parts = [scorer.score_range(start, min(start + size, N)) for start in range(0, N, size)]
    return {label: np.concatenate([part[label] for part in parts], axis=1) for label in methods}


@pytest.fixture(scope="module", params=[SmallCNN(), SmallBert()], ids=lambda model: model.name)
def found(request) -> dict[str, np.ndarray]:
    both = {**INNER, **{f"{label} itself": SelfInfluence(of=method) for label, method in INNER.items()}}
    return scores(SmallTask(request.param), both)


@pytest.mark.parametrize("label", INNER)
def test_self_influence_is_the_diagonal_of_the_scores_on_the_train_set(found, label):
    itself = found[f"{label} itself"]
    np.testing.assert_allclose(itself[0], np.diagonal(found[label]), rtol=1e-4)
    assert (itself == itself[0]).all()
    assert (itself >= 0).all()


@pytest.mark.parametrize("label", INNER)
def test_a_method_that_says_so_is_an_inner_product(found, label):
    assert INNER[label].is_inner_product
    distance = influence_distance(found[label])
    assert 0 <= distance.min() <= distance.max() <= 2


def test_every_method_that_says_that_it_is_an_inner_product_is_tested_here():
    registered = {name for name in METHODS.entries() if METHODS.load(name, "test").is_inner_product}
    assert registered == INNER.keys() - {"second"}


def test_shards_and_the_name_of_the_method_give_the_same_self_influence():
    task = SmallTask(SmallCNN())
    whole, parts = (scores(task, {"a": SelfInfluence(of=TracInWE())}, size) for size in (N, 8))
    np.testing.assert_allclose(whole["a"], parts["a"], rtol=1e-5)


def test_options_of_the_method_are_in_its_identity(tmp_path):
    one, other = (SelfInfluence(of=TracInWE(tokens=tokens)).options_identity(tmp_path) for tokens in ("all", "content"))
    assert one != other
    assert SelfInfluence(of=TracInWE(checkpoints="last")).takes_last_checkpoint()
    assert not SelfInfluence(of=TracInWE(learning_rate_weights=False)).weighs_by_learning_rate()
