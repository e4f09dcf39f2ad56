"""Controls: removal sets drawn at random, which a method must beat before its ranking means anything. Uses numpy only."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from influence.base import Method
from influence.ranking import Group
from tasks.seeds import generator


class Control(Method):
    """A method without scores of its own: it draws its removal sets from the seed of a repeat.

    `by_label`: the draw depends on the label of a query, so that queries with equal labels share their sets; otherwise
    all queries of a repeat share one set.
    """

    is_control: ClassVar[bool] = True
    uses_checkpoints: ClassVar[bool] = False
    by_label: ClassVar[bool] = False

    def removal_order(
        self, train_ids: np.ndarray, train_labels: np.ndarray, label: int, seed: int, group: Group
    ) -> np.ndarray:
        """Return the train ids in the order in which they are removed: int64 [at most n_train].

        The sets of all k are prefixes of this order. `train_ids`, `train_labels` int64 [n_train]; `label` is that of
        the query loss; `seed` is that of the repeat. The order depends on these arguments alone, not on the order of
        the rows.
        """
        raise NotImplementedError

    def drawn_scores(
        self, train_ids: np.ndarray, train_labels: np.ndarray, label: int, seed: int, query_id: int
    ) -> np.ndarray:
        """Return scores for a campaign that sums scores instead of ranking by them: float64 [n_train].

        By default they are independent standard normal numbers, drawn from (seed, query) for the ascending train ids. They
        predict nothing, and they are independent of those of other queries. Arguments as for `removal_order`.
        """
        key = query_id % 2**64  # ids may be negative, keys may not
        drawn = generator(seed, "random scores", key).standard_normal(len(train_ids))
        return drawn[np.argsort(np.argsort(train_ids, kind="stable"), kind="stable")]


def permutation_order(train_ids: np.ndarray, seed: int, group: Group) -> np.ndarray:
    """Return one permutation of the train ids per `seed`, read from the end that belongs to `group`: int64 [n_train].

    proponents: from the start; opponents: from the end, backwards; least: from the middle, outwards.
    """
    order = generator(seed, "random control").permutation(np.sort(train_ids))
    if group == "proponents":
        return order
    if group == "opponents":
        return order[::-1]
    return order[np.argsort(np.abs(np.arange(len(order)) - len(order) // 2), kind="stable")]
