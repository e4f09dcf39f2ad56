"""The rule by which a curve of a campaign with adaptive repeats ends, and how much wider the rule makes its interval."""

from __future__ import annotations

from dataclasses import dataclass

Z = 1.959963984540054  # normal quantile of 97.5%
WIDENED = 6.0  # by simulation: docs/results/adaptive_repeats.md


@dataclass(frozen=True)
class Stopping:
    """The rule of `repeats: {min, max, target_se}`.

    A curve (method, group) ends at the first barrier n >= min at which it has min complete repeats and
        widening(n) t(n - 1) se_fixed <= 1.96 target_se,       widening(n) = 1 + 6 / (min n) between min and max, else 1,
    with se_fixed of its AUC-DEL over seeds, for these queries; it ends at max in any case. A rule that looks again and again
    stops more often on a standard error that is small by chance: comparing se_fixed itself with target_se covers 90% only.
    t makes up for few repeats, `widening` for the looks, in the rule and in the interval that is reported alike. So an interval
    never ends wider than 1.96 target_se unless max was reached. Chow & Robbins (1965); Woodroofe (1977) for the order 1 / n.
    """

    least: int
    most: int
    target_se: float

    @property
    def target_half_width(self) -> float:
        """Half the width of the 95% interval that is asked for: 1.96 target_se."""
        return Z * self.target_se

    def widening(self, n: int) -> float:
        """Factor of the standard error over seeds of a curve that ended after n repeats."""
        return 1 + WIDENED / (self.least * n) if self.least < n < self.most else 1.0
