"""How well rankings retrieve the positive examples, such as the mislabeled ones: average precision, precision and recall at k.

Ties are never broken by position. Average precision takes tied examples in together, as scikit-learn does; precision and recall at k are
the expected values when tied examples are ordered at random.

Intervals cover two sources of variation. Examples: their bootstrap, with the ranking kept. Models, from whose outputs or gradients the
ranking was computed: the jackknife, which leaves out one model at a time and makes the ranking again. The bootstrap is not used for models,
because a resampled ensemble has fewer distinct models than the one that is judged, and so ranks worse on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95

Suspicions = Sequence[np.ndarray]  # rankings whose results are averaged: arrays float64 [n], higher = more suspicious


@dataclass(frozen=True, eq=False)
class Ranking:
    """A ranking of n examples by suspicion, and the same ranking without each of the models that it was computed from.

    `over` names the models; rankings over the same models are compared model by model. `whole`: usually one array; several if results of
    several orders are averaged. `without` [n_models]: the rankings with one model left out; empty if there is only one model.
    """

    name: str
    over: str
    whole: Suspicions
    without: Sequence[Suspicions] = ()

    @classmethod
    def by_mean(cls, name: str, over: str, suspicion: np.ndarray) -> Ranking:
        """Rank by the mean of `suspicion` float64 [n_models, n] over models."""
        others = _others(suspicion)
        return cls(name, over, [suspicion.mean(axis=0)], [[left.mean(axis=0)] for left in others])

    @classmethod
    def by_each(cls, name: str, over: str, suspicion: np.ndarray) -> Ranking:
        """Rank by every row of `suspicion` float64 [n_orders, n], and average the results: for orders that are drawn at random."""
        return cls(name, over, list(suspicion), [list(left) for left in _others(suspicion)])

    @property
    def n_models(self) -> int:
        """The number of models."""
        return max(len(self.without), 1)


def _others(suspicion: np.ndarray) -> list[np.ndarray]:
    """Return the rows without the first one, without the second one ...; nothing for a single row."""
    return [np.delete(suspicion, row, axis=0) for row in range(len(suspicion))] if len(suspicion) > 1 else []


@dataclass(frozen=True, eq=False)
class Sorted:
    """Examples in the order of a ranking: `order` int64 [n], most suspicious first, and the last position of every group of ties."""

    order: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, suspicion: np.ndarray) -> Sorted:
        """Sort by suspicion, highest first."""
        order = np.argsort(-suspicion, kind="stable")
        ordered = suspicion[order]
        return cls(order, np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)))

    def counted(self, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of all examples, and of the positive ones, down to the end of every group of ties: two [n_groups]."""
        weight = weights[self.order].astype(np.float64)
        return np.cumsum(weight)[self.ends], np.cumsum(weight * truth[self.order])[self.ends]

    def average_precision(self, truth: np.ndarray, weights: np.ndarray) -> float:
        """Return sum over groups of ties of (gain in recall) x (precision down to the group's end); NaN without a positive example."""
        seen, hits = self.counted(truth, weights)
        if not len(hits) or hits[-1] == 0:
            return float("nan")
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1])

    def hits_at(self, k: Sequence[int], truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the expected number of positive examples among the first k: float64 [len(k)]."""
        seen, hits = self.counted(truth, weights)
        return np.interp(np.asarray(k, np.float64), np.append(0.0, seen), np.append(0.0, hits))


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Results of one ranking. The last axis of every array is [average precision, precision at every k, recall at every k].

    `values`: the results; `draws` [n_draws, ...]: those for resampled examples; `without` [n_models, ...]: those without one model.
    """

    ranking: Ranking
    values: np.ndarray
    draws: np.ndarray
    without: np.ndarray

    def interval(self, position: int, *, fixed: bool = False) -> tuple[float, float]:
        """Return the 95% interval of one result within [0, 1]; `fixed`: examples vary, models do not."""
        over_models = 0.0 if fixed else jackknife_se(self.without[:, position])
        found = spread(float(self.values[position]), self.draws[:, position], [(over_models, self.ranking.n_models)])
        return tuple(np.clip([found["ci_low"], found["ci_high"]], 0.0, 1.0).tolist())


def retrievals(
    rankings: Sequence[Ranking], truth: np.ndarray, ks: Sequence[int], n_draws: int, rng: np.random.Generator
) -> dict[str, Retrieval]:
    """Return the results of every ranking, by name. `truth` bool [n]: the examples that should be retrieved.

    In every draw, n examples are drawn with replacement, the same for all rankings, so that differences between rankings are paired.
    """
    n, everyone = len(truth), np.ones(len(truth))
    orders = {r.name: [Sorted.of(suspicion) for suspicion in r.whole] for r in rankings}
    draws: dict[str, list[np.ndarray]] = {name: [] for name in orders}
    for _ in range(n_draws):
        weights = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        for name, found in orders.items():
            draws[name].append(_results(found, truth, weights, ks))
    width = 1 + 2 * len(ks)
    found = {}
    for ranking in rankings:
        without = [_results([Sorted.of(s) for s in left], truth, everyone, ks) for left in ranking.without]
        values = _results(orders[ranking.name], truth, everyone, ks)
        drawn = np.reshape(draws[ranking.name], (n_draws, width))
        found[ranking.name] = Retrieval(ranking, values, drawn, np.reshape(without, (len(without), width)))
    return found


def _results(orders: Sequence[Sorted], truth: np.ndarray, weights: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    found = []
    total = float(weights @ truth)
    for order in orders:
        hits = order.hits_at(ks, truth, weights)
        recall = hits / total if total else np.full(len(ks), np.nan)
        found.append([order.average_precision(truth, weights), *(hits / np.asarray(ks, np.float64)), *recall])
    return np.mean(found, axis=0)


def jackknife_se(without: np.ndarray) -> float:
    """Return the jackknife standard error sqrt((m - 1) / m sum (x_i - mean)^2) of m results without one model each; 0 for none."""
    m = len(without)
    return float(np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum())) if m > 1 else 0.0


def spread(value: float, draws: np.ndarray, over_models: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Return se, 95% interval and p value (against 0) of a result.

    se^2 = variance of `draws`, for examples, plus the squares of the standard errors in `over_models`, [(se, number of models)]. The
    interval is value -+ t se, with the degrees of freedom of Satterthwaite, in which examples count as infinitely many.
    """
    parts = [se for se, _ in over_models]
    variance = float(np.var(draws, ddof=1)) + float(np.sum(np.square(parts)))
    by_models = sum(se**4 / (m - 1) for se, m in over_models if m > 1)
    df = variance**2 / by_models if by_models > 0 else np.inf
    se = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se
    p = 1.0 if value == 0 else float(2 * stats.t.sf(abs(value) / se, df)) if se > 0 else 0.0
    return {"se": se, "ci_low": value - reach, "ci_high": value + reach, "p": p}


def difference(one: Retrieval, other: Retrieval, position: int = 0) -> Mapping[str, float]:
    """Return the difference of one result between two rankings, with se, 95% interval and p value; paired by example.

    Rankings over the same models are also paired by model; models of different kinds vary independently.
    """
    value = float(one.values[position] - other.values[position])
    sides = [side.without[:, position] for side in (one, other)]
    if one.ranking.over == other.ranking.over and len(sides[0]) == len(sides[1]):
        over_models = [(jackknife_se(sides[0] - sides[1]), one.ranking.n_models)]
    else:
        over_models = [
            (jackknife_se(left), side.ranking.n_models) for left, side in zip(sides, (one, other), strict=True)
        ]
    return {"diff": value, **spread(value, one.draws[:, position] - other.draws[:, position], over_models)}
