"""Tables of the confound influence difference of a grid's chosen settings, from moments made up here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchestrator.campaigns.recipe_grid.cid import (
    CID,
    CID_PROBES,
    Observed,
    cid_note,
    cid_probes_table,
    cid_table,
    recorded,
)
from orchestrator.campaigns.recipe_grid.selection import GridSetting

NAN = np.nan
INFLUENCE, PLAIN = GridSetting("influence", "influence.1", 0.05), GridSetting("finetuning", "finetuning")
GROUPS = [([0.9, 0.5, 0.7], [0.1, 0.3]), ([0.2, 0.4], [0.6, 0.1, 0.3, 0.2])]  # of two probes: same confound, another


def moments_of(groups) -> np.ndarray:
    return np.array(
        [[f(part) for part in probe for f in (len, np.mean, lambda x: np.std(x, ddof=1))] for probe in groups]
    )


def shifted(by: float) -> np.ndarray:
    """Moments of GROUPS with every same-confound influence moved."""
    return moments_of([([v + by for v in same], other) for same, other in GROUPS])


def observed(seed: int, moments, setting=INFLUENCE) -> Observed:
    return Observed(setting, seed, np.array([40, 7]), moments)


def test_entries_of_the_observer_stand_in_the_order_of_training():
    array = np.zeros((2, 6))
    names = ["@100", "@50+round", "@50", "@100+round", "@5"]
    outputs = {f"confound_influence_difference/moments{name}": array for name in names}
    outputs |= {"test": array, "confound_influence_difference/influences@100": array, "other/moments@1": array}
    found = [(step, stage) for step, _, stage in recorded(outputs)]
    assert found == [(5, "update"), (50, "update"), (50, "round"), (100, "update"), (100, "round")]
    assert [step for step, *_ in recorded(outputs, "influences")] == [100]


def test_a_curve_is_the_mean_over_seeds_of_the_mean_over_probes():
    first, after = (50, False, "update"), (50, True, "round")
    seen = [observed(seed, {first: shifted(by), after: shifted(-by)}) for seed, by in ((1, 0.1), (2, 0.3), (3, 0.2))]
    table = cid_table([*seen, observed(1, {first: shifted(0)}, PLAIN)])
    assert list(table.columns) == CID
    update, after_round, plain = table.to_dict("records")
    base = np.mean([np.mean(same) - np.mean(other) for same, other in GROUPS])
    values = base + np.array([0.1, 0.3, 0.2])
    interval = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (update["cid"], update["se"]) == pytest.approx((values.mean(), stats.sem(values)))
    assert (update["ci_low"], update["ci_high"]) == pytest.approx(interval)
    assert after_round["cid"] == pytest.approx(base - 0.2)
    assert [row["stage"] for row in (update, after_round, plain)] == ["update", "round", "update"]
    assert (update["arm"], update["level"], update["setting"], update["step"]) == ("influence", 0.05, "influence.1", 50)
    assert (update["n_seeds"], update["n_probes"], plain["n_seeds"]) == (3, 2, 1)
    assert np.isnan([plain["level"], plain["se"], plain["ci_low"]]).all()


def test_a_probe_without_a_group_is_in_no_mean():
    lone = moments_of(GROUPS)
    lone[1, 3:] = [0, NAN, NAN]
    [row] = cid_table([observed(1, {(9, False, "update"): lone})]).to_dict("records")
    same, other = GROUPS[0]
    assert row["cid"] == pytest.approx(np.mean(same) - np.mean(other))
    assert row["n_probes"] == 1


def test_probes_are_tested_by_welch_at_the_end_of_training():
    end = {(50, False, "update"): shifted(5), (100, False, "update"): shifted(-5), (100, True, "round"): shifted(0)}
    table = cid_probes_table([observed(2022, end)])
    assert list(table.columns) == CID_PROBES
    assert table["probe_id"].tolist() == [40, 7]
    for row, (same, other) in zip(table.to_dict("records"), GROUPS, strict=True):
        welch = stats.ttest_ind(same, other, equal_var=False)
        assert (row["cid"], row["t"], row["p"]) == pytest.approx((np.mean(same) - np.mean(other), *welch))
        assert (row["arm"], row["level"], row["seed"]) == ("influence", 0.05, 2022)


def test_the_note_tells_the_last_value_of_every_curve():
    at = {(50, False, "update"): shifted(9), (50, True, "round"): shifted(0)}
    seen = [observed(seed, at, setting) for setting in (PLAIN, INFLUENCE) for seed in (1, 2)]
    assert cid_note(cid_table(seen)).endswith(
        "finetuning 0.25 [no interval: no spread]; influence at 0.05 0.25 [no interval: no spread]."
    )
    assert cid_note(cid_table(seen[:1])).endswith("finetuning 0.25 [no interval: one trial].")
