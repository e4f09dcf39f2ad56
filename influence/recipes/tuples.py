"""The examples of a round of influence tuning: probes, each with examples that share its confound and examples that do not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.base import Split
from tasks.seeds import generator


@dataclass(frozen=True, eq=False)
class Tuples:
    """Rows of the train split: int64 [n, 1 + 2k], the probe, then k places for its confound, then k for others.

    `weights` float64 [n, 2k]: 1 / n_same and -1 / n_other; an empty place holds the probe's row with weight 0.
    """

    rows: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Accessible:
    """The train rows whose confound the recipe may use: bool [n_train], with the split's labels and confounds."""

    known: np.ndarray
    labels: np.ndarray
    confounds: np.ndarray

    @staticmethod
    def draw(split: Split, kept: np.ndarray, rate: float, n_minority: int, seed: int) -> Accessible:
        """Take the first `rate` of a permutation of all rows keyed (seed, 'confound access'), restricted to `kept` (bool [n_train]).

        With `n_minority`, the first rows of every (label, confound) cell that holds less than half of its label are
        added. The published code adds five, which Han and Tsvetkov 2021 do not mention.
        """
        assert split.confounds is not None
        order = generator(seed, "confound access").permutation(len(split))
        known = np.zeros(len(split), bool)
        known[order[: round(rate * len(split))]] = True
        for cell in _minority_cells(split.labels, split.confounds, kept) if n_minority else []:
            known[cell[:n_minority]] = True
        return Accessible(known & kept, split.labels, split.confounds)

    def tuples(self, n_probes: int, k: int, seed: int, *key: int) -> Tuples:
        """Draw up to `n_probes` probes that have both groups, with up to `k` examples in each group.

        Every row has its own random number for each probe, so that removing one row does not move another. The probe is
        in neither of its groups. Drawn from (seed, 'probes' and 'groups', key).
        """
        order = generator(seed, "probes", *key).permutation(len(self.known))
        probes = order[self.usable[order]][:n_probes].tolist()
        found = [self._around(row, k, generator(seed, "groups", *key, row).random(len(self.known))) for row in probes]
        rows, weights = zip(*found, strict=True) if found else ((), ())
        return Tuples(np.array(rows, np.int64).reshape(-1, 1 + 2 * k), np.array(weights).reshape(-1, 2 * k))

    @cached_property
    def usable(self) -> np.ndarray:
        """The rows that can be probes, bool [n_train].

        Such a row has accessible rows of its label in both groups: another one with its confound, and one with another
        confound.
        """
        sizes = np.zeros((self.labels.max() + 1, self.confounds.max() + 1), np.int64)
        np.add.at(sizes, (self.labels[self.known], self.confounds[self.known]), 1)
        same = sizes[self.labels, self.confounds]
        return self.known & (same > 1) & (sizes.sum(axis=1)[self.labels] > same)

    def _around(self, probe: int, k: int, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, weights = np.full(1 + 2 * k, probe), np.zeros(2 * k)
        eligible = self.known & (self.labels == self.labels[probe])
        eligible[probe] = False
        same = self.confounds == self.confounds[probe]
        for start, group, sign in ((0, eligible & same, 1), (k, eligible & ~same, -1)):
            members = np.flatnonzero(group)
            chosen = members[np.argsort(draw[members], kind="stable")[:k]]
            rows[1 + start : 1 + start + len(chosen)] = chosen
            weights[start : start + len(chosen)] = sign / len(chosen)
        return rows, weights


def _minority_cells(labels: np.ndarray, confounds: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
    """Return the rows of every (label, confound) cell that holds less than half of the kept rows of its label."""
    cells = []
    for label in np.unique(labels[kept]):
        of_label = kept & (labels == label)
        for confound in np.unique(confounds[of_label]):
            rows = np.flatnonzero(of_label & (confounds == confound))
            if 2 * len(rows) < of_label.sum():
                cells.append(rows)
    return cells
