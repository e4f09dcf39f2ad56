"""Simulates how often the 95% interval of an LDS contains the truth when seeds are noisy, and how often an interval over queries alone does.

Usage: python -m benchmarks.lds_coverage [--campaigns N] [--json PATH] [--markdown PATH] [--processes N]
"""

from __future__ import annotations

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from textwrap import fill

import numpy as np
import scipy

from benchmarks.harness import machine, write_json
from orchestrator.analysis.units import over_units
from orchestrator.campaigns.lds.correlations import lds_left_out

HERE = Path(__file__).parent
LAYOUTS = [(10, 30, 2), (20, 50, 2), (20, 50, 3), (20, 50, 5)]  # queries, subsets, repeats

PAGE = """# Coverage of the interval of an LDS

Command: `python -m benchmarks.lds_coverage --campaigns {n}` ({versions}; {machine}). All figures are in `benchmarks/results/lds_coverage.json`.

**What is estimated.** For each query, the measurement of every one of M random subsets is averaged over R seeds, and Spearman's correlation of these
means with the sums that a method predicts is computed over the subsets. The LDS is the mean of these correlations over queries. What is estimated is
its expectation over queries, seeds and subsets: the LDS that a campaign of the same size would give on average, with other queries, seeds and subsets
of the same kind. It is not the LDS against measurements without noise, which is higher.

**How campaigns are simulated.** Per query q and subset s, the predicted sum p and another effect u are standard normal numbers. The effect of the subset
is r_q p + sqrt(1 - r_q^2) u. r_q says how right the method is for the query: it is the correlation between the predicted sum and the effect of a subset.
It is drawn from N({rho}, 0.15^2) for every query, except in the lines with noise 2, where the method predicts nothing and r_q is 0. The
measurement under seed r adds noise of standard deviation *noise*, drawn for every retrain and query. A part of p,
u and noise is the same for all queries: *alike* is the share of the variance of p
and u, *shared* that of the noise. With *drift* d, the seed also adds d z_r p with z_r ~ N(0, 1): the method is right more under some seeds
than under others. Each line of the table simulates {n:,} campaigns; the truth is the mean of their LDS. The Monte Carlo standard error of a coverage
is {error:.2%}.

**What is seen.** The interval of Refit covers in at least {low:.1%} of campaigns ({low_at}); without drift in at least {low_calm:.1%}, and with at least
three seeds in at least {low_three:.1%}. The interval over queries alone, mean -/+ t sd / sqrt(queries), covers in as few as {naive:.1%} ({naive_at}). It
covers as it should only where queries share neither effects nor noise ({naive_best:.1%} at best). The reason is that all queries are measured on the same
retrains: what chance does to a retrain, it does to many queries at once, and more queries do not average it out.

{drift} More seeds are the only remedy, and the check `repeats` asks for caution below 5.

*width* is the median half-width of the interval, divided by 1.96 times the true standard deviation of the mean LDS. 1 is the width of an interval that
knows this standard deviation. The column *sd* is this standard deviation itself.

| queries | subsets | seeds | noise | alike | shared | drift | LDS | sd | coverage | width | over queries alone | width |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{lines}
"""


@dataclass(frozen=True)
class Scenario:
    """The kind of a campaign; the fields are those that the page explains."""

    noise: float = 1.0
    alike: float = 0.5
    shared: float = 0.5
    drift: float = 0.0
    rho: float = 0.4
    sd: float = 0.15


SCENARIOS = [
    Scenario(noise=0.0),
    Scenario(noise=3.0, alike=0.0, shared=0.0),
    Scenario(noise=1.0),
    Scenario(noise=3.0),
    Scenario(noise=3.0, alike=1.0, shared=1.0),
    Scenario(noise=2.0, rho=0.0, sd=0.0),
    Scenario(noise=1.0, drift=0.3),
]


def campaign(
    rng: np.random.Generator, n_queries: int, n_subsets: int, n_repeats: int, kind: Scenario
) -> tuple[np.ndarray, np.ndarray]:
    """Draw predicted sums [n_queries, n_subsets] and measurements [n_repeats, n_queries, n_subsets]."""

    def drawn(share: float, *lead: int) -> np.ndarray:
        common, own = rng.normal(size=(*lead, 1, n_subsets)), rng.normal(size=(*lead, n_queries, n_subsets))
        return np.sqrt(share) * common + np.sqrt(1 - share) * own

    predicted, other = drawn(kind.alike), drawn(kind.alike)
    right = np.clip(kind.rho + kind.sd * rng.normal(size=(n_queries, 1)), -0.95, 0.95)
    effect = right * predicted + np.sqrt(1 - right**2) * other
    drift = kind.drift * rng.normal(size=(n_repeats, 1, 1)) * predicted
    return predicted, effect + kind.noise * drawn(kind.shared, n_repeats) + drift


