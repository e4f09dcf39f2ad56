"""Retrains for equal seed intervals: adaptive repeats compared with fixed paired and fixed unpaired ones, from one ledger.

Usage: python benchmarks/adaptive_repeats.py CONFIG [--set dotted.key=value]... [--json PATH]

CONFIG has `repeats: {min, max, target_se}`, and the ledger must hold all `max` repeats of every curve:
refit run CONFIG --set 'repeats={count: MAX, base_seed: SEED}' makes them. The decisions of the adaptive campaign are then taken from
these rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from benchmarks.adaptive_coverage import stopped
from benchmarks.harness import machine, write_json
from orchestrator import api
from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.repeats import reached
from orchestrator.analysis.stopping import Stopping
from orchestrator.campaigns.deletion.campaign import stopping_of
from orchestrator.campaigns.deletion.cells import deletion_cells
from orchestrator.campaigns.outcomes import measured_values
from orchestrator.campaigns.plan import Plan
from orchestrator.stages.pipeline import Pipeline

MOST_REPEATS = 2000
ROUNDING = 1 + 1e-9
UPPER = 0.975


@dataclass(frozen=True)
class Grid:
    """All repeats of every curve: the plan, its cells, and variances over seeds.

    The arrays are [n_methods, n_groups]. `paired`: variance of AUC-DEL with common seeds. `removal`: of the removals'
    mean over queries and ks, all with one seed. `apart`: of that mean if every retrain had its own seed. `reference`: a
    number, of the reference's mean over queries.
    """

    plan: Plan
    cells: Cells
    paired: np.ndarray
    removal: np.ndarray
    apart: np.ndarray
    reference: float

    @staticmethod
    def of(plan: Plan, cells: Cells) -> Grid:
        """Build from a finished fixed design without holes."""
        if not cells.complete.all():
            raise SystemExit("the fixed design has holes: not every retrain is usable")
        values = np.asarray(cells.values)
        n_means = values.shape[2] * values.shape[3]
        return Grid(
            plan,
            cells,
            cells.auc.mean(axis=2).var(axis=-1, ddof=1),
            values.mean(axis=(2, 3)).var(axis=-1, ddof=1),
            values.var(axis=-1, ddof=1).sum(axis=(2, 3)) / n_means**2,
            float(np.asarray(cells.reference).mean(axis=0).var(ddof=1)),
        )

    def n_retrains(self, n_asked: np.ndarray) -> int:
        """Return the number of distinct retrains if every curve has its first n_asked repeats."""
        n = int(n_asked.max())
        asked = np.arange(n) < n_asked[..., None]
        cell = np.moveaxis(self.plan.cell[..., :n], -1, 2)[asked]
        return len(np.unique(np.concatenate([cell.ravel(), self.plan.reference[:n]])))

    @property
    def per_repeat(self) -> int:
        """The number of distinct retrains in one repeat of every curve, including its reference."""
        return self.n_retrains(np.ones(self.cells.delta.shape[:2], int))


def values_of(pipeline: Pipeline) -> np.ndarray:
    """Return the measurement of every query under every retrain of a finished campaign: [n_works, n_queries]."""
    return measured_values(pipeline.experiment, pipeline.planned.works, pipeline.queries, pipeline.rows)


def half_widths(cells: Cells) -> np.ndarray:
    """Return half the width of the seed interval of every curve: [n_methods, n_groups]."""
    low, high = by_curve(cells, cells.auc).ci_fixed
    return (high - low) / 2


def smallest(is_enough: Callable[[int], bool]) -> int:
    """Return the smallest number of repeats, from 2, that is enough."""
    return next(n for n in range(2, MOST_REPEATS) if is_enough(n))


def fixed_paired(grid: Grid, wanted: np.ndarray) -> int:
    """Return the smallest n at which t(n - 1) sqrt(paired / n) is at most `wanted` for every curve."""
    return smallest(lambda n: bool((stdtrit(n - 1.0, UPPER) * np.sqrt(grid.paired / n) <= wanted).all()))


def prefix_paired(grid: Grid, wanted: np.ndarray) -> int | None:
    """Return the smallest n whose first n repeats give intervals within `wanted`; None if even all repeats do not."""
    full = grid.cells
    for n in range(2, len(full.repeats) + 1):
        first = Cells(full.methods, full.groups, full.ks, full.query_ids, range(n), full.delta[..., :n])
        if (half_widths(first) <= wanted).all():
            return n
    return None


def fixed_unpaired(grid: Grid, removal: np.ndarray, wanted: np.ndarray) -> tuple[int, int, int]:
    """Return (removal repeats n, references m, retrains) of the cheapest design whose references have their own seeds.

    half-width = t(df) sqrt(removal / n + reference / m), Welch's df. A reference serves every curve and costs one
    retrain, so the cheapest design has more references than repeats.
    """
    best: tuple[int, int, int] | None = None
    removals = grid.per_repeat - 1
    for n in range(2, MOST_REPEATS):
        if best is not None and n * removals >= best[2]:
            return best
        for m in np.unique(np.geomspace(2, 4 * MOST_REPEATS, 200).astype(int)):
            cost = n * removals + int(m)
            if (best is None or cost < best[2]) and (welch(removal, n, grid.reference, int(m)) <= wanted).all():
                best = (n, int(m), cost)
                break
    raise SystemExit("no unpaired design reaches these half-widths")


def welch(removal: np.ndarray, n: int, reference: float, m: int) -> np.ndarray:
    """Return the half-width of the difference of two means that have different variances."""
    a, b = removal / n, reference / m
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    return stdtrit(df, UPPER) * np.sqrt(a + b)


def compared(grid: Grid, rule: Stopping) -> dict:
    """Compare the four designs at the half-widths that the adaptive one reached, and at its target."""
    seen = stopped(grid.cells, rule)
    found, n_asked = half_widths(seen), seen.asked_repeats
    adaptive = grid.n_retrains(n_asked)
    criteria = {
        "as narrow curve by curve": found * ROUNDING,
        "within the target": np.maximum(found, rule.target_half_width) * ROUNDING,
    }
    rows = []
    for name, wanted in criteria.items():
        n = fixed_paired(grid, wanted)
        shared, apart = (fixed_unpaired(grid, v, wanted) for v in (grid.removal, grid.apart))
        one_reference = smallest(lambda n, w=wanted: bool((welch(grid.removal, n, grid.reference, n) <= w).all()))
        rows.append(
            {
                "criterion": name,
                "adaptive": adaptive,
                "fixed_paired_repeats": n,
                "fixed_paired": n * grid.per_repeat,
                "fixed_paired_by_its_first_repeats": prefix_paired(grid, wanted),
                "fixed_unpaired_one_reference_a_repeat": one_reference * grid.per_repeat,
                "fixed_unpaired_seed_a_repeat": dict(zip(("repeats", "references", "retrains"), shared, strict=True)),
                "fixed_unpaired_seed_a_retrain": dict(zip(("repeats", "references", "retrains"), apart, strict=True)),
                "paired_over_adaptive": round(n * grid.per_repeat / adaptive, 2),
                "unpaired_over_adaptive": round(min(shared[2], apart[2]) / adaptive, 2),
            }
        )
    return {
        "target_se": rule.target_se,
        "min": rule.least,
        "max": rule.most,
        "curves": curves(grid, seen, rule),
        "designs": rows,
    }


def curves(grid: Grid, seen: Cells, rule: Stopping) -> list[dict]:
    """Return for every curve its adaptive repeats and final half-width, together with those of the full fixed design."""
    found, full = half_widths(seen), half_widths(grid.cells)
    ended = reached(rule, seen)
    unpaired = (np.minimum(grid.removal, grid.apart) + grid.reference) / grid.paired
    return [
        {
            "method": method,
            "group": group,
            "repeats": int(seen.asked_repeats[m, g]),
            "half_width": round(float(found[m, g]), 5),
            "ended": "target" if ended[m, g] else "max",
            "half_width_of_all_repeats": round(float(full[m, g]), 5),
            "sd_over_seeds": round(float(grid.paired[m, g] ** 0.5), 5),
            "unpaired_variance_over_paired": round(float(unpaired[m, g]), 2),
        }
        for m, method in enumerate(seen.methods)
        for g, group in enumerate(seen.groups)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results/adaptive_repeats.json")
    options = parser.parse_args()
    asked = api.load_config(options.config, options.overrides)
    repeats, rule = asked.settings.repeats, stopping_of(asked.settings.repeats)
    if rule is None:
        raise SystemExit(f"{options.config}: repeats have no target_se")
    everything = f"repeats={{count: {repeats.max}, base_seed: {repeats.base_seed}}}"
    whole = api.open_pipeline(api.load_config(options.config, [*options.overrides, everything]), address="local")
    grid = Grid.of(whole.planned, deletion_cells(whole.planned, values_of(whole)))
    planned = api.open_pipeline(asked, address="local").planned
    found = compared(grid, rule)
    if not planned.is_final or len(planned.works) != found["designs"][0]["adaptive"]:
        raise SystemExit("the planner's adaptive campaign is not the one that was compared")
    accuracy = np.mean([whole.rows[i].outcome.metrics["accuracy/test"] for i in whole.planned.references()])
    seconds = np.mean([whole.ledger.index().rows[work.spec_id].seconds for work in whole.planned.works])
    others = [
        compared(grid, Stopping(rule.least, rule.most, round(rule.target_se * f, 6))) for f in (0.75, 1.25, 1.5, 2.0)
    ]
    write_json(
        options.json,
        {
            "config": options.config.name,
            "machine": machine(),
            "retrains_of_all_repeats": len(whole.planned.works),
            "retrains_of_a_repeat": grid.per_repeat,
            "test_accuracy": round(float(accuracy), 3),
            "seconds_per_retrain": round(float(seconds), 2),
            **found,
            "other_targets": others,
        },
    )


if __name__ == "__main__":
    main()
