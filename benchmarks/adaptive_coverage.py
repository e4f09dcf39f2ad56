"""How often the seed interval contains the truth after adaptive repeats have stopped, in campaigns simulated with the planner's own rule.

Usage: python benchmarks/adaptive_coverage.py [--campaigns N] [--curves N] [--json PATH]
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import scipy
from scipy.special import stdtrit

from benchmarks.harness import write_json
from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.repeats import needs_repeat
from orchestrator.analysis.stopping import Stopping, Z

TARGET_SE = 0.01
GROUPS = ("proponents", "opponents")
METHODS = ("one", "two", "three", "random")
# Standard deviations over seeds of the curves' AUC-DEL, in units of target_se; the square is the number of repeats that
# a known spread would need.
SPREADS = {
    "calm": (1.0,) * 8,
    "equal, moderate": (2.0,) * 8,
    "equal, wide": (3.0,) * 8,
    "equal, beyond max": (6.0,) * 8,
    "unequal": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    "very unequal": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "unequal, heavy tails": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
}
RULES = {"min 3, max 12": (3, 12), "min 4, max 16": (4, 16), "min 5, max 30": (5, 30)}
N_QUERIES, SHARED = 4, 0.4


def simulated(rng: np.random.Generator, spread: tuple[float, ...], n_repeats: int, *, heavy: bool = False) -> Cells:
    """Simulate a campaign of one k with the truth 0.

    A query's seed noise is the sum of three parts: its own, that of the curve's repeat, and one that all curves share.
    The mean over queries of a curve has the standard deviation `spread` times TARGET_SE. `heavy`: a repeat's own part
    follows Student's t with 5 degrees of freedom instead of a normal distribution.
    """
    sd = TARGET_SE * np.array(spread).reshape(len(METHODS), len(GROUPS), 1, 1, 1)
    own = rng.standard_normal((len(METHODS), len(GROUPS), 1, N_QUERIES, n_repeats))
    shape = (len(METHODS), len(GROUPS), 1, 1, n_repeats)
    repeat = rng.standard_t(5, shape) * 0.6**0.5 if heavy else rng.standard_normal(shape)
    common = rng.standard_normal((1, 1, 1, 1, n_repeats))
    own_share = (1 - SHARED) / 3
    noise = (own_share * N_QUERIES) ** 0.5 * own + (1 - SHARED - own_share) ** 0.5 * repeat + SHARED**0.5 * common
    return Cells(METHODS, GROUPS, (1,), range(N_QUERIES), range(n_repeats), sd * noise)


def stopped(cells: Cells, rule: Stopping) -> Cells:
    """Return the part of a full campaign that adaptive repeats would have requested, barrier by barrier."""
    n_asked = np.full(cells.delta.shape[:2], rule.least)
    while True:
        n = int(n_asked.max())
        asked = np.arange(n) < n_asked[..., None]
        delta = np.where(asked[:, :, None, None, :], cells.delta[..., :n], np.nan)
        seen = Cells(
            cells.methods, cells.groups, cells.ks, cells.query_ids, range(n), delta, n_asked=n_asked, stopping=rule
        )
        more = needs_repeat(rule, seen)
        if not more.any():
            return seen
        n_asked = n_asked + more


def coverage(name: str, rule: Stopping, n_campaigns: int, seed: int) -> dict[str, float]:
    """Return the share of seed intervals that contain the truth, over all curves and for the worst curve, and the cost in repeats."""
    rng = np.random.default_rng(seed)
    hits, repeats, kept = [], [], []
    for _ in range(n_campaigns):
        full = simulated(rng, SPREADS[name], rule.most, heavy="heavy" in name)
        cells = stopped(full, rule)
        low, high = by_curve(cells, cells.auc).ci_fixed
        hits.append((low <= 0) & (high >= 0))
        repeats.append(cells.asked_repeats)
        early = cells.asked_repeats < rule.most
        kept.append(bool(((high - low)[early] / 2 <= rule.target_half_width * (1 + 1e-12)).all()))
    by_curve_hit = np.mean(hits, axis=0)
    return {
        "coverage": round(float(np.mean(hits)), 4),
        "coverage_worst_curve": round(float(by_curve_hit.min()), 4),
        "coverage_best_curve": round(float(by_curve_hit.max()), 4),
        "mean_repeats": round(float(np.mean(repeats)), 2),
        "campaigns_within_target_where_stopped": round(float(np.mean(kept)), 4),
    }


def lowest_coverage(least: int, most: int, variant: str, n_curves: int) -> dict[str, object]:
    """Return the lowest coverage of single curves over a wide range of spreads, for this rule and two simpler ones, vectorised.

    The means of the repeats are independent and normal, so that a single curve is enough to test a rule.
    """
    rng = np.random.default_rng(least)
    n = np.arange(1, most + 1)
    y = rng.standard_normal((n_curves, most))
    mean = np.cumsum(y, 1) / n
    squares = np.maximum(np.cumsum(y**2, 1) - n * mean**2, 0)
    rule = Stopping(least, most, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = stdtrit(n - 1.0, 0.975) * np.sqrt(squares / (n - 1) / n)
        widened = half * [rule.widening(int(i)) for i in n] if variant == "this rule" else half
        narrowness = half / stdtrit(n - 1.0, 0.975) if variant == "se_fixed <= target_se" else widened / Z
    found = []
    for spread in np.geomspace(0.3, 9, 35):
        ends = narrowness * spread <= 1.0
        ends[:, : least - 1], ends[:, -1] = False, True
        at = ends.argmax(1)
        curve = np.arange(n_curves)
        found.append(float((np.abs(mean[curve, at]) <= widened[curve, at]).mean()))
    return {"rule": variant, "min": least, "max": most, "lowest": round(min(found), 4), "highest": round(max(found), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--curves", type=int, default=40_000, help="curves per line of the table of rules")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results/adaptive_coverage.json")
    options = parser.parse_args()
    rows = []
    for number, (label, (least, most)) in enumerate(RULES.items()):
        for index, name in enumerate(SPREADS):
            found = coverage(name, Stopping(least, most, TARGET_SE), options.campaigns, seed=100 * number + index)
            rows.append({"repeats": label, "spreads": name, **found})
            print(rows[-1], flush=True)
    variants = ("se_fixed <= target_se", "t se_fixed <= 1.96 target_se", "this rule")
    ranges = ((2, 16), (3, 8), (3, 12), (3, 20), (4, 16), (5, 30))
    rules = [lowest_coverage(*ends, variant, options.curves) for ends in ranges for variant in variants]
    print(*rules, sep="\n")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    write_json(options.json, {"campaigns": options.campaigns, "versions": versions, "rows": rows, "rules": rules})


if __name__ == "__main__":
    main()
