"""The control that removes examples at random."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from influence.controls import Control, permutation_order
from influence.ranking import Group


class RandomControl(Control):
    """Removes examples at random: per repeat one permutation of the train ids, shared by all queries.

    Its first k ids are the proponents row, its last k the opponents row, the k in its middle the least row.
    """

    name: ClassVar[str] = "random"

    def removal_order(
        self, train_ids: np.ndarray, train_labels: np.ndarray, label: int, seed: int, group: Group
    ) -> np.ndarray:
        """Return the permutation of this seed, which does not depend on the label."""
        return permutation_order(train_ids, seed, group)
