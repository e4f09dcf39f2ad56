"""Closed-form gradients against autograd, sparse updates against torch's optimisers, and what removals may change."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.base import Numerics
from tasks.data.corpus import Corpus, Sentences, Vocabulary
from tasks.data.edits import Edit
from tasks.models.skip_gram import PairLoss, SkipGram
from tasks.recipe import Training
from tasks.recipes.sgns import Skipgrams, Updates
from tasks.recipes.skip_gram import SkipGramTraining
from tasks.word_vectors import WordVectorTask
from tests.edits import reweighting
from tests.word_fakes import parent_of, word_task

DOUBLE = Numerics(dtype="float64")
PUBLISHED = {
    "optimizer": "adam",
    "loss": "code",
    "reduction": "mean",
    "dynamic_window": False,
    "window_shape": "published",
    "negatives": 10,
    "noise_power": 1.0,
    "subsample": 0.0,
}


def recipe_of(**options):
    plain = {"epochs": 2, "batch_sentences": 5, "window": 3, "subsample": 0.0, "max_uses": 1e9}
    return SkipGramTraining(**{**plain, **options})


def network_of(task, seed=1):
    """Vectors of both kinds at random, float64."""
    network = task.network(seed).double()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in parent_of(task, seed).items()})
    with torch.no_grad():
        network["input"].weight.mul_(20)  # scores of order one: slopes that differ
    return network


def weights_of(task, network, edit=None, seed=3, **options):
    trained = task.recipe.train(
        task, Training(edit=edit or Edit(), seed=seed, numerics=DOUBLE, parent=state_of(network), **options)
    )
    return {name: weight.numpy() for name, weight in trained.network.state_dict().items()}


def state_of(network):
    return {name: weight.detach().numpy().copy() for name, weight in network.state_dict().items()}


SENTENCE_WEIGHTS = np.array([1.0, 0.5, -1.0, 2.0, 0.0, 1.0], np.float32)


def objective(task, network, rows, mean):
    """sum(w l), over max(sum |w|, 1) with `mean`, by the task's own losses; float64. Also sum w and sum |w|."""
    batch = task.batch("train", rows)
    weights = torch.from_numpy(SENTENCE_WEIGHTS).double()
    pair_weight = float((weights[batch["owners"]] * batch["positive"]).sum())
    total = (task.losses(network, batch) * weights).sum()
    size = float((weights.abs()[batch["owners"]] * batch["positive"]).sum())
    return (total / max(size, 1.0) if mean else total), pair_weight, size


def batch_gradient(task, network, rows, mean):
    kernel = Skipgrams(network, PairLoss(task.recipe.loss), task.recipe.negatives)
    pairs = task._sampler.sample(task.corpus.sentences, rows, task.corpus.ids[rows], task._influence_key)
    return kernel.gradient(pairs, SENTENCE_WEIGHTS, mean=mean, with_loss=True)


@pytest.mark.parametrize("loss", ["word2vec", "code", "paper"])
@pytest.mark.parametrize("options", [{"negatives_per": "pair"}, {"negatives_per": "centre", "dynamic_window": False}])
@pytest.mark.parametrize("mean", [False, True])
def test_closed_form_gradients_are_those_of_the_task_loss(loss, options, mean):
    task = word_task(recipe_of(loss=loss, **options))
    network, rows = network_of(task), np.array([5, 0, 7, 3, 2, 11])
    value, weight, size = objective(task, network, rows, mean)
    expected = torch.autograd.grad(value, [network["input"].weight, network["output"].weight])
    found = batch_gradient(task, network, rows, mean)
    assert (found.weight, found.size) == pytest.approx((weight, size))
    assert found.loss / (max(size, 1.0) if mean else 1.0) == pytest.approx(value.item())
    dense = [np.zeros(gradient.shape) for gradient in expected]
    found.add_to(*dense, factor=1.0)
    for one, other, (by_row, values) in zip(dense, expected, found.by_row(len(dense[0])), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-12)
        np.testing.assert_allclose(values.numpy(), one[by_row.numpy()], atol=1e-14)
        untouched = np.delete(np.arange(len(one)), by_row.numpy())
        assert not one[untouched].any()


