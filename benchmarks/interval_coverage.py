"""How often the two 95% intervals of orchestrator.analysis hold the truth, by simulation.

Usage: python benchmarks/interval_coverage.py [--replicates N] [--json PATH] [--markdown PATH]
"""

from __future__ import annotations

import argparse
import json
import platform
from itertools import product
from pathlib import Path

import numpy as np
import scipy

from orchestrator.analysis.intervals import Estimate, estimate
from orchestrator.analysis.layout import Layout

RATIOS = [(q, r, e) for q, r, e in product((0.0, 0.3, 1.0), repeat=3) if q or r or e]
LAYOUTS = [*((q, r, 0) for q, r in product((5, 10, 20), (3, 5, 10))), (10, 5, 5), (20, 3, 6), (20, 10, 40), (5, 3, 7)]
CHUNK = 2000
ROUNDING = 1e-12
Z = 1.959963984540054  # normal quantile of 97.5%
HERE = Path(__file__).parent

PAGE = """# Coverage of the 95% intervals

Command: `python benchmarks/interval_coverage.py --replicates {n}` ({versions}).
Every figure is in `benchmarks/results/interval_coverage.json`.

{n:,} simulated campaigns per line: y = query + seed + residual, all normal. Monte Carlo standard error {error:.2%}.

**Queries of this kind** (`ci_*`), no cell missing: lowest {low:.2%}, mean {mean:.2%}, highest {high:.2%}.
The over-coverage is the price of the floor at the largest mean square: it shows when only the residual varies
and queries and repeats are few.

**These queries** (`ci_fixed_*`), no cell missing: {low_fixed:.2%} .. {high_fixed:.2%}, the exact t interval of the
repeats' means. It has no floor: an exact interval needs none, and a floor at the residual mean square with its larger
degrees of freedom would cover less when the seeds' mean square is small by chance.

Without any spread (0, 0, 0) both intervals are the truth itself; without seed and residual spread `ci_fixed_*` is.

*Degrees of freedom.* Satterthwaite's plug-in recipe alone falls to {plain:.2%} (20 queries x 3 repeats at (1, 1, 0)):
when the seeds' mean square, on 2 degrees of freedom, is small by chance, the variance is too small and its degrees of
freedom are too large together. In the degrees of freedom only, each mean square is therefore raised by 1 + 2/f.

*Cells missing.* Mean and mean squares then come from the additive fit (Henderson's method 3). Coverage holds while
most cells are there. In the last layout, with half of the cells gone and {f_last} residual degree of freedom, it need
not; where queries and repeats fall apart no interval is given.

| queries | repeats | cells missing | lowest coverage, at sd (query, seed, residual) | highest | mean | these queries |
|---|---|---|---|---|---|---|
{layouts}

## Every cell

Width: mean half-width over 1.96 true standard deviations of the mean.

| queries | repeats | cells missing | sd (query, seed, residual) | coverage | width | these queries | width |
|---|---|---|---|---|---|---|---|
{cells}
"""


