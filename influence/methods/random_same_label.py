"""The control that uses the label and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from influence.controls import Control, permutation_order
from influence.ranking import Group
from tasks.errors import InputError
from tasks.seeds import generator
from tasks.task import Task


class RandomSameLabel(Control):
    """Removes random examples of the query's label (proponents), or of the other labels (opponents).

    With p a permutation of the train ids drawn from the seed of the repeat, and y(q) the label whose probability or
    loss is measured on query q:

        proponents of q = the first k ids of p with label y(q),    opponents of q = the first k ids of p with another label.

    Queries with the same label share their sets. Removals of this control change the class shares of the train set as
    much as those of a method that ranks all examples by their label. A method that moves a query no further has found
    the label, not the examples. The group `least` makes no claim about labels, so it is the same as for `random`.
    """

    name: ClassVar[str] = "random_same_label"
    by_label: ClassVar[bool] = True

    def check(self, task: Task, base_dir: Path, where: str) -> None:
        """Refuse a task whose train examples do not have two labels."""
        n_labels = len(np.unique(task.splits["train"].labels))
        if n_labels < 2:
            problem = f"{self.name} draws by label, and the train examples have {n_labels} label; it needs at least 2"
            raise InputError(where, problem)

    def removal_order(
        self, train_ids: np.ndarray, train_labels: np.ndarray, label: int, seed: int, group: Group
    ) -> np.ndarray:
        """Return the permutation of this seed, without the examples whose label does not belong to the group."""
        if group == "least":
            return permutation_order(train_ids, seed, group)
        by_id = np.argsort(train_ids, kind="stable")
        drawn = by_id[generator(seed, "random same-label control").permutation(len(train_ids))]
        has_label = train_labels[drawn] == label
        return train_ids[drawn[has_label if group == "proponents" else ~has_label]]

    def drawn_scores(
        self, train_ids: np.ndarray, train_labels: np.ndarray, label: int, seed: int, query_id: int
    ) -> np.ndarray:
        """Return 1 for the examples with the query's label and 0 for the others: float64 [n_train].

        Their sum over a subset is the number of its examples with that label.
        """
        return (train_labels == label).astype(np.float64)
