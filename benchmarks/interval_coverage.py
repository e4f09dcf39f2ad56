"""Simulates how often the two 95% intervals of orchestrator.analysis contain the truth, and how often both tests raise a false alarm.

Usage: python -m benchmarks.interval_coverage [--replicates N] [--json PATH] [--markdown PATH] [--processes N]
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import scipy

from benchmarks.harness import machine
from benchmarks.interval_shapes import false_alarms, shape_lines, shape_rows, skewed_size
from orchestrator.analysis.intervals import MeanEstimate, estimate
from orchestrator.analysis.layout import Layout

RATIOS = [(q, r, e) for q, r, e in product((0.0, 0.3, 1.0), repeat=3) if q or r or e]
LAYOUTS = [*((q, r, 0) for q, r in product((5, 10, 20), (3, 5, 10))), (10, 5, 5), (20, 3, 6), (20, 10, 40), (5, 3, 7)]
CHUNK = 2000
FLIPS = 0.5  # share of the replicates on which the sign-flip test is made
ALARMS = ("t_size", "flip_size", "flip_size_other_seeds", "t_and_flip_size")
ROUNDING = 1e-12
Z = 1.959963984540054  # normal quantile of 97.5%
HERE = Path(__file__).parent

PAGE = """# Coverage of the 95% intervals

Command: `python -m benchmarks.interval_coverage --replicates {n}` ({versions}; {machine}).
All figures are in `benchmarks/results/interval_coverage.json`.

For each line of the tables, {n:,} campaigns are simulated. In a campaign, the effect y of each cell (query, repeat) is the sum of three
independent normal numbers: one for the query, one for the seed of the repeat, and a residual. Their standard deviations are given in this order:
(query, seed, residual). The Monte Carlo standard error of a coverage is {error:.2%}.

**Queries of this kind** (`ci_*`), no cell missing: the lowest coverage is {low:.2%}, the mean {mean:.2%}, the highest {high:.2%}. Where the coverage
is far above 95%, the reason is that the variance used for the interval is at least the largest of the three mean squares (of queries, of repeats and
of residuals), divided by the number of cells. This matters most if only the residual varies and there are few queries and repeats.

**These queries** (`ci_fixed_*`), no cell missing: the coverage is {low_fixed:.2%} .. {high_fixed:.2%}. This is the exact t interval of the means
of the repeats, and the variance of an exact interval needs no lower bound. If the residual mean square, with its larger degrees of freedom, were
used as a lower bound, the interval would cover less whenever the mean square of the seeds is small by chance.

If neither seeds nor residuals vary, `ci_fixed_*` is a single point, which is the true value. If nothing varies at all (standard deviations (0,
0, 0)), there is no `ci_*`, because nothing shows how much queries differ.

*Degrees of freedom.* With Satterthwaite's plug-in formula alone the coverage falls to {plain:.2%} (20 queries x 3 repeats, standard
deviations (1, 1, 0)). If the mean square of the seeds, on 2 degrees of freedom, is small by chance, the variance is too small and at the same
time its degrees of freedom are too many. Therefore each mean square, on f degrees of freedom, is multiplied by 1 + 2/f in the formula for the
degrees of freedom (not in the variance).

