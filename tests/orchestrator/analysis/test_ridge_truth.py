"""Closed-form truth: leave-k-out of ridge regression, exactly, and through the whole analysis.

With A = X'X + lambda I, H = X A^-1 X' and residuals e = y - X theta, removing the rows S moves the weights by
-A^-1 X_S' (I - H_SS)^-1 e_S (Woodbury; Cook & Weisberg 1982, section 3.5). A repeat's seed adds label noise of its own.
"""

import numpy as np
import pytest

from orchestrator.analysis import tables
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.verdicts import verdicts

N_TRAIN, N_FEATURES, N_QUERIES, N_REPEATS, PENALTY = 80, 6, 9, 5, 0.7
KS = (1, 4, 12)
METHODS, GROUPS = ("exact", "random"), ("proponents", "opponents")


class Ridge:
    """One repeat: features shared by all, labels with the seed's own noise."""

    def __init__(self, seed):
        rng = np.random.default_rng(0)
        self.train, self.queries = rng.normal(size=(N_TRAIN, N_FEATURES)), rng.normal(size=(N_QUERIES, N_FEATURES))
        truth = rng.normal(size=N_FEATURES)
        self.targets = self.queries @ truth + rng.normal(size=N_QUERIES)
        self.labels = (
            self.train @ truth + rng.normal(size=N_TRAIN) + 0.3 * np.random.default_rng(seed + 1).normal(size=N_TRAIN)
        )

    def refit(self, removed):
        """Weights trained without `removed`, by solving the smaller problem: [n_features]."""
        kept = np.setdiff1d(np.arange(N_TRAIN), removed)
        gram = self.train[kept].T @ self.train[kept] + PENALTY * np.eye(N_FEATURES)
        return np.linalg.solve(gram, self.train[kept].T @ self.labels[kept])

    def measure(self, weights):
        """f = -(target - prediction)^2 per query, more is better: [n_queries]."""
        return -((self.targets - self.queries @ weights) ** 2)

    def closed_form(self, removed):
        """f(query; removal) - f(query; reference) for each query, without any refit: [n_queries]."""
        inverse = np.linalg.inv(self.train.T @ self.train + PENALTY * np.eye(N_FEATURES))
        weights = inverse @ self.train.T @ self.labels
        rows = self.train[removed]
        pull = np.linalg.solve(np.eye(len(removed)) - rows @ inverse @ rows.T, self.labels[removed] - rows @ weights)
        move = -self.queries @ inverse @ rows.T @ pull
        gap = self.targets - self.queries @ weights
        return 2 * gap * move - move**2


def removal_sets(query):
    """{(method, group): ranked rows per repeat}: `exact` by leave-one-out on other seeds, `random` by a permutation."""
    scoring = [Ridge(1000 + s) for s in range(3)]
    scores = [-np.mean([model.closed_form([row])[query] for model in scoring]) for row in range(N_TRAIN)]
    ranked = np.argsort(scores)[::-1]
    shuffled = [np.random.default_rng(50 + r).permutation(N_TRAIN) for r in range(N_REPEATS)]
    return {
        ("exact", "proponents"): [ranked] * N_REPEATS,
        ("exact", "opponents"): [ranked[::-1]] * N_REPEATS,
        ("random", "proponents"): shuffled,
        ("random", "opponents"): [order[::-1] for order in shuffled],
    }


@pytest.fixture(scope="module")
def campaign():
    """Cells from brute-force retrains, and the same deltas in closed form."""
    shape = (len(METHODS), len(GROUPS), len(KS), N_QUERIES, N_REPEATS)
    values, exact, repeats = np.empty(shape), np.empty(shape), [Ridge(r) for r in range(N_REPEATS)]
    reference = np.stack([model.measure(model.refit([])) for model in repeats], axis=1)
    for query in range(N_QUERIES):
        for (method, group), ranked in removal_sets(query).items():
            for i, k in enumerate(KS):
                for r, model in enumerate(repeats):
                    cell = METHODS.index(method), GROUPS.index(group), i, query, r
                    values[cell] = model.measure(model.refit(ranked[r][:k]))[query]
                    exact[cell] = model.closed_form(ranked[r][:k])[query]
    return Cells(METHODS, GROUPS, KS, range(N_QUERIES), range(N_REPEATS), values - reference, values, reference), exact


@pytest.mark.parametrize("k", [1, 2, 10, 40, 79])
def test_leave_k_out_equals_a_refit(k):
    model = Ridge(7)
    removed = np.random.default_rng(k).permutation(N_TRAIN)[:k]
    brute = model.measure(model.refit(removed)) - model.measure(model.refit([]))
    np.testing.assert_allclose(model.closed_form(removed), brute, rtol=1e-8, atol=1e-10)
    assert np.abs(brute).max() > 1e-4


def test_nothing_removed_changes_exactly_nothing():
    np.testing.assert_array_equal(Ridge(7).closed_form([]), 0)


def test_tables_reproduce_the_closed_form(campaign):
    cells, exact = campaign
    np.testing.assert_allclose(cells.delta, exact, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(tables.curves(cells).delta, exact.mean(axis=(-2, -1)).ravel(), rtol=1e-8)
    np.testing.assert_allclose(tables.summary(cells).auc_del, exact.mean(axis=(-3, -2, -1)).ravel(), rtol=1e-8)
    by_query = tables.query_curves(cells)
    np.testing.assert_allclose(by_query.delta, exact.mean(axis=-1).transpose(0, 1, 3, 2).ravel(), rtol=1e-7, atol=1e-11)
    auc = exact.mean(axis=2)
    np.testing.assert_allclose(tables.contrasts(cells)["diff"], (auc[0] - auc[1]).mean(axis=(-2, -1)), rtol=1e-8)
    variance = cells.delta.var(axis=-1, ddof=1).mean(axis=(-2, -1)).ravel()
    np.testing.assert_allclose(tables.pairing(cells).variance_paired, variance, rtol=1e-9)


def test_true_influence_beats_random(campaign):
    cells, _ = campaign
    said = verdicts(tables.contrasts(cells).to_dict("records"))
    assert said[0].startswith("For proponents, exact beats random: its removals leave the measurement lower")
    assert said[1].startswith("For opponents, exact beats random: its removals leave the measurement higher")


def test_pairing_saves_variance(campaign):
    cells, _ = campaign
    assert (tables.pairing(cells).ratio > 1.5).all()