def simulate(n_queries: int, n_repeats: int, n_missing: int, replicates: int) -> list[dict]:
    """One row per (sd of queries, repeats, residual): coverage and width of both intervals.

    The truth is 0 for queries of this kind, and the mean of the queries' own effects for these queries.
    """
    rng = np.random.default_rng([n_queries, n_repeats, n_missing])
    complete = choose_cells(rng, n_queries, n_repeats, n_missing)
    totals = {sd: np.zeros(4) for sd in RATIOS}
    shapes = (n_queries, 1), (1, n_repeats), (n_queries, n_repeats)
    for _ in range(replicates // CHUNK):
        queries, repeats, residual = (rng.normal(size=(CHUNK, *shape)) for shape in shapes)
        for sd in RATIOS:
            result = estimate(sd[0] * queries + sd[1] * repeats + sd[2] * residual, complete)
            totals[sd] += counts(result, sd[0] * queries.mean(axis=(1, 2)))
    return [row(complete, sd, totals[sd] / (replicates // CHUNK * CHUNK)) for sd in RATIOS]


def choose_cells(rng: np.random.Generator, n_queries: int, n_repeats: int, n_missing: int) -> np.ndarray:
    """A random connected layout of all queries and repeats with `n_missing` holes: bool [n_queries, n_repeats]."""
    while True:
        complete = (rng.permutation(n_queries * n_repeats) >= n_missing).reshape(n_queries, n_repeats)
        layout = Layout.of(complete)
        if (layout.n_queries, layout.n_repeats) == (n_queries, n_repeats) and layout.is_connected:
            return complete


def counts(result: Estimate, fixed_truth: np.ndarray) -> np.ndarray:
    """Replicates covered and sum of half-widths, by ci and then by ci_fixed: [4]."""
    sums = []
    for (low, high), truth in ((result.ci, 0.0), (result.ci_fixed, fixed_truth)):
        sums += [((low - ROUNDING <= truth) & (truth <= high + ROUNDING)).sum(), ((high - low) / 2).sum()]
    return np.array(sums, float)


def row(complete: np.ndarray, sd: tuple[float, float, float], means: np.ndarray) -> dict:
    """A row of the report; a width is relative to 1.96 true standard deviations, null where that is 0."""
    n_queries, n_repeats = complete.shape
    fixed = sd[1] ** 2 / n_repeats + sd[2] ** 2 / complete.sum()
    ideal, ideal_fixed = Z * np.sqrt(sd[0] ** 2 / n_queries + fixed), Z * np.sqrt(fixed)
    return {
        "n_queries": n_queries,
        "n_repeats": n_repeats,
        "n_missing": int((~complete).sum()),
        "sd": sd,
        "coverage": round(means[0], 5),
        "width": round(means[1] / ideal, 3),
        "coverage_fixed": round(means[2], 5),
        "width_fixed": round(means[3] / ideal_fixed, 3) if fixed > 0 else None,
    }


def plain_satterthwaite(replicates: int, n_queries: int = 20, n_repeats: int = 3) -> float:
    """Coverage of the recipe without the correction, at sd (1, 1, 0), where the residual mean square is 0."""
    rng = np.random.default_rng(0)
    f_q, f_r = n_queries - 1, n_repeats - 1
    ms_q, ms_r = n_repeats * rng.chisquare(f_q, replicates) / f_q, n_queries * rng.chisquare(f_r, replicates) / f_r
    df = (ms_q + ms_r) ** 2 / (ms_q**2 / f_q + ms_r**2 / f_r)
    half = scipy.special.stdtrit(df, 0.975) * np.sqrt((ms_q + ms_r) / (n_queries * n_repeats))
    mean = rng.normal(size=replicates) * np.sqrt(1 / n_queries + 1 / n_repeats)
    return float((np.abs(mean) <= half).mean())


def layout_line(rows: list[dict]) -> str:
    """The rows of one layout as one line of the page."""
    low, high = (choose(rows, key=lambda r: r["coverage"]) for choose in (min, max))
    fixed = [r["coverage_fixed"] for r in rows if r["width_fixed"] is not None]
    shape = f"{low['n_queries']} | {low['n_repeats']} | {low['n_missing']}"
    mean = np.mean([r["coverage"] for r in rows])
    extremes = " | ".join(f"{r['coverage']:.2%} at {sds(r)}" for r in (low, high))
    return f"| {shape} | {extremes} | {mean:.2%} | {min(fixed):.2%} .. {max(fixed):.2%} |"


def cell_line(r: dict) -> str:
    """A row as a line of the page."""
    fixed = f"{r['coverage_fixed']:.2%} | {'-' if r['width_fixed'] is None else format(r['width_fixed'], '.2f')}"
    shape = f"{r['n_queries']} | {r['n_repeats']} | {r['n_missing']}"
    return f"| {shape} | {sds(r)} | {r['coverage']:.2%} | {r['width']:.2f} | {fixed} |"


def sds(r: dict) -> str:
    """The three standard deviations of a row."""
    return "({:g}, {:g}, {:g})".format(*r["sd"])


def markdown(report: dict) -> str:
    """The page docs/results/interval_coverage.md."""
    rows, n = report["rows"], report["replicates"]
    full = [r for r in rows if not r["n_missing"]]
    coverage, fixed = ([r[c] for r in full if r["width_fixed"] is not None] for c in ("coverage", "coverage_fixed"))
    chunks = [rows[i : i + len(RATIOS)] for i in range(0, len(rows), len(RATIOS))]
    last = rows[-1]
    n_cells = last["n_queries"] * last["n_repeats"] - last["n_missing"]
    return PAGE.format(
        n=n,
        versions=report["versions"],
        error=np.sqrt(0.95 * 0.05 / n),
        low=min(r["coverage"] for r in full),
        high=max(r["coverage"] for r in full),
        mean=np.mean(coverage),
        low_fixed=min(fixed),
        high_fixed=max(fixed),
        plain=report["plain_satterthwaite"],
        f_last=n_cells - last["n_queries"] - last["n_repeats"] + 1,
        layouts="\n".join(layout_line(chunk) for chunk in chunks),
        cells="\n".join(cell_line(r) for r in rows),
    )


def main() -> None:
    """Simulate, then write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=20000)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "interval_coverage.json")
    parser.add_argument("--markdown", type=Path, default=HERE.parent / "docs" / "results" / "interval_coverage.md")
    options = parser.parse_args()
    rows = [row for layout in LAYOUTS for row in simulate(*layout, options.replicates)]
    parts = (f"Python {platform.python_version()}", f"numpy {np.__version__}", f"scipy {scipy.__version__}")
    report = {
        "replicates": options.replicates,
        "versions": ", ".join([*parts, platform.machine()]),
        "plain_satterthwaite": plain_satterthwaite(1_000_000),
        "rows": rows,
    }
    for path, text in ((options.json, json.dumps(report, indent=1) + "\n"), (options.markdown, markdown(report))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"lowest coverage without holes {min(r['coverage'] for r in rows if not r['n_missing']):.4f}")


if __name__ == "__main__":
    main()
