"""The tables of an LDS campaign, and their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.contrasts import CONTROL, PAIRS, compared_pairs, family_holm
from orchestrator.analysis.curves import Row
from orchestrator.analysis.jackknife import LeftOut
from orchestrator.analysis.method_tables import method_verdicts
from orchestrator.analysis.units import over_units
from orchestrator.analysis.verdicts import FEW, number
from orchestrator.campaigns.lds.correlations import ceiling

_CEILING = ["ceiling", "ceiling_ci_low", "ceiling_ci_high"]
_SPLIT_HALF = ["split_half", "split_half_ci_low", "split_half_ci_high"]
_COUNTS = ["n_queries", "n_repeats", "n_subsets", "n_excluded"]
SUMMARY = [
    *["method", "lds", "se", "ci_low", "ci_high", "se_fixed", "ci_fixed_low", "ci_fixed_high", "se_queries"],
    *[*_CEILING, "share_of_ceiling", *_SPLIT_HALF, *_COUNTS],
]
BY_QUERY = ["method", "query_id", "lds", "se", "ci_low", "ci_high", "ceiling"]
CONTRASTS = [
    *["method", "baseline", "diff", "se", "ci_low", "ci_high", "p", "p_holm"],
    *["n_queries", "n_repeats", "n_subsets", "family"],
]


@dataclass(frozen=True, eq=False)
class Judged:
    """The LDS of every method and query that counts, and what the tables need besides.

    `lds` has values [n_methods, 1 + n_blocks, 1 + n_repeats, n_queries], `halves` (split-half correlations)
    [1 + n_blocks, 3, n_queries]; both are None if no query counts. `n_excluded`: subsets left out; `lacking`: methods without any score.
    """

    methods: Sequence[str]
    query_ids: np.ndarray
    lds: LeftOut | None
    halves: LeftOut | None
    n_repeats: int
    n_subsets: int
    n_excluded: int
    lacking: Sequence[str] = ()

    def of(self, method: str) -> LeftOut:
        """Return the LDS of one method; NaN if it has no scores."""
        assert self.lds is not None
        values = self.lds.values[list(self.methods).index(method)]
        return LeftOut(np.full_like(values, np.nan) if method in self.lacking else values, self.n_subsets)

    @property
    def counts(self) -> dict[str, int]:
        """The columns `n_queries, n_repeats, n_subsets`."""
        return {"n_queries": len(self.query_ids), "n_repeats": self.n_repeats, "n_subsets": self.n_subsets}


def summary(judged: Judged) -> pd.DataFrame:
    """Return the mean LDS over queries per method, with its intervals and the noise ceiling (columns SUMMARY).

    `ci_*`: for queries, seeds and subsets of this kind; `ci_fixed_*`: for these queries. Both are cut at -1 and 1. `se_queries`: the
    standard error over queries alone, which ignores that all queries share seeds and subsets. `ceiling` is the mean over queries of
    `correlations.ceiling`, `split_half` that of the split-half correlations from which it comes. Their intervals are for queries and
    subsets of this kind under these seeds.
    """
    above = ceiling_row(judged)
    rows = []
    for method in judged.methods:
        row: Row = {"method": method}
        if judged.lds is not None:
            found = judged.of(method)
            estimate = found.estimate()
            row |= {"lds": float(estimate.mean), "se": float(estimate.se), **_cut(estimate.ci, "ci")}
            row |= {"se_fixed": float(estimate.se_fixed), **_cut(estimate.ci_fixed, "ci_fixed")}
            row |= {"se_queries": float(over_units(found.levels).se), **above}
            row["share_of_ceiling"] = row["lds"] / above["ceiling"] if above["ceiling"] > 0 else np.nan
        rows.append({**row, **judged.counts, "n_excluded": judged.n_excluded})
    return pd.DataFrame(rows, columns=SUMMARY)


def ceiling_row(judged: Judged) -> dict[str, float]:
    """Return the columns of the noise ceiling and of the split-half correlation, each with its interval; {} if no query counts.

    The ceiling is computed per query and then averaged, as LDS is. The ceiling of the mean correlation would be too high if some
    queries are noisier than others, because the square root is concave.
    """
    if judged.halves is None:
        return {}
    half = judged.halves.estimate()
    found = LeftOut(ceiling(judged.halves.values, judged.n_repeats), judged.n_subsets).estimate()
    values = [float(found.mean), *(float(np.clip(end, 0, 1)) for end in found.ci)]
    agreement = [float(half.mean), *(float(np.clip(end, -1, 1)) for end in half.ci)]
    return dict(zip([*_CEILING, *_SPLIT_HALF], [*values, *agreement], strict=True))


def by_query(judged: Judged) -> pd.DataFrame:
    """Return the LDS of every method and query, with the interval for this query (columns BY_QUERY); seeds and subsets vary."""
    rows = []
    halves = np.zeros(0) if judged.halves is None else judged.halves.levels
    for method in judged.methods if judged.lds is not None else ():
        found = judged.of(method)
        for q, query_id in enumerate(judged.query_ids.tolist()):
            one = found.of_queries(slice(q, q + 1)).estimate()
            row = {"method": method, "query_id": query_id, "lds": float(one.mean), "se": float(one.se_fixed)}
            rows.append({**row, **_cut(one.ci_fixed, "ci"), "ceiling": float(ceiling(halves[q], judged.n_repeats))})
    return pd.DataFrame(rows, columns=BY_QUERY)


def contrasts(judged: Judged, controls: Sequence[str]) -> pd.DataFrame:
    """Return differences of LDS: every method against each control, then all pairs of methods (columns CONTRASTS).

    diff = mean over queries of LDS(method) - LDS(baseline); interval and p are for queries, seeds and subsets of this kind. Holm's families
    are all methods against one control (`control`), and all pairs (`pairs`); methods with the same LDS count once.
    """
    pairs = compared_pairs(judged.methods, controls)
    if judged.lds is None or not pairs:
        return pd.DataFrame([], columns=CONTRASTS)
    found = [(judged.of(a) - judged.of(b)).estimate() for a, b in pairs]
    seen: dict[bytes, int] = {}
    same = {m: seen.setdefault((judged.of(m).levels + 0.0).tobytes(), place) for place, m in enumerate(judged.methods)}
    families = [b if b in controls else PAIRS for _, b in pairs]
    p = np.array([float(one.p) for one in found])
    adjusted = family_holm(p, families, [(same[a], same[b]) for a, b in pairs])
    rows = [
        {
            "method": a,
            "baseline": b,
            "diff": float(one.mean) + 0.0,
            "se": float(one.se),
            **_ends(one.ci, "ci"),
            "p": float(one.p),
            "p_holm": float(holm),
            **judged.counts,
            "family": CONTROL if b in controls else PAIRS,
        }
        for (a, b), one, holm in zip(pairs, found, adjusted, strict=True)
    ]
    return pd.DataFrame(rows, columns=CONTRASTS)


def verdicts(found: pd.DataFrame, level: float = 0.05) -> tuple[str, ...]:
    """Return a sentence for every contrast; more than FEW undecided ones of a family share one sentence at the end."""
    single, joined = [], []
    families = found["baseline"].where(found["family"] == CONTROL, "")
    for control in dict.fromkeys(families):
        family = found.loc[families == control]
        undecided = family["p_holm"] >= level
        together = undecided & (undecided.sum() > FEW)
        single += method_verdicts(family.loc[~together & family["p_holm"].notna()], "LDS", level)
        single += [_unknown(row) for row in family.loc[family["p_holm"].isna()].to_dict("records")]
        if together.any():
            joined.append(_undecided(family.loc[together], len(family), control))
    return (*single, *joined)


def _unknown(row: Mapping[Any, Any]) -> str:
    why = "one of them has no scores, or there are too few queries, repeats or subsets"
    return f"By LDS, {row['method']} could not be compared with {row['baseline']}: {why}."


def _undecided(rows: pd.DataFrame, n: int, control: str) -> str:
    what, against = ("methods", f" from {control}") if control else ("pairs of methods", "")
    counted = f"none of the {n} {what} could" if len(rows) == n else f"{len(rows)} of the {n} {what} could not"
    first = rows.loc[rows["p"].idxmin()]
    named = first["method"] if control else f"{first['method']} against {first['baseline']}"
    return (
        f"By LDS, {counted} be told apart{against} (contrasts.csv has every comparison). "
        f"The smallest p{'' if len(rows) == n else ' among them'} is that of {named}: Holm p {number(first['p_holm'])}."
    )


def _ends(ci: tuple[Any, Any], name: str) -> dict[str, float]:
    return {f"{name}_low": float(ci[0]), f"{name}_high": float(ci[1])}


def _cut(ci: tuple[Any, Any], name: str) -> dict[str, float]:
    """Return the ends of an interval of a correlation, cut at -1 and 1."""
    return _ends((np.clip(ci[0], -1, 1), np.clip(ci[1], -1, 1)), name)
