"""What the tables and the report of a mislabels campaign are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.campaigns.mislabels.clusters import InfluenceClusters
from orchestrator.campaigns.mislabels.difficult import RepeatedOutputs


@dataclass(frozen=True, eq=False)
class Suspects:
    """Everything that the tables and the report are made from.

    `rows` int64 [n_difficult]: train rows of the difficult examples. `self_influence` float64 [n_models, n_train]. `true`: the true
    class of every train row, None if it is not known.
    """

    repeated: RepeatedOutputs
    rows: np.ndarray
    clusters: InfluenceClusters
    self_influence: np.ndarray
    true: np.ndarray | None

    @property
    def mislabeled(self) -> np.ndarray | None:
        """Whether the given label of every train row is wrong: bool [n_train]; None if that is not known."""
        return None if self.true is None else self.true != self.repeated.labels
