"""Means over queries with t intervals, from the tables of a diagnostic that have a row per query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pandas as pd

from influence.diagnostic import QueryMeans
from orchestrator.analysis.method_tables import method_contrasts
from orchestrator.analysis.shares import clustered_share
from orchestrator.analysis.units import over_units

ALL = "all"  # the value of a column of totals in the rows that are over all its values


def with_query_means(frames: Mapping[str, pd.DataFrame], asked: Mapping[str, QueryMeans]) -> dict[str, pd.DataFrame]:
    """Return the tables of a diagnostic with the means that it asks for; the table called "" comes first."""
    made: dict[str, pd.DataFrame] = {}
    for name, means in asked.items():
        made[name] = means_over_queries(frames[means.of], means)
        if means.compared:
            made["_".join(filter(None, (name, "contrasts")))] = contrasts_over_queries(frames[means.of], means)
    return dict(sorted({**made, **frames}.items(), key=lambda item: item[0] != ""))


def means_over_queries(frame: pd.DataFrame, asked: QueryMeans) -> pd.DataFrame:
    """Return the columns `by`, then `<value>, <value>_ci_low, <value>_ci_high` for each value, then `n_queries`.

    The queries are independent units with one number each, the mean of their rows; the interval is mean -/+ t(n - 1) se
    (over_units), and that of a share is the interval for trials in clusters (clustered_share). Both are for queries of this
    kind under the scoring models of the campaign. `n_queries` is the number of queries that have the first of the values.
    """
    rows = []
    for names, part in _groups(frame, asked):
        found = {value: over_units(np.array([*_by_query(part, value).values()])) for value in asked.values}
        row = dict(zip(asked.by, names, strict=True))
        for value, mean in found.items():
            low, high = _of_share(part, value, asked.shares[value]) if value in asked.shares else mean.ci
            row |= {value: float(mean.mean), f"{value}_ci_low": float(low), f"{value}_ci_high": float(high)}
        rows.append({**row, "n_queries": int(found[asked.values[0]].n)})
    ends = [f"{value}{end}" for value in asked.values for end in ("", "_ci_low", "_ci_high")]
    return pd.DataFrame(rows, columns=[*asked.by, *ends, "n_queries"])


def contrasts_over_queries(frame: pd.DataFrame, asked: QueryMeans) -> pd.DataFrame:
    """Return the differences between the values of `asked.compared`, paired by query, for the first of `asked.values`.

    diff = mean over the queries that have both of value(compared) - value(baseline), with t interval, p and Holm's p over
    the pairs (method_contrasts).
    """
    others = tuple(name for name in asked.by if name != asked.compared)
    value, parts = asked.values[0], []
    for names, part in _groups(frame, QueryMeans(asked.of, others, asked.values)):
        kinds, queries = (list(dict.fromkeys(part[column])) for column in (asked.compared, "query_id"))
        of_kind = {kind: _by_query(part.loc[part[asked.compared] == kind], value) for kind in kinds}
        values = {
            str(kind): np.array([found.get(query, np.nan) for query in queries]) for kind, found in of_kind.items()
        }
        found = method_contrasts(values)
        found = found.rename(columns={"method": asked.compared, "diff": f"{value}_diff"}).drop(columns="family")
        for place, (name, label) in enumerate(zip(others, names, strict=True)):
            found.insert(place, name, label)
        parts.append(found)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _groups(frame: pd.DataFrame, asked: QueryMeans) -> Iterator[tuple[tuple[object, ...], pd.DataFrame]]:
    """Yield the combinations of values of `by` that have rows, with their rows, in the order of the table.

    A column of `totals` with several values also has the value ALL, which comes first.
    """
    if not len(frame):
        return
    every = np.ones(len(frame), bool)
    choices: list[list[tuple[object, np.ndarray]]] = []
    for name in asked.by:
        values = [(value, (frame[name] == value).to_numpy()) for value in dict.fromkeys(frame[name])]
        choices.append([(ALL, every), *values] if name in asked.totals and len(values) > 1 else values)
    for chosen in product(*choices):
        fits = np.logical_and.reduce([every, *(rows for _, rows in chosen)])
        if fits.any():
            yield tuple(value for value, _ in chosen), frame.loc[fits]


def _of_share(frame: pd.DataFrame, value: str, trials: str) -> tuple[float, float]:
    """Return the interval of a share whose trials are clustered by query: (low, high)."""
    shares = np.array([*_by_query(frame, value).values()])
    n = np.array([*_by_query(frame, trials).values()]) if trials else np.ones(len(shares))
    known = np.isfinite(shares)
    return clustered_share((shares * n)[known], n[known])


def _by_query(frame: pd.DataFrame, value: str) -> dict[int, float]:
    """Return query id -> mean of a value over the rows of the query; NaN for a query without a value."""
    found: dict[int, list[float]] = {}
    for query_id, number in zip(frame["query_id"].tolist(), frame[value].astype(np.float64).tolist(), strict=True):
        found.setdefault(int(query_id), []).extend([] if np.isnan(number) else [number])
    return {query_id: float(np.mean(numbers)) if numbers else np.nan for query_id, numbers in found.items()}
