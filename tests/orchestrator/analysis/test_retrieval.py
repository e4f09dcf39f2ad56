"""Average precision, precision and recall at k against brute force, and what their intervals cover."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from orchestrator.analysis.retrieval import Ranking, Sorted, difference, jackknife_se, retrievals


def drawn(n: int = 200, seed: int = 0, levels: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Suspicion with many ties, truth that it predicts, and weights."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    suspicion = rng.normal(size=n) + truth
    suspicion = np.round(suspicion, 1) if levels else suspicion
    return suspicion, truth, rng.integers(0, 4, n).astype(float)


def one_model(name: str, suspicion: np.ndarray) -> Ranking:
    return Ranking.by_mean(name, "one model", np.asarray(suspicion, float)[None])


@pytest.mark.parametrize("levels", [0, 15])
def test_average_precision_is_that_of_scikit_learn(levels):
    suspicion, truth, weights = drawn(levels=levels)
    found = Sorted.of(suspicion).average_precision(truth, weights)
    assert found == pytest.approx(average_precision_score(truth, suspicion, sample_weight=weights), abs=1e-12)


def test_precision_and_recall_at_k_are_counted_by_hand():
    suspicion, truth, _ = drawn(levels=0)
    best = np.argsort(-suspicion)
    found = retrievals([one_model("one", suspicion)], truth, (1, 10, 57), 5, np.random.default_rng(0))["one"]
    hits = [int(truth[best[:k]].sum()) for k in (1, 10, 57)]
    assert found.values[1:4] == pytest.approx([h / k for h, k in zip(hits, (1, 10, 57), strict=True)])
    assert found.values[4:] == pytest.approx([h / truth.sum() for h in hits])


def test_ties_at_k_count_as_if_ordered_at_random():
    suspicion, truth = np.array([2.0, 1.0, 1.0, 1.0, 0.0]), np.array([True, True, False, True, True])
    hits = {k: [] for k in range(1, 6)}
    for middle in permutations([1, 2, 3]):
        order = [0, *middle, 4]
        for k, found in hits.items():
            found.append(truth[order[:k]].sum())
    counted = Sorted.of(suspicion).hits_at(list(hits), truth, np.ones(5))
    assert counted == pytest.approx([np.mean(found) for found in hits.values()])


def test_the_order_of_the_examples_does_not_matter():
    suspicion, truth, weights = drawn()
    order = np.random.default_rng(5).permutation(len(truth))
    one, other = Sorted.of(suspicion), Sorted.of(suspicion[order])
    assert one.average_precision(truth, weights) == pytest.approx(other.average_precision(truth[order], weights[order]))
    assert one.hits_at((3, 40), truth, weights) == pytest.approx(other.hits_at((3, 40), truth[order], weights[order]))


def test_a_perfect_ranking_has_average_precision_1_and_a_random_one_the_base_rate():
    truth = np.arange(1000) < 200
    rng = np.random.default_rng(0)
    orders = np.array([rng.permutation(1000) for _ in range(20)], float)
    rankings = [one_model("perfect", truth), Ranking.by_each("random", "orders", orders)]
    found = retrievals(rankings, truth, (200,), 100, rng)
    assert found["perfect"].values.tolist() == [1, 1, 1]
    assert found["perfect"].interval(0) == (1, 1)
    low, high = found["random"].interval(0)
    assert low < 0.2 < high
    assert difference(found["perfect"], found["random"])["p"] == pytest.approx(0, abs=1e-9)


def test_without_a_positive_example_there_is_no_average_precision():
    found = retrievals([one_model("one", np.arange(4))], np.zeros(4, bool), (2,), 3, np.random.default_rng(0))
    assert np.isnan(found["one"].values[[0, 2]]).all()
    assert np.isnan(found["one"].interval(0)).all()


def test_noisy_models_widen_only_the_interval_over_models():
    suspicion, truth, _ = drawn(300, levels=0)
    noise = 3.0 * np.random.default_rng(3).normal(size=(4, 300))
    rankings = [
        Ranking.by_mean("quiet", "models", np.tile(suspicion, (4, 1))),
        Ranking.by_mean("noisy", "models", suspicion + noise),
    ]
    found = retrievals(rankings, truth, (), 200, np.random.default_rng(0))
    quiet, noisy = (
        [np.ptp(found[name].interval(0, fixed=fixed)) for fixed in (True, False)] for name in ("quiet", "noisy")
    )
    assert quiet[0] == pytest.approx(quiet[1])
    assert noisy[1] > 1.1 * noisy[0]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=9)
    without = np.array([np.delete(values, i).mean() for i in range(9)])
    assert jackknife_se(without) == pytest.approx(values.std(ddof=1) / 3)
    assert jackknife_se(np.zeros(0)) == 0


def test_the_interval_covers_the_result_of_infinitely_many_models_and_examples():
    n, n_models, n_trials, covered = 150, 5, 150, 0
    rng = np.random.default_rng(11)
    truth = rng.random(100_000) < 0.3
    signal = rng.normal(size=len(truth)) + 1.5 * truth
    noise = lambda m, rows: rng.normal(size=(m, rows))  # noqa: E731
    # the ranking that is judged is the mean of n_models models, so the expected result is that of such means
    expected = Sorted.of(signal + noise(1, len(truth))[0] / np.sqrt(n_models)).average_precision(
        truth, np.ones(len(truth))
    )
    for _ in range(n_trials):
        rows = rng.choice(len(truth), n, replace=False)
        ranking = Ranking.by_mean("one", "models", signal[rows] + noise(n_models, n))
        low, high = retrievals([ranking], truth[rows], (), 60, rng)["one"].interval(0)
        covered += low <= expected <= high
    assert covered / n_trials >= 0.9


def test_a_difference_is_paired_by_example():
    suspicion, truth, _ = drawn(300, levels=0)
    rankings = [one_model("a", suspicion), one_model("b", suspicion * 2), one_model("c", -suspicion)]
    found = retrievals(rankings, truth, (), 200, np.random.default_rng(0))
    assert difference(found["a"], found["b"])["ci_low"] == difference(found["a"], found["b"])["ci_high"] == 0
    assert difference(found["a"], found["b"])["p"] == 1
    assert difference(found["c"], found["a"])["ci_high"] < 0


def test_rankings_over_the_same_models_are_paired_by_model():
    suspicion, truth, _ = drawn(300, levels=0)
    models = suspicion + 3.0 * np.random.default_rng(3).normal(size=(4, 300))
    rankings = [Ranking.by_mean(name, over, models) for name, over in (("a", "m"), ("b", "m"), ("c", "others"))]
    found = retrievals(rankings, truth, (), 100, np.random.default_rng(0))
    assert difference(found["a"], found["b"])["se"] == 0
    assert difference(found["a"], found["c"])["se"] > 0
