"""The simulation behind docs/results/interval_coverage.md: what it counts, on few campaigns."""

import numpy as np
import pytest

from benchmarks.interval_coverage import RATIOS, choose_cells
from benchmarks.interval_shapes import LEVEL, SHAPES, Shape, false_alarms, rare, shape_row
from orchestrator.analysis.intervals import estimate
from orchestrator.analysis.over_queries import query_levels
from orchestrator.analysis.sign_flips import sign_flip_p

N = 300


@pytest.mark.parametrize(("n_queries", "n_repeats", "n_missing"), [(8, 3, 0), (8, 3, 5)])
def test_taking_seeds_as_given_is_to_leave_their_mean_out(n_queries, n_repeats, n_missing):
    rng = np.random.default_rng(2)
    complete = choose_cells(rng, n_queries, n_repeats, n_missing)
    queries, seeds, residual = (
        rng.normal(size=(N, *shape)) for shape in ((n_queries, 1), (1, n_repeats), (n_queries, n_repeats))
    )
    found = false_alarms(complete, queries, seeds, residual, RATIOS)
    assert list(found) == RATIOS
    for q, r, e in [(0.3, 1.0, 0.3), (1.0, 0.3, 0.3), (0.0, 1.0, 0.3)]:
        y = q * queries + r * seeds + e * residual
        given = query_levels(y - r * seeds.mean(axis=-1, keepdims=True), complete)
        flips = np.array([sign_flip_p(x) for x in given]) < LEVEL
        other = np.array([sign_flip_p(x) for x in query_levels(y, complete)]) < LEVEL
        t = estimate(y, complete).p < LEVEL
        np.testing.assert_array_equal(found[q, r, e], [t.sum(), flips.sum(), other.sum(), (t & other).sum()])


def test_sizes_are_those_of_an_exact_test_except_for_other_seeds():
    rng = np.random.default_rng(3)
    draws = (rng.normal(size=(N, *shape)) for shape in ((9, 1), (1, 3), (9, 3)))
    found = false_alarms(np.ones((9, 3), bool), *draws, RATIOS)
    error = np.sqrt(LEVEL * (1 - LEVEL) / N)
    assert max(given for _, given, _, _ in found.values()) / N < LEVEL + 4 * error
    assert found[0.0, 1.0, 0.3][2] / N > 0.5
    assert found[0.0, 1.0, 0.0][1] == 0


def test_a_row_tells_what_t_misses_and_the_share_does_not():
    noisy = shape_row(Shape("rare: -1 with probability 0.1, noise 0.01", rare(0.1, 0.01)), 5, 3, 1000)
    assert noisy["given"] == 1
    assert noisy["coverage"] == pytest.approx(1 - 0.9**5, abs=0.06)
    assert noisy["coverage_share"] > 0.95
    assert noisy["flip_size"] == 0
    still = shape_row(Shape("rare: -1 with probability 0.1", rare(0.1)), 5, 3, 1000)
    assert still["given"] == pytest.approx(1 - 0.9**5, abs=0.06)
    assert still["coverage"] > 0.95


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_between_two_methods_of_one_shape_sign_flips_keep_their_level(shape):
    assert shape_row(shape, 10, 3, 500)["flip_size"] < LEVEL + 4 * np.sqrt(LEVEL * (1 - LEVEL) / 500)
