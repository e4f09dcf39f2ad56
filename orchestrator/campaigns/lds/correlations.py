"""Rank correlations over subsets: of predicted sums with measurements (LDS), and of measurements under different seeds (the noise ceiling)."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
from scipy.stats import rankdata

from orchestrator.analysis.jackknife import LeftOut, blocks_of

MOST_SPLITS = 100  # of the seeds into halves


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation over the last axis of x and y [..., n_subsets]: float64 [...]; ties have average ranks.

    It is 0 if x or y does not vary: a prediction without differences predicts none. scipy.stats.spearmanr is not used, because it
    compares all columns of two matrices with each other and gives NaN without variation.
    """
    return _correlation(_ranks(x), _ranks(y))


def lds_left_out(predicted: np.ndarray, measured: np.ndarray) -> LeftOut:
    """Return the LDS of every method and query, with repeats and blocks of subsets left out: [n_methods, 1 + n_blocks, 1 + n_repeats, n_queries].

    predicted float64 [n_methods, n_queries, n_subsets]: sums of scores. measured float64 [n_repeats, n_queries, n_subsets]. The LDS of a
    query is Spearman's correlation, over subsets, of its predicted sums with the mean of its measurements over repeats.
    """
    n_repeats, _, n_subsets = measured.shape
    rest = [np.delete(measured, r, axis=0).mean(axis=0) for r in range(n_repeats)] if n_repeats > 1 else []
    means = np.stack([measured.mean(axis=0), *rest])
    found = []
    for kept in _without_blocks(n_subsets):
        of_means = _ranks(means[..., kept])
        found.append([_correlation(_ranks(of_method[:, kept]), of_means) for of_method in predicted])
    return LeftOut(np.stack(found, axis=1), n_subsets)


def halves_left_out(measured: np.ndarray) -> LeftOut:
    """Return the mean split-half correlation of every query, with blocks of subsets left out: [1 + n_blocks, 3, n_queries].

    For every split of the seeds into two disjoint groups of floor(n_repeats / 2) (at most MOST_SPLITS of them), the means of the
    two groups are correlated over subsets. Its variation between seeds cannot be found by leaving out one of two seeds, so its intervals are
    for these seeds: the axis of repeats holds equal numbers, whose variance is 0.
    """
    n_repeats, _, n_subsets = measured.shape
    means = [(measured[list(a)].mean(axis=0), measured[list(b)].mean(axis=0)) for a, b in seed_halves(n_repeats)]
    found = []
    for kept in _without_blocks(n_subsets):
        found.append(np.mean([rank_correlation(a[:, kept], b[:, kept]) for a, b in means], axis=0))
    stacked = np.stack(found)
    return LeftOut(np.repeat(stacked[:, None, :], 3, axis=1), n_subsets)


def seed_halves(n_repeats: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the splits of the repeats into two disjoint groups of floor(n_repeats / 2), each split once, at most MOST_SPLITS."""
    size = n_repeats // 2
    splits = (
        (first, second)
        for first in combinations(range(n_repeats), size)
        for second in combinations(sorted(set(range(n_repeats)) - set(first)), size)
        if first < second
    )
    return list(islice(splits, MOST_SPLITS))


def ceiling(half: np.ndarray, n_repeats: int) -> np.ndarray:
    """Return the noise ceiling from split-half correlations, elementwise: the largest LDS that a method can be expected to reach.

    With k = n_repeats / floor(n_repeats / 2), the reliability of the mean over all repeats is, by the formula of Spearman (1910) and
    Brown (1910), k r / (1 + (k - 1) r). The correlation of an exact prediction with the measured mean is its square root (Spearman 1904,
    attenuation by noise in one of the two variables). A negative r gives 0. Both formulas are exact for Pearson's correlation; for rank
    correlations they are approximations.
    """
    k = n_repeats / (n_repeats // 2)
    r = np.maximum(half, 0.0)
    return np.sqrt(k * r / (1 + (k - 1) * r))


def _without_blocks(n_subsets: int) -> list[np.ndarray]:
    """Return the masks of the subsets that are kept: all, then all but one block each."""
    blocks = blocks_of(n_subsets)
    return [np.ones(n_subsets, bool), *(blocks != one for one in np.unique(blocks))]


def _ranks(x: np.ndarray) -> np.ndarray:
    """Return the centred ranks over the last axis."""
    found = rankdata(x, axis=-1)
    return found - (x.shape[-1] + 1) / 2


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of centred ranks over the last axis; 0 where one of them does not vary."""
    size = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.clip((a * b).sum(axis=-1) / np.where(size > 0, size, 1.0), -1, 1)
