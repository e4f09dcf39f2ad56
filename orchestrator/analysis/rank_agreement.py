"""How far two judges order the same methods alike, by rank correlations of their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import factorial, isnan
from typing import Any

from scipy.stats import kendalltau, spearmanr

from orchestrator.analysis.verdicts import number


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations of two lists of figures over methods; NaN with fewer than two methods, or if all figures of one are equal.

    `tau`: Kendall's tau-b; `p`: its two-sided p under the hypothesis that all orders are equally likely (exact without ties); `least_p`: the
    smallest p that this number of methods can give, 2 / n_methods!; `rho`: Spearman's correlation.
    """

    n_methods: int
    tau: float
    p: float
    least_p: float
    rho: float

    def json(self) -> dict[str, Any]:
        """Return the fields, with null for NaN."""
        return {name: None if isinstance(x, float) and isnan(x) else x for name, x in asdict(self).items()}

    def sentence(self, one: str, other: str, level: float = 0.05) -> str:
        """Say how far the judges agree, and whether as few methods can show it."""
        if isnan(self.tau):
            return f"{one} and {other} order {self.n_methods} method{'s' * (self.n_methods != 1)}: there is no rank agreement to compute."
        taus = f"Kendall's tau {number(self.tau)} (p {number(self.p)}) and Spearman's rho {number(self.rho)}"
        found = f"{one} and {other} order {self.n_methods} methods with {taus}."
        if self.least_p >= level:
            return f"{found} With {self.n_methods} methods p is at least {number(self.least_p)}, so this cannot be told from chance."
        if self.p >= level:
            return f"{found} This cannot be told from chance."
        return found


def rank_agreement(one: Sequence[float], other: Sequence[float]) -> RankAgreement:
    """Return the agreement of two lists of figures of the same methods; higher figures are better in both."""
    n = len(one)
    nan = float("nan")
    if n < 2 or len(set(one)) < 2 or len(set(other)) < 2:
        return RankAgreement(n, nan, nan, nan, nan)
    tau, rho = kendalltau(one, other), spearmanr(one, other)
    return RankAgreement(n, float(tau[0]), float(tau[1]), 2 / factorial(n), float(rho[0]))  # type: ignore[arg-type]
