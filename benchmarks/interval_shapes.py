"""Simulates t intervals, sign flips, shares and medians for effects that are not normal.

It is a part of benchmarks/interval_coverage.py, which writes the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.over_queries import query_levels
from orchestrator.analysis.shares import clopper_pearson
from orchestrator.analysis.sign_flips import median_interval, sign_flip_p

LEVEL = 0.05
LAYOUTS = [(5, 3), (10, 3), (20, 3), (20, 10)]
TRUTH = 2_000_000  # draws of a query from which the truth of a shape without closed form is estimated
Sd = tuple[float, float, float]  # of queries, seeds and residual
Draw = Callable[[np.random.Generator, tuple[int, int, int]], np.ndarray]  # (campaigns, queries, repeats) -> changes


@dataclass(frozen=True)
class Shape:
    """A distribution of changes: a function that draws it, [campaigns, queries, repeats], and the layouts in which it is simulated."""

    name: str
    draw: Draw
    layouts: tuple[tuple[int, int], ...] = tuple(LAYOUTS)


def rare(probability: float, noise: float = 0.0) -> Draw:
    """Draw changes where a query changes by -1 with a probability, else not at all; `noise` is the sd of an additional change of each cell."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        moved = np.where(rng.random((*shape[:2], 1)) < probability, -1.0, 0.0)
        return moved + noise * rng.normal(size=shape)

    return draw