*Cells missing.* If cells are missing, the mean and the mean squares come from the additive fit (Henderson's method 3). The coverage stays near or
above 95% as long as most cells are present. Nothing of the kind is claimed for the last layout of the table, in which {n_missing} of the {n_in_all}
cells are missing and {f_last} residual degree of freedom is left. If the cells separate into parts that share neither query nor repeat, no interval
is given.

| queries | repeats | cells missing | lowest coverage, at sd (query, seed, residual) | highest | mean | these queries |
|---|---|---|---|---|---|---|
{layouts}

## False alarms of the sign-flip test

`p_flip` is the p of a sign-flip test: it compares the observed mean with those under all combinations of signs of the queries' means. One seed
serves every query, so the queries are independent only given the seeds. The null hypothesis is that, under the seeds used, the changes of
queries of this kind are symmetric around 0. The mean effect that the seeds used have on all queries alike is then part of the truth; the simulation
subtracts it, so that the truth is 0. Under this null hypothesis p < 0.05 in at most {flip_high:.2%} of {n_flips:,} campaigns, over all layouts and
standard deviations (Monte Carlo standard error {flip_error:.2%}). With n queries p is a multiple of 2^(1 - n). The test is exact; where its rate of false
alarms is below 5%, the reason is that 0.05 is not such a multiple. With 5 queries p is at least 0.0625, so there is no false alarm at all.

The test says nothing about other seeds. If the mean over *all* seeds is 0, p_flip < 0.05 in up to {other_high:.0%} (at {other_at}): the seeds
used have an effect on all queries there, and the test finds it. Flipping the signs of repeats instead of queries would take other seeds into
account, but with 3 repeats p would be at least 0.25. So verdicts use the t test, whose variance includes that of the seeds; the sign-flip test
may cast doubt on a verdict and never makes one. The t test alone raises a false alarm in at most {t_high:.2%} of campaigns (at {t_at}); both
tests reject in at most {both_high:.2%}.

The test needs symmetry: if the mean is 0 but few queries change by much in one direction (an exponential distribution minus its mean),
p_flip < 0.05 in {skewed}.

## Effects that are not normal

For each line, {n_flips:,} campaigns are simulated. *interval given* is how often the mean of one curve has a t interval for queries of this
kind, and *coverage* is how often this interval, where it is given, contains the truth. *share* and *median* are the coverages of the intervals
of the share of queries that moved and of the median. *false alarms* is how often p < 0.05 for the difference of two methods whose effects have
the same distribution. *finds it* is how often p < 0.05 for the difference between a method with these effects and one without effect. In the
lines with a ceiling, the logits of the queries are N(6, 3^2), a removal changes them by N(-1, 1) per query and N(0, 0.5^2) per cell, and
probabilities are in float32.

| effects | queries | repeats | interval given | coverage | share | median | t: false alarms | sign flips: false alarms | t: finds it | sign flips: find it |
|---|---|---|---|---|---|---|---|---|---|---|
{shapes}

No t interval can represent queries that were not sampled. If most queries do not change at all, there is often no interval, because a sample
without spread says nothing about the spread. If a little noise gives such a sample a spread, there is an interval, but it is narrow, lies around
0 and misses the truth. The interval of the share of queries that moved stays right: if none of 5 queries moved, up to 52% of queries of this
kind may move (with an error of 2.5% on that side); if none of 20 moved, up to 17% may. At a ceiling the t interval is too narrow on the side of
the few queries that can still move.

## Every cell

*width* is the mean half-width of the interval to its left, divided by 1.96 times the true standard deviation of the mean. The last three columns
give how often p < 0.05 although the true mean is 0: by the t test; by the sign-flip test, for the seeds used; and by the sign-flip test, if it
is read as a statement about other seeds.

| queries | repeats | cells missing | sd (query, seed, residual) | coverage | width | these queries | width | t | sign flips | for other seeds |
|---|---|---|---|---|---|---|---|---|---|---|
{cells}
"""


def simulate(n_queries: int, n_repeats: int, n_missing: int, replicates: int) -> list[dict]:
    """Return one row per (sd of queries, repeats, residual): coverage and width of both intervals.

    The truth is 0 for queries of this kind, and the mean of the queries' own effects for these queries.
    """
    rng = np.random.default_rng([n_queries, n_repeats, n_missing])
    complete = choose_cells(rng, n_queries, n_repeats, n_missing)
    totals, alarms = ({sd: np.zeros(4) for sd in RATIOS} for _ in range(2))
    shapes = (n_queries, 1), (1, n_repeats), (n_queries, n_repeats)
    for _ in range(replicates // CHUNK):
        queries, repeats, residual = (rng.normal(size=(CHUNK, *shape)) for shape in shapes)
        tested = slice(int(FLIPS * CHUNK))
        for sd in RATIOS:
            y = sd[0] * queries + sd[1] * repeats + sd[2] * residual
            totals[sd] += counts(estimate(y, complete), sd[0] * queries.mean(axis=(1, 2)))
        for sd, found in false_alarms(complete, queries[tested], repeats[tested], residual[tested], RATIOS).items():
            alarms[sd] += found
    n = replicates // CHUNK * CHUNK
    return [row(complete, sd, totals[sd] / n, alarms[sd] / (FLIPS * n)) for sd in RATIOS]


def choose_cells(rng: np.random.Generator, n_queries: int, n_repeats: int, n_missing: int) -> np.ndarray:
    """Draw a connected layout of all queries and repeats with `n_missing` holes: bool [n_queries, n_repeats]."""
    while True:
        complete = (rng.permutation(n_queries * n_repeats) >= n_missing).reshape(n_queries, n_repeats)
        layout = Layout.of(complete)
        if (layout.n_queries, layout.n_repeats) == (n_queries, n_repeats) and layout.is_connected:
            return complete


def counts(result: MeanEstimate, fixed_truth: np.ndarray) -> np.ndarray:
    """Return the number of covered replicates and the sum of half-widths, by ci and then by ci_fixed: [4]."""
    sums = []
    for (low, high), truth in ((result.ci, 0.0), (result.ci_fixed, fixed_truth)):
        sums += [((low - ROUNDING <= truth) & (truth <= high + ROUNDING)).sum(), ((high - low) / 2).sum()]
    return np.array(sums, float)


def row(complete: np.ndarray, sd: tuple[float, float, float], means: np.ndarray, alarms: np.ndarray) -> dict:
    """Return a row of the report.

    A width is relative to 1.96 true standard deviations, null if these are 0. For alarms see `false_alarms`.
    """
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
        **dict(zip(ALARMS, (round(float(a), 5) for a in alarms), strict=True)),
    }


def plain_satterthwaite(replicates: int, n_queries: int = 20, n_repeats: int = 3) -> float:
    """Return the coverage without the correction of the degrees of freedom, at sd (1, 1, 0), where the residual mean square is 0."""
    rng = np.random.default_rng(0)
    f_q, f_r = n_queries - 1, n_repeats - 1
    ms_q, ms_r = n_repeats * rng.chisquare(f_q, replicates) / f_q, n_queries * rng.chisquare(f_r, replicates) / f_r
    df = (ms_q + ms_r) ** 2 / (ms_q**2 / f_q + ms_r**2 / f_r)
    half = scipy.special.stdtrit(df, 0.975) * np.sqrt((ms_q + ms_r) / (n_queries * n_repeats))
    mean = rng.normal(size=replicates) * np.sqrt(1 / n_queries + 1 / n_repeats)
    return float((np.abs(mean) <= half).mean())


def layout_line(rows: list[dict]) -> str:
    """Return the rows of one layout as one line of the page."""
    low, high = (choose(rows, key=lambda r: r["coverage"]) for choose in (min, max))
    fixed = [r["coverage_fixed"] for r in rows if r["width_fixed"] is not None]
    shape = f"{low['n_queries']} | {low['n_repeats']} | {low['n_missing']}"
    mean = np.mean([r["coverage"] for r in rows])
    extremes = " | ".join(f"{r['coverage']:.2%} at {sds(r)}" for r in (low, high))
    return f"| {shape} | {extremes} | {mean:.2%} | {min(fixed):.2%} .. {max(fixed):.2%} |"


def cell_line(r: dict) -> str:
    """Return a row as a line of the page."""
    fixed = f"{r['coverage_fixed']:.2%} | {'-' if r['width_fixed'] is None else format(r['width_fixed'], '.2f')}"
    shape = f"{r['n_queries']} | {r['n_repeats']} | {r['n_missing']}"
    alarms = " | ".join(f"{r[name]:.2%}" for name in ALARMS[:3])
    return f"| {shape} | {sds(r)} | {r['coverage']:.2%} | {r['width']:.2f} | {fixed} | {alarms} |"


def sds(r: dict) -> str:
    """Return the three standard deviations of a row as text."""
    return "({:g}, {:g}, {:g})".format(*r["sd"])


def markdown(report: dict) -> str:
    """Return the page docs/results/interval_coverage.md."""
    rows, n = report["rows"], report["replicates"]
    full = [r for r in rows if not r["n_missing"]]
    coverage, fixed = ([r[c] for r in full if r["width_fixed"] is not None] for c in ("coverage", "coverage_fixed"))
    chunks = [rows[i : i + len(RATIOS)] for i in range(0, len(rows), len(RATIOS))]
    last = rows[-1]
    n_in_all = last["n_queries"] * last["n_repeats"]
    n_cells = n_in_all - last["n_missing"]
    return PAGE.format(
        n=n,
        versions=report["versions"],
        machine=machine_line(report["machine"]),
        error=np.sqrt(0.95 * 0.05 / n),
        low=min(r["coverage"] for r in full),
        high=max(r["coverage"] for r in full),
        mean=np.mean(coverage),
        low_fixed=min(fixed),
        high_fixed=max(fixed),
        plain=report["plain_satterthwaite"],
        n_missing=last["n_missing"],
        n_in_all=n_in_all,
        f_last=n_cells - last["n_queries"] - last["n_repeats"] + 1,
        **alarm_figures(rows, int(FLIPS * n)),
        skewed=" and ".join(
            f"{rate:.1%} with {n_queries} queries" for n_queries, rate in report["skewed_flip_size"].items()
        ),
        shapes=shape_lines(report["shapes"]),
        layouts="\n".join(layout_line(chunk) for chunk in chunks),
        cells="\n".join(cell_line(r) for r in rows),
    )


def alarm_figures(rows: list[dict], n_flips: int) -> dict:
    """Return the figures of the section on false alarms."""
    worst, least_exact = (max(rows, key=itemgetter(name)) for name in ("flip_size_other_seeds", "t_size"))
    return {
        "n_flips": n_flips,
        "flip_error": np.sqrt(0.05 * 0.95 / n_flips),
        "flip_high": max(r["flip_size"] for r in rows),
        "other_high": worst["flip_size_other_seeds"],
        "other_at": place(worst),
        "t_high": least_exact["t_size"],
        "t_at": place(least_exact),
        "both_high": max(r["t_and_flip_size"] for r in rows),
    }


def place(r: dict) -> str:
    """Describe the layout and standard deviations of a row in words."""
    missing = f", {r['n_missing']} cells missing" if r["n_missing"] else ""
    return f"{r['n_queries']} queries x {r['n_repeats']} repeats{missing}, sd {sds(r)}"


def machine_line(found: dict) -> str:
    """Describe the machine in a few words."""
    return f"{found['cpu']}, {found['cores']} cores"


def main() -> None:
    """Simulate, then write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=20000)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "interval_coverage.json")
    parser.add_argument("--markdown", type=Path, default=HERE.parent / "docs" / "results" / "interval_coverage.md")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        shapes = pool.submit(shape_rows, int(FLIPS * options.replicates))
        made = [pool.submit(simulate, *layout, options.replicates) for layout in reversed(LAYOUTS)]
        rows = [row for simulated in reversed(made) for row in simulated.result()]
    parts = (f"Python {platform.python_version()}", f"numpy {np.__version__}", f"scipy {scipy.__version__}")
    report = {
        "replicates": options.replicates,
        "versions": ", ".join([*parts, platform.machine()]),
        "machine": machine(),
        "plain_satterthwaite": plain_satterthwaite(1_000_000),
        "skewed_flip_size": {n: skewed_size(n) for n in (10, 20)},
        "shapes": shapes.result(),
        "rows": rows,
    }
    for path, text in ((options.json, json.dumps(report, indent=1) + "\n"), (options.markdown, markdown(report))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"lowest coverage without holes {min(r['coverage'] for r in rows if not r['n_missing']):.4f}")


if __name__ == "__main__":
    main()
