"""The stopping rule of adaptive repeats, and the factor by which it widens intervals."""

from __future__ import annotations

from dataclasses import dataclass

Z = 1.959963984540054  # normal quantile of 97.5%
WIDENED = 6.0  # by simulation: docs/results/adaptive_repeats.md


@dataclass(frozen=True)
class Stopping:
    """The rule of `repeats: {min, max, target_se}`.

    A curve (method, group) ends at the first barrier n >= min at which it has min complete repeats and
        widening(n) t(n - 1) se_fixed <= 1.96 target_se,       widening(n) = 1 + 6 / (min n) between min and max, else 1,
    where se_fixed is the standard error of its AUC-DEL over seeds, for these queries. It ends at max in any case.
    A rule that is applied after every repeat tends to stop when the standard error is small by chance: if se_fixed itself were
    compared with target_se, the 95% interval would cover only 90%. The quantile t corrects for few repeats, `widening` for the
    repeated decisions, both in the rule and in the reported interval. An interval is therefore never wider than 1.96 target_se to
    either side unless max was reached. Chow & Robbins (1965); Woodroofe (1977) for the order 1 / n.
    """

    least: int
    most: int
    target_se: float

    @property
    def target_half_width(self) -> float:
        """Half the width of the 95% interval at which a curve ends: 1.96 target_se."""
        return Z * self.target_se

    def widening(self, n: int) -> float:
        """Return the factor of the standard error over seeds of a curve that ended after n repeats."""
        return 1 + WIDENED / (self.least * n) if self.least < n < self.most else 1.0
