"""The simulation behind docs/results/lds_coverage.md: on few campaigns, and what its committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.lds_coverage import HERE, LAYOUTS, SCENARIOS, Scenario, campaign, markdown, simulate

REPORT = json.loads((HERE / "results" / "lds_coverage.json").read_text())
PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "lds_coverage.md"


def test_parts_that_are_the_same_for_all_queries_have_their_share_of_the_variance():
    rng = np.random.default_rng(0)
    predicted, measured = campaign(rng, 40, 2000, 2, Scenario(noise=2.0, alike=0.25, shared=0.75, rho=0.0, sd=0.0))
    assert abs(predicted.var() - 1) < 0.1
    assert abs(predicted.mean(axis=0).var() - 0.25) < 0.05
    noise = (measured[0] - measured[1]) / np.sqrt(2)
    assert abs(noise.var() - 4) < 0.3
    assert abs(noise.mean(axis=0).var() - 3) < 0.3


def test_the_interval_covers_where_seeds_are_noisy_and_one_over_queries_does_not():
    row = simulate((10, 30, 2), SCENARIOS[4], 150)
    assert row["coverage"] > 0.9
    assert row["coverage_queries"] < 0.5


def test_the_committed_figures_cover_in_92_5_percent_except_with_two_drifting_seeds():
    assert len(REPORT["rows"]) == len(LAYOUTS) * len(SCENARIOS)
    for row in REPORT["rows"]:
        is_known = row["n_repeats"] == 2 and row["drift"] > 0
        assert row["coverage"] > (0.9 if is_known else 0.925), row
    noisy = [row for row in REPORT["rows"] if row["noise"] >= 1 and row["shared"] > 0]
    assert max(row["coverage_queries"] for row in noisy) < 0.85


def test_the_page_is_made_from_the_committed_figures():
    assert PAGE.read_text() == markdown(REPORT)
