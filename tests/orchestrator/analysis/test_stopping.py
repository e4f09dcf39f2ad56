"""When a curve has repeats enough: the rule at a barrier, and whether the interval still holds the truth after it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from orchestrator.analysis import tables
from orchestrator.analysis.by_curve import by_curve
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.contrasts import contrast_rows
from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.repeats import needs_repeat, reached, savings
from orchestrator.analysis.stopping import Stopping, Z

RULE = Stopping(least=4, most=16, target_se=0.01)
METHODS, GROUPS = ("calm", "wide", "random"), ("proponents", "opponents")


def cells_of(sd, n_repeats=6, n_queries=3, seed=0, rule: Stopping | None = RULE, n_asked=None):
    """Cells whose curves have standard deviations `sd` [n_methods] over repeats."""
    rng = np.random.default_rng(seed)
    shape = (len(METHODS), len(GROUPS), 2, n_queries, n_repeats)
    reference = rng.normal(size=(n_queries, n_repeats))
    delta = rng.normal(size=(*shape[:2], 1, 1, n_repeats)) + 0.1 * rng.normal(size=shape)
    delta *= np.array(sd).reshape(-1, 1, 1, 1, 1)
    if n_asked is not None:
        delta = np.where(np.arange(n_repeats) < np.array(n_asked)[:, :, None, None, None], delta, np.nan)
    asked = None if n_asked is None else np.array(n_asked)
    return Cells(
        METHODS, GROUPS, (1, 2), range(n_queries), range(n_repeats), delta, delta + reference, reference,
        n_asked=asked, stopping=rule,
    )  # fmt: skip


def first_repeats(cells, n):
    values, reference = np.asarray(cells.values)[..., :n], np.asarray(cells.reference)[..., :n]
    return replace(cells, repeats=range(n), delta=cells.delta[..., :n], values=values, reference=reference)


def test_a_curve_ends_when_its_widened_half_width_is_within_the_target():
    n = 6
    cells = cells_of((0.01, 0.02, 0.02), n)
    by_repeat = cells.auc.mean(axis=2)
    half = (1 + 6 / (4 * n)) * stdtrit(n - 1, 0.975) * by_repeat.std(axis=-1, ddof=1) / math.sqrt(n)
    assert half[0, 0] > 0
    for curve in np.ndindex(half.shape):
        exactly = replace(RULE, target_se=half[curve] / Z * 1.0001)
        assert reached(exactly, replace(cells, stopping=exactly))[curve]
        assert not reached(replace(exactly, target_se=half[curve] / Z * 0.9999), cells)[curve]


def test_intervals_are_widened_between_min_and_max_only():
    assert [RULE.widening(n) for n in (4, 5, 10, 16)] == [1, 1 + 6 / 20, 1 + 6 / 40, 1]
    for n in (4, 10, 16):
        cells = cells_of((1, 1, 1), n)
        plain, found = estimate(cells.auc, cells.complete), by_curve(cells, cells.auc)
        assert found.se_fixed == pytest.approx(plain.se_fixed * RULE.widening(n), rel=1e-12)
        assert (found.mean == plain.mean).all()
        assert (found.se >= plain.se * (1 - 1e-12)).all()


def test_nothing_is_widened_in_a_fixed_design():
    cells = cells_of((1, 1, 1), 10, rule=None)
    assert np.array_equal(by_curve(cells, cells.auc).se_fixed, estimate(cells.auc, cells.complete).se_fixed)


def test_calm_curves_end_and_wide_ones_go_on_and_the_control_goes_with_them():
    cells = cells_of((1e-4, 10.0, 1e-4), 4)
    assert needs_repeat(RULE, cells).tolist() == [[False] * 2, [True] * 2, [True] * 2]
    assert not needs_repeat(RULE, cells_of((1e-4,) * 3, 4)).any()


def test_the_control_of_a_group_does_not_wait_for_another_group():
    cells = cells_of((1e-4, 10.0, 1e-4), 5, n_asked=[[4, 4], [4, 5], [4, 5]])
    assert needs_repeat(RULE, cells).tolist() == [[False, False], [False, True], [False, True]]


def test_a_curve_that_ended_is_not_asked_again_and_none_beyond_max():
    cells = cells_of((10.0, 10.0, 10.0), 6, n_asked=[[5, 6], [6, 6], [6, 6]])
    assert not needs_repeat(RULE, cells)[0, 0]
    assert needs_repeat(RULE, cells)[1, 1]
    assert not needs_repeat(replace(RULE, most=6), cells).any()


def test_repeats_that_are_lost_do_not_count_toward_min():
    cells = cells_of((1e-4, 1e-4, 1e-4), 4)
    delta = cells.delta.copy()
    delta[0, 0, 0, :, 2] = np.nan  # a whole repeat of one curve: left out for all
    assert needs_repeat(RULE, replace(cells, delta=delta)).all()


def test_a_curve_without_spread_ends_at_min():
    assert not needs_repeat(RULE, cells_of((0.0, 0.0, 0.0), 4)).any()


def test_what_was_not_asked_is_no_hole_and_changes_no_other_curve():
    asked = [[4, 4], [9, 9], [9, 9]]
    cells, everything = cells_of((1, 1, 1), 9, n_asked=asked), cells_of((1, 1, 1), 9)
    assert cells.complete.all()
    assert tables.holes(cells).empty
    ours, fixed = tables.summary(cells), tables.summary(everything)
    assert ours.n_repeats.tolist() == [4, 4, 9, 9, 9, 9]
    assert ours[2:].equals(fixed[2:])
    first = first_repeats(everything, 4)
    assert ours[:2].equals(tables.summary(first)[:2])
    assert tables.pairing(cells)[:2].equals(tables.pairing(first)[:2])
    assert set(tables.curves(cells).query("method == 'calm'").n_repeats) == {4}
    assert set(tables.query_curves(cells).query("method == 'calm'").n_repeats) == {4}


def test_a_hole_counts_only_for_curves_that_were_asked_for_its_repeat():
    cells = cells_of((1, 1, 1), 9, n_asked=[[4, 4], [9, 9], [9, 9]])
    delta = cells.delta.copy()
    delta[1, 0, 0, 1, 6] = np.nan
    holed = tables.summary(replace(cells, delta=delta))
    assert holed.n_excluded.tolist() == [0, 0, 1, 1, 1, 1]
    assert holed[:2].equals(tables.summary(cells)[:2])


def test_two_methods_are_compared_on_the_repeats_that_both_have():
    rows = contrast_rows(cells_of((1, 1, 1), 9, n_asked=[[4, 4], [9, 9], [9, 9]]))
    by_pair = {(row["method"], row["baseline"]): row["n_repeats"] for row in rows}
    assert by_pair == {("calm", "random"): 4, ("wide", "random"): 9, ("calm", "wide"): 4}


def test_what_was_saved_is_counted_against_the_same_and_the_most_repeats():
    cells = cells_of((1e-4, 1, 1), 9, n_asked=[[4, 4], [9, 9], [9, 9]])
    designs = tables.designs(cells, n_retrains=70, n_full_repeat=10)
    assert designs.n_retrains.tolist() == [70, 90, 160]
    assert designs.saved.tolist() == [0, 20, 90]
    assert tables.repeats(cells).ended.tolist() == ["target", "target", "max", "max", "max", "max"]
    said = savings(cells, designs.to_dict("records"))
    assert "2 of 6 curves" in said
    assert "4 to 9 repeats" in said
    assert "90 (22% saved)" in said


def coverage_of(rule, spread, n_campaigns=6000, *, plain=False):
    """Coverage of the seed interval of one curve with standard deviation `spread` target_se, by the rule or by se <= target_se."""
    rng = np.random.default_rng(int(spread * 100))
    y = spread * rule.target_se * rng.normal(size=(n_campaigns, 1, rule.most))  # one query: repeats only
    hit, going = np.zeros(n_campaigns, bool), np.ones(n_campaigns, bool)
    for n in range(rule.least, rule.most + 1):
        found = estimate(y[..., :n], None, 1.0 if plain else rule.widening(n))
        low, high = found.ci_fixed
        ends = found.se_fixed <= rule.target_se if plain else (high - low) / 2 <= rule.target_half_width
        ends = going & (ends | (n == rule.most))
        hit[ends] = (low <= 0)[ends] & (high >= 0)[ends]
        going &= ~ends
    return hit.mean()


@pytest.mark.parametrize("rule", [RULE, replace(RULE, least=3, most=20)])
def test_the_seed_interval_covers_after_stopping_whatever_the_spread(rule):
    found = [coverage_of(rule, spread) for spread in (0.3, 1.5, 2.5, 3.5, 20.0)]
    assert min(found) > 0.925
    assert max(found) < 0.98


def test_stopping_on_the_standard_error_itself_would_not_cover():
    assert coverage_of(replace(RULE, least=3, most=20), 4.0, plain=True) < 0.915


def test_equal_answers_of_a_measurement_that_is_0_or_1_do_not_end_a_curve():
    """Equal answers in a few repeats do not show that every retrain would answer so."""
    reference, delta = np.zeros((3, 4)), np.zeros((1, 1, 1, 3, 4))
    cells = Cells(("m",), ("opponents",), (5,), range(3), range(4), delta, delta, reference, controls=())
    rule = Stopping(3, 8, 0.05)
    assert needs_repeat(rule, cells).all()
    assert not needs_repeat(rule, replace(cells, values=delta + 0.5, reference=reference + 0.5)).any()
    assert not needs_repeat(replace(rule, most=4), cells).any()