@pytest.mark.parametrize(
    ("name", "closed_form"),
    [
        ("word2vec", lambda s, n: -np.log(s) - sum(np.log(1 - n))),
        ("code", lambda s, n: -(np.log(s) + np.mean(np.log(1 - n))) / 2),
        ("paper", lambda s, n: np.mean(n) - s),
    ],
)
def test_losses_of_one_pair_are_the_published_ones(name, closed_form):
    scores, positive = np.array([0.7, -1.2, 0.3, 2.0]), np.array([True, False, False, False])
    loss, s = PairLoss(name), 1 / (1 + np.exp(-scores))
    factors = np.where(positive, *loss.factors(3))
    assert (factors * loss.terms(scores, positive)[0]).sum() == pytest.approx(closed_form(s[0], s[1:]))
    tensor = loss.term_tensor(torch.from_numpy(scores), torch.from_numpy(positive))
    np.testing.assert_allclose(tensor.numpy(), loss.terms(scores, positive)[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["word2vec", "code", "paper"])
def test_large_scores_neither_overflow_nor_warn(name):
    terms, slopes = PairLoss(name).terms(np.array([900.0, -900.0], np.float32), np.array([True, True]))
    assert np.isfinite(terms).all()
    assert np.isfinite(slopes).all()


def updated(task, optimizer, n_updates=3, l2=0.0):
    """Weights after some updates on the first ten rows, rate 0.1, with the task's fixed pairs."""
    network, rows = network_of(task), np.arange(10)
    updates = Updates(network, task.recipe, optimizer, l2)
    pairs = task._sampler.sample(task.corpus.sentences, rows, task.corpus.ids[rows], task._influence_key)
    for _ in range(n_updates):
        updates.update(pairs, np.ones(10, np.float32), 10.0, 0.1, False)
    return [network[name].weight.detach() for name in ("input", "output")]


def updated_by_torch(task, make, l2=0.0, sparse=False, n_updates=3):
    network = network_of(task)
    optimizer = make([network["input"].weight, network["output"].weight])
    for _ in range(n_updates):
        optimizer.zero_grad()
        value = task.losses(network, task.batch("train", np.arange(10))).sum()
        penalty = sum(network[name].weight.square().sum() for name in ("input", "output"))
        (value + 10 * l2 / 2 * penalty).backward()
        if sparse:
            for parameter in network.parameters():
                rows = parameter.grad.abs().sum(1).nonzero().ravel()
                parameter.grad = torch.sparse_coo_tensor(rows[None], parameter.grad[rows], parameter.shape)
        optimizer.step()
    return [network[name].weight.detach() for name in ("input", "output")]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_updates_are_those_of_torch():
    task = word_task(recipe_of())
    assert_close(updated(task, "sgd"), updated_by_torch(task, lambda p: torch.optim.SGD(p, lr=0.1)))
    adam = updated_by_torch(task, lambda p: torch.optim.SparseAdam(p, lr=0.1), sparse=True)
    assert_close(updated(task, "adam"), adam)


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_vectors_that_many_pairs_use_move_by_a_part_of_the_step(l2):
    task = word_task(recipe_of(max_uses=20))
    found, start = updated(task, "sgd", n_updates=1, l2=l2), network_of(task)
    batch = task.batch("train", np.arange(10))
    full = updated_by_torch(task, lambda p: torch.optim.SGD(p, lr=0.1), l2=l2, n_updates=1)
    words = (batch["centres"][batch["positive"]], batch["targets"])
    for one, step, name, used in zip(found, full, ("input", "output"), words, strict=True):
        uses = torch.bincount(used, minlength=len(one))
        assert uses.min() < 20 < uses.max()
        before = start[name].weight.detach()
        expected = before + (step - before) * (20 / uses.clamp(min=20).double())[:, None]
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-12)


def test_large_batches_of_frequent_words_do_not_blow_up():
    corpus = twin_corpus(n=400)
    options = {"epochs": 10, "subsample": 0.0, "batch_sentences": 400, "learning_rate": 0.1}
    sizes = []
    for max_uses in (64, 1e9):
        task = WordVectorTask(corpus, [], ["a0"], SkipGram(dim=10), recipe_of(**options, max_uses=max_uses))
        network = task.recipe.train(task, Training(edit=Edit(), seed=1, numerics=Numerics())).network
        sizes.append(network["input"].weight.abs().max().item())
    assert sizes[0] < 5
    assert not sizes[1] < 1e3


def test_the_penalty_moves_all_rows():
    task = word_task(recipe_of())
    expected = updated_by_torch(task, lambda p: torch.optim.SGD(p, lr=0.1), l2=0.01)
    assert_close(updated(task, "sgd", l2=0.01), expected)
    eps = 1e-8 / (1 - 0.999) ** 0.5  # theirs is added after the bias correction, which is known for one update
    dense = updated_by_torch(task, lambda p: torch.optim.Adam(p, lr=0.1, eps=eps), l2=0.01, n_updates=1)
    assert_close(updated(task, "adam", l2=0.01, n_updates=1), dense)


def test_masking_and_dropping_the_same_rows_differ_by_the_batches_only():
    task = word_task(recipe_of(batch_sentences=24, epochs=1))
    network, edit = network_of(task), task.splits["train"].ids[[1, 4]]
    masked, dropped = (weights_of(task, network, Edit.removal(edit, mode)) for mode in ("mask", "drop"))
    for name, weight in masked.items():
        np.testing.assert_allclose(weight, dropped[name], atol=1e-13)


