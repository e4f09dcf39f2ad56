"""Tables and verdicts for one number per method and query, such as a rank correlation. They are meant for user-defined campaigns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from orchestrator.analysis.contrasts import CONTROL, PAIRS, family_holm
from orchestrator.analysis.units import UnitMean, over_units
from orchestrator.analysis.verdicts import interval, number

METHOD_CONTRASTS = ["method", "baseline", "diff", "se", "ci_low", "ci_high", "p", "p_holm", "n_queries", "family"]


def method_summary(values: Mapping[str, np.ndarray], name: str) -> pd.DataFrame:
    """Return the mean over queries with its 95% t interval, one row per method.

    `values`: method -> float [n_queries], NaN where there is no number; every method has the same queries in the same order.
    Columns: `method, <name>, se, ci_low, ci_high, n_queries`. With fewer than two queries the interval is NaN.
    """
    rows = []
    for method, found in values.items():
        mean = over_units(found)
        rows.append({"method": method, name: float(mean.mean), **_spread(mean), "n_queries": int(mean.n)})
    return pd.DataFrame(rows, columns=["method", name, "se", "ci_low", "ci_high", "n_queries"])


def method_contrasts(values: Mapping[str, np.ndarray], controls: Sequence[str] = ()) -> pd.DataFrame:
    """Return differences between methods, paired by query, with 95% t intervals, p and Holm's p (columns METHOD_CONTRASTS).

    diff = mean over the queries that both methods have of value(method) - value(baseline). First every method is compared with
    every control, then all pairs of methods. Holm's families are all methods against one control (`control`), and all pairs (`pairs`).
    """
    judged = [method for method in values if method not in controls]
    against = [(method, control) for control in controls if control in values for method in judged]
    pairs = [*against, *combinations(judged, 2)]
    means = [over_units(np.asarray(values[a], np.float64) - np.asarray(values[b], np.float64)) for a, b in pairs]
    families = [b if b in controls else PAIRS for _, b in pairs]
    positions = {method: place for place, method in enumerate(values)}
    p = np.array([float(mean.p) for mean in means])
    adjusted = family_holm(p, families, [(positions[a], positions[b]) for a, b in pairs])
    rows = [
        {
            "method": a,
            "baseline": b,
            "diff": float(mean.mean),
            **_spread(mean),
            "p": float(mean.p),
            "p_holm": float(corrected),
            "n_queries": int(mean.n),
            "family": CONTROL if b in controls else PAIRS,
        }
        for (a, b), mean, corrected in zip(pairs, means, adjusted, strict=True)
    ]
    return pd.DataFrame(rows, columns=METHOD_CONTRASTS)


def method_verdicts(contrasts: pd.DataFrame, what: str, level: float = 0.05) -> tuple[str, ...]:
    """Return a sentence for every row of `method_contrasts`; higher values are better, and `what` is the name of the value."""
    return tuple(_verdict(row, what, level) for row in contrasts.to_dict("records"))


def _spread(mean: UnitMean) -> dict[str, float]:
    low, high = mean.ci
    return {"se": float(mean.se), "ci_low": float(low), "ci_high": float(high)}


def _verdict(row: Mapping, what: str, level: float) -> str:
    method, baseline = row["method"], row["baseline"]
    if np.isnan(row["p_holm"]):
        return f"By {what}, {method} could not be compared with {baseline}: there are fewer than two queries."
    found = (
        f"difference {number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}, Holm p {number(row['p_holm'])}"
    )
    if row["p_holm"] >= level:
        return f"By {what}, {method} and {baseline} could not be told apart: {found}."
    return f"By {what}, {method} is {'better' if row['diff'] > 0 else 'worse'} than {baseline}: {found}."