def simulate(layout: tuple[int, int, int], kind: Scenario, campaigns: int) -> dict:
    """Return one row of the report: coverage and width of both intervals."""
    rng = np.random.default_rng([*layout, SCENARIOS.index(kind)])
    found = np.empty((campaigns, 5))
    for i in range(campaigns):
        predicted, measured = campaign(rng, *layout, kind)
        lds = lds_left_out(predicted[None], measured)
        whole, naive = lds.estimate(), over_units(lds.levels)
        found[i] = [whole.mean[0], *(end[0] for end in whole.ci), *(end[0] for end in naive.ci)]
    mean = found[:, 0]
    row = {"n_queries": layout[0], "n_subsets": layout[1], "n_repeats": layout[2], **asdict(kind)}
    row |= {"lds": round(float(mean.mean()), 4), "sd_of_lds": round(float(mean.std()), 4)}
    for name, low, high in (("", *found[:, 1:3].T), ("_queries", *found[:, 3:].T)):
        row[f"coverage{name}"] = float(((low <= mean.mean()) & (mean.mean() <= high)).mean())
        row[f"width{name}"] = round(float(np.median(high - low) / 2 / (1.959963984540054 * mean.std())), 3)
    return row


def line(row: dict) -> str:
    """Return a row as a line of the page."""
    counts = " | ".join(str(row[name]) for name in ("n_queries", "n_subsets", "n_repeats"))
    kind = " | ".join(f"{row[name]:g}" for name in ("noise", "alike", "shared", "drift"))
    ours, naive = (f"{row['coverage' + n]:.2%} | {row['width' + n]:.2f}" for n in ("", "_queries"))
    return f"| {counts} | {kind} | {row['lds']:.3f} | {row['sd_of_lds']:.3f} | {ours} | {naive} |"


def place(row: dict) -> str:
    """Describe a row in words."""
    text = f"{row['n_queries']} queries, {row['n_subsets']} subsets, {row['n_repeats']} seeds, noise {row['noise']:g}"
    return text + (f", drift {row['drift']:g}" if row["drift"] else "")


def markdown(report: dict) -> str:
    """Return the page docs/results/lds_coverage.md."""
    rows = report["rows"]
    worst, naive = min(rows, key=lambda r: r["coverage"]), min(rows, key=lambda r: r["coverage_queries"])
    drifting = [r for r in rows if r["drift"]]
    two = min((r for r in drifting if r["n_repeats"] == 2), key=lambda r: r["coverage"])
    more = min((r for r in drifting if r["n_repeats"] > 2), key=lambda r: r["coverage"])
    page = PAGE.format(
        n=report["campaigns"],
        versions=report["versions"],
        machine=f"{report['machine']['cpu']}, {report['machine']['cores']} cores",
        error=np.sqrt(0.95 * 0.05 / report["campaigns"]),
        rho=SCENARIOS[0].rho,
        low=worst["coverage"],
        low_at=place(worst),
        low_calm=min(r["coverage"] for r in rows if not r["drift"]),
        low_three=min(r["coverage"] for r in rows if r["n_repeats"] >= 3),
        naive=naive["coverage_queries"],
        naive_at=place(naive),
        naive_best=max(r["coverage_queries"] for r in rows),
        drift=(
            f"Two seeds are hardly enough if the LDS itself differs between seeds: with drift, the interval covers in {two['coverage']:.1%} of campaigns "
            f"with two seeds and {two['n_queries']} queries, where it is {two['width']:.1f} times as wide as an interval that knows the true standard "
            "deviation of the mean LDS (*width*, below). With drift and three seeds or more, the interval covers in at least "
            f"{more['coverage']:.1%} of campaigns."
        ),
        lines="\n".join(map(line, rows)),
    )
    return "\n\n".join(part if part[0] in "|#" else fill(part, 150) for part in page.strip().split("\n\n")) + "\n"


def main() -> None:
    """Simulate, then write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "lds_coverage.json")
    parser.add_argument("--markdown", type=Path, default=HERE.parent / "docs" / "results" / "lds_coverage.md")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        made = [pool.submit(simulate, *asked, options.campaigns) for asked in product(LAYOUTS, SCENARIOS)]
        rows = [one.result() for one in made]
    parts = (f"Python {platform.python_version()}", f"numpy {np.__version__}", f"scipy {scipy.__version__}")
    report = {
        "campaigns": options.campaigns,
        "versions": ", ".join([*parts, platform.machine()]),
        "machine": machine(),
        "rows": rows,
    }
    write_json(options.json, report)
    options.markdown.write_text(markdown(json.loads(options.json.read_text())), encoding="utf-8")
    print(f"lowest coverage {min(r['coverage'] for r in rows):.4f}")


if __name__ == "__main__":
    main()
