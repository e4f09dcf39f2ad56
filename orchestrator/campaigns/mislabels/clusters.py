"""Clusters of difficult examples by influence distance, from all scoring models and without each of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from influence.diagnostics.mislabel_clusters import LINKAGES, Linkage, cluster, influence_distance, sizes_of


@dataclass(frozen=True, eq=False)
class InfluenceClusters:
    """The clusters of the difficult examples.

    `influence` float64 [n_models, n, n]: the influence of the difficult examples on each other by every scoring model. Distances and
    clusters are those of its mean over models. Raises ValueError if the influence is no inner product.
    """

    influence: np.ndarray
    linkage: Linkage
    threshold: float

    @cached_property
    def distance(self) -> np.ndarray:
        """The influence distance: float64 [n, n]."""
        return influence_distance(self.influence.mean(axis=0))

    @cached_property
    def labels(self) -> np.ndarray:
        """The cluster of every example, 0 for the largest: int64 [n]."""
        return cluster(self.distance, self.linkage, self.threshold)

    @cached_property
    def by_linkage(self) -> dict[Linkage, np.ndarray]:
        """Linkage -> the clusters that it gives."""
        return {
            linkage: self.labels if linkage == self.linkage else cluster(self.distance, linkage, self.threshold)
            for linkage in LINKAGES
        }

    @property
    def sizes(self) -> np.ndarray:
        """The size of every example's cluster: int64 [n]."""
        return sizes_of(self.labels)

    def sizes_without(self) -> list[np.ndarray]:
        """Return the sizes of the clusters that are made without each scoring model; nothing if there is only one."""
        n_models = len(self.influence)
        if n_models == 1:
            return []
        left = [np.delete(self.influence, m, axis=0).mean(axis=0) for m in range(n_models)]
        return [sizes_of(cluster(influence_distance(one), self.linkage, self.threshold)) for one in left]

    def within(self, members: np.ndarray) -> float:
        """Return the mean distance between different members of a cluster; NaN for a single one."""
        n = len(members)
        return float(self.distance[np.ix_(members, members)].sum() / (n * (n - 1))) if n > 1 else float("nan")
