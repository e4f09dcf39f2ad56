"""Influence distance between training examples, and clusters of examples by it.

Yeh et al. 2022, appendix A. The paper's influence has a minus sign that contradicts its own definition of proponents; here it is positive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

Linkage = Literal["average", "complete", "single"]
LINKAGES: tuple[Linkage, ...] = ("average", "complete", "single")
TOLERANCE = 1e-3  # relative rounding of scores that are stored in float32


def influence_distance(influence: np.ndarray) -> np.ndarray:
    """Return the influence distance of every pair of training examples: float64 [n, n].

        d(i, j) = 1 - I(i, j) / sqrt(I(i, i) I(j, j))

    `influence` [n, n] holds the influence I(i, j) of example j on example i, positive if j helps i. I must be an inner product
    <phi(i), phi(j)>; then d is 1 minus the cosine of phi(i) and phi(j): it is symmetric, 0 on the diagonal, and lies in [0, 2]. An example
    without influence on itself has the distance 1 to all others. Yeh et al. 2022, appendix A, with the sign corrected.

    Raises ValueError if `influence` is no inner product: not square, not finite, not symmetric, or |I(i, j)| above sqrt(I(i, i) I(j, j)),
    each by more than rounding.
    """
    given = np.asarray(influence, np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(given).all():
        raise ValueError(f"influence has shape {given.shape}; a square matrix of finite numbers is needed")
    itself = np.diagonal(given)
    if (itself < 0).any():
        raise ValueError("an example has negative influence on itself, so the scores are no inner products")
    norms = np.sqrt(itself)
    scale = np.outer(norms, norms)
    cosine = np.divide(given, scale, out=np.zeros_like(given), where=scale > 0)
    if (np.abs(given) > scale * (1 + TOLERANCE) + np.finfo(np.float32).tiny).any():
        raise ValueError("two examples influence each other more than themselves, so the scores are no inner products")
    if not np.allclose(cosine, cosine.T, rtol=0, atol=TOLERANCE):
        raise ValueError("the influence is not symmetric, so the scores are no inner products")
    distance = np.clip(1 - (cosine + cosine.T) / 2, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def cluster(distance: np.ndarray, linkage: Linkage = "average", threshold: float = 0.8) -> np.ndarray:
    """Return the cluster of every example by agglomerative clustering: int64 [n], 0 for the largest cluster.

    Clusters are merged while their distance is below `threshold`. `linkage` defines the distance of two clusters: the mean, the
    largest (complete) or the smallest (single) distance between their members. Clusters are numbered by size, and those of equal size by
    their first member. Yeh et al. 2022, appendix A, with the threshold 0.8; the paper does not name its linkage.
    """
    n = len(distance)
    if n < 2:
        return np.zeros(n, np.int64)
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(
        n_clusters=None,  # pyright: ignore[reportArgumentType]
        metric="precomputed",
        linkage=linkage,
        distance_threshold=threshold,
    )
    return by_size(model.fit(distance).labels_)


def by_size(labels: np.ndarray) -> np.ndarray:
    """Return the same clusters, numbered from the largest to the smallest, and those of equal size by their first member."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[inverse]


def sizes_of(labels: np.ndarray) -> np.ndarray:
    """Return the size of the cluster of every example: int64 [n]."""
    return np.bincount(labels)[labels] if len(labels) else np.zeros(0, np.int64)


def common_words(
    pairs: Iterable[Sequence[tuple[int, float]]], left_out: frozenset[int] = frozenset()
) -> list[tuple[int, float]]:
    """Return (token id, mean contribution) of every word that raises the scores of these pairs on average, largest first.

    `pairs`: for each pair of examples in a cluster the contributions of its words to the pair's score, which sum to the score. The mean is
    over all pairs; a word that a pair lacks contributes 0 to it. Tokens in `left_out`, such as padding, are no words. Ties go to the
    smaller token. The paper counts instead the pairs in which a word is among the five largest (Yeh et al. 2022, appendix A).
    """
    totals: dict[int, float] = {}
    n_pairs = 0
    for words in pairs:
        n_pairs += 1
        for token, contribution in words:
            if token not in left_out:
                totals[token] = totals.get(token, 0.0) + contribution
    means: Mapping[int, float] = {token: total / n_pairs for token, total in totals.items() if total > 0}
    return sorted(means.items(), key=lambda item: (-item[1], item[0]))