@pytest.mark.parametrize("options", [{}, PUBLISHED, {"negatives_per": "centre", "subsample": 0.01}])
def test_a_weight_of_minus_one_steps_away(options):
    task = word_task(recipe_of(batch_sentences=1, epochs=1, learning_rate=1e-4, **options), n_train=1)
    task.recipe.train(task, Training(edit=Edit(), seed=1, numerics=DOUBLE))
    network, first = network_of(task), int(task.splits["train"].ids[0])
    start = state_of(network)
    there, away = (weights_of(task, network, reweighting({first: weight})) for weight in (2.0, -2.0))
    moves = [(weights["input.weight"] - start["input.weight"]).ravel() for weights in (there, away)]
    assert np.abs(moves[0]).max() > 0
    assert moves[0] @ moves[1] < 0


def test_rates_fall_linearly_with_sgd_and_by_epochs_with_adam():
    sgd = recipe_of(learning_rate=0.025, min_learning_rate=0.005)
    assert [sgd.learning_rate_at(10, step) for step in (1, 2, 3, 4)] == pytest.approx([0.025, 0.02, 0.015, 0.01])
    adam = recipe_of(optimizer="adam", learning_rate=0.01)
    assert [adam.learning_rate_at(10, step) for step in (1, 2, 3, 4)] == pytest.approx([0.01, 0.01, 0.009, 0.009])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"decay_per_epoch": 0.5}, "decay_per_epoch is not an option of optimizer sgd"),
        ({"optimizer": "adam", "min_learning_rate": 0.0}, "min_learning_rate is not an option of optimizer adam"),
        ({"min_learning_rate": 0.5}, "above learning_rate"),
    ],
)
def test_options_of_the_other_optimizer_are_refused(options, problem):
    with pytest.raises(ValidationError, match=problem):
        recipe_of(**options)


def test_only_the_cpu_is_offered():
    task = word_task(recipe_of())
    with pytest.raises(ValueError, match="trains on the cpu"):
        task.recipe.train(task, Training(edit=Edit(), seed=1, numerics=Numerics(device="cuda")))


def test_drawing_pairs_in_smaller_groups_changes_no_bit(monkeypatch):
    task = word_task(recipe_of(batch_sentences=4))
    expected = weights_of(task, network_of(task))
    monkeypatch.setattr("tasks.recipes.skip_gram.GROUP", 1)
    assert all((weight == expected[name]).all() for name, weight in weights_of(task, network_of(task)).items())


def twin_corpus(n=600, seed=0):
    """Sentences about one of four topics; the words a0 and b0 of a topic stand in the same contexts, never together."""
    random = np.random.default_rng(seed)
    names = [f"{kind}{topic}" for kind in "ab" for topic in range(4)] + [
        f"c{topic}.{i}" for topic in range(4) for i in range(5)
    ]
    rows = []
    for _ in range(n):
        topic = random.integers(4)
        context = 8 + 5 * topic + random.permutation(5)[:4]
        rows.append([*context[:2], topic + 4 * random.integers(2), *context[2:]])
    counts = np.bincount(np.concatenate(rows), minlength=len(names))
    texts = tuple(" ".join(names[number] for number in row) for row in rows)
    return Corpus(np.arange(n), texts, Sentences.of(rows), Vocabulary(tuple(names), counts), {})


@pytest.mark.parametrize(
    "options",
    [{"epochs": 20, "subsample": 0.0}, {**PUBLISHED, "epochs": 10, "learning_rate": 0.01, "batch_sentences": 50}],
)
def test_words_in_the_same_contexts_become_neighbours(options):
    corpus = twin_corpus()
    task = WordVectorTask(corpus, [], ["a0"], SkipGram(dim=10), SkipGramTraining(**options))
    network = task.recipe.train(task, Training(edit=Edit(), seed=1, numerics=Numerics())).network
    found = task.neighbours(network, [f"a{topic}" for topic in range(4)], n=6)
    for topic, near in enumerate(found.values()):
        assert f"b{topic}" in [word for word, _ in near]
        assert all(word[1] == str(topic) for word, _ in near)
        assert [cosine for _, cosine in near] == sorted((cosine for _, cosine in near), reverse=True)


@pytest.mark.parametrize("mean", [False, True])
def test_stepping_away_from_a_sentence_is_minus_stepping_towards_it(mean):
    task = word_task(SkipGramTraining(), n_train=6)
    rows = np.arange(6)
    pairs = task.recipe.sampler(task.corpus.vocabulary.counts).sample(
        task.corpus.sentences, rows, task.corpus.ids[rows], 3
    )
    network = task.network(0)
    network.get_parameter("output.weight").data.normal_(generator=torch.Generator().manual_seed(0))
    weights = np.array([1, 2, 0.5, 1, 0, 3], np.float32)
    towards, away = (
        Skipgrams(network, PairLoss("word2vec"), 5).gradient(pairs, sign * weights, mean=mean, with_loss=False)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(away.by_centre, -towards.by_centre, rtol=1e-6)
    np.testing.assert_allclose(away.slopes, -towards.slopes, rtol=1e-6)