def ceiling(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Draw changes of probabilities near 1: logits are N(6, 3^2); a removal changes them by N(-1, 1) a query and N(0, 0.5^2) a cell.

    Probabilities are in float32, as losses and probabilities are recorded, so about one query in five cannot change
    visibly.
    """
    logit = 6 + 3 * rng.normal(size=(*shape[:2], 1))
    moved = -1 + rng.normal(size=(*shape[:2], 1)) + 0.5 * rng.normal(size=shape)
    before, after = (expit(x.astype(np.float32)).astype(np.float64) for x in (logit, logit + moved))
    return after - before


def heavy(degrees: int) -> Draw:
    """Draw effects of queries, and a third as large effects of cells, from Student's t with few degrees of freedom; mean and median 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        return rng.standard_t(degrees, size=(*shape[:2], 1)) + rng.standard_t(degrees, size=shape) / 3

    return draw


SHAPES = (
    Shape("rare: -1 with probability 0.1", rare(0.1), ((5, 3), (10, 3), (20, 3))),
    Shape("rare: -1 with probability 0.05", rare(0.05), ((20, 3), (20, 10))),
    Shape("rare: -1 with probability 0.1, noise 0.01", rare(0.1, 0.01), ((5, 3), (10, 3), (20, 3))),
    Shape("rare: -1 with probability 0.05, noise 0.01", rare(0.05, 0.01), ((20, 3), (20, 10))),
    Shape("ceiling at probability 1", ceiling),
    Shape("heavy tails, t(3)", heavy(3)),
    Shape("heavy tails, t(2)", heavy(2)),
)


def shape_rows(replicates: int) -> list[dict]:
    """Return a row per shape and layout."""
    return [shape_row(shape, *layout, replicates) for shape in SHAPES for layout in shape.layouts]


def shape_row(shape: Shape, n_queries: int, n_repeats: int, replicates: int) -> dict:
    """Return the coverage of one curve's intervals, and how often the tests reject.

    False alarms are rejections between two methods of one shape; discoveries are rejections against a method without
    effect.
    """
    rng = np.random.default_rng([n_queries, n_repeats, len(shape.name), ord(shape.name[-1])])
    size, full = (replicates, n_queries, n_repeats), np.ones((n_queries, n_repeats), bool)
    mean, median, share = _truth(shape, n_repeats)
    y, other = shape.draw(rng, size), shape.draw(rng, size)
    curve, null = estimate(y), estimate(y - other)
    low, high = curve.ci
    given = ~np.isnan(low)
    levels, between = query_levels(y, full), query_levels(y - other, full)
    flips, flips_null = (np.array([sign_flip_p(x) for x in values]) for values in (levels, between))
    lower, upper = np.array([median_interval(x)[1:] for x in levels]).T
    fewest, most = np.array([clopper_pearson(count, n_queries) for count in range(n_queries + 1)])[
        (levels < 0).sum(axis=1)
    ].T
    return {
        "shape": shape.name,
        "n_queries": n_queries,
        "n_repeats": n_repeats,
        "given": _rate(given),
        "coverage": _rate(_covers(low, high, mean)[given]),
        "coverage_share": _rate(_covers(fewest, most, share)),
        "coverage_median": None if np.isnan(lower).any() else _rate(_covers(lower, upper, median)),
        "t_size": _rate(null.p < LEVEL),
        "flip_size": _rate(flips_null < LEVEL),
        "t_finds": _rate(curve.p < LEVEL),
        "flip_finds": _rate(flips < LEVEL),
    }


def _truth(shape: Shape, n_repeats: int) -> tuple[float, float, float]:
    """Return the mean of a change, the median of a query's level, and the probability that the level is below 0."""
    levels = shape.draw(np.random.default_rng(1), (1, TRUTH // n_repeats, n_repeats))[0].mean(axis=-1)
    if shape.name.startswith("heavy"):
        return 0.0, 0.0, 0.5
    if shape.name.startswith("rare"):
        probability = float(shape.name.split("probability ")[1].split(",")[0])
        return -probability, float(np.median(levels)), float((levels < 0).mean())
    return float(levels.mean()), float(np.median(levels)), float((levels < 0).mean())


def _covers(low: np.ndarray, high: np.ndarray, truth: float, rounding: float = 1e-9) -> np.ndarray:
    return (low - rounding <= truth) & (truth <= high + rounding)


def _rate(found: np.ndarray) -> float | None:
    return round(float(np.mean(found)), 5) if len(found) else None


def false_alarms(
    complete: np.ndarray, queries: np.ndarray, seeds: np.ndarray, residual: np.ndarray, sds: Sequence[Sd]
) -> dict[Sd, np.ndarray]:
    """Return campaigns with p < 0.05 although the truth is 0, per sd (queries, seeds, residual).

    The result is [t, sign flips, sign flips for other seeds, t and sign flips together]. queries, seeds, residual:
    standard normal [n, n_queries, 1], [n, 1, n_repeats], [n, n_queries, n_repeats]. The null hypothesis of the
    sign-flip test takes the seeds as given, so the mean of their effects is a part of the truth and is subtracted. The
    levels of the queries contain nothing else of the seeds, so they are the levels of campaigns without seed effects.
    `for other seeds` does not subtract the effects; the test is not made for this case. No test depends on the unit, so
    sds of equal proportions share their flips.
    """
    tested: dict[Sd, np.ndarray] = {}

    def changes(sd: Sd) -> np.ndarray:
        return sd[0] * queries + sd[1] * seeds + sd[2] * residual

    def flips(sd: Sd) -> np.ndarray:
        q, r, e = (round(part / (max(sd) or 1.0), 9) for part in sd)
        if (q, r, e) not in tested:
            levels = query_levels(changes((q, r, e)), complete)
            tested[q, r, e] = np.array([sign_flip_p(x) for x in levels]) < LEVEL
        return tested[q, r, e]

    found = {}
    for sd in sds:
        t, other = estimate(changes(sd), complete).p < LEVEL, flips(sd)
        given = flips((sd[0], 0.0, sd[2]))
        found[sd] = np.array([one.sum() for one in (t, given, other, t & other)], float)
    return found


def skewed_size(n_queries: int, replicates: int = 20_000) -> float:
    """Return false alarms of the sign-flip test for a skewed distribution of mean 0: an exponential distribution minus its mean."""
    x = np.random.default_rng(n_queries).exponential(size=(replicates, n_queries)) - 1
    return round(float(np.mean([sign_flip_p(row) < LEVEL for row in x])), 5)


def shape_lines(rows: list[dict]) -> str:
    """Return the rows as lines of the page."""
    return "\n".join(_line(row) for row in rows)


def _line(r: dict) -> str:
    names = ("given", "coverage", "coverage_share", "coverage_median", "t_size", "flip_size", "t_finds", "flip_finds")
    cells = ["-" if r[name] is None else f"{r[name]:.1%}" for name in names]
    return f"| {r['shape']} | {r['n_queries']} | {r['n_repeats']} | {' | '.join(cells)} |"
