"""More queries or more repeats: the variance parts behind the sentence, and when it is said."""

import numpy as np
import pytest

from orchestrator.analysis.advice import advice, curve_parts
from orchestrator.analysis.cells import Cells


def cells_of(of_queries, of_repeats, residual, n_queries=40, n_repeats=30, seed=0):
    rng = np.random.default_rng(seed)
    y = (
        of_queries * rng.normal(size=(2, 1, 1, n_queries, 1))
        + of_repeats * rng.normal(size=(2, 1, 1, 1, n_repeats))
        + residual * rng.normal(size=(2, 1, 1, n_queries, n_repeats))
    )
    return Cells(("judged", "random"), ("proponents",), (5,), range(n_queries), range(n_repeats), y)


def test_variance_parts_are_those_the_data_were_made_with():
    (parts,) = curve_parts(cells_of(2.0, 1.0, 3.0))
    assert (parts.method, parts.n_queries, parts.n_repeats) == ("judged", 40, 30)
    assert parts.queries == pytest.approx(4 / 40, rel=0.5)
    assert parts.repeats == pytest.approx(1 / 30, rel=0.6)
    assert parts.residual == pytest.approx(9 / 1200, rel=0.1)


def test_widths_scale_with_the_part_that_is_made_smaller():
    (parts,) = curve_parts(cells_of(2.0, 0.0, 0.0))
    assert parts.half_width_at(more_queries=4) == pytest.approx(parts.half_width / 2)
    assert parts.half_width_at(more_repeats=4) == pytest.approx(parts.half_width)
    (parts,) = curve_parts(cells_of(0.0, 2.0, 0.0))
    assert parts.half_width_at(more_repeats=4) == pytest.approx(parts.half_width / 2)


def test_queries_are_advised_where_they_vary_and_repeats_where_seeds_do():
    said = advice(cells_of(2.0, 0.1, 0.1), n_shared=5, n_per_query=2)
    assert said.startswith("proponents, judged: ")
    assert "40 more queries would take about 2400 retrains" in said  # 40 queries x 30 repeats x 2 sets
    assert advice(cells_of(0.1, 2.0, 0.1), n_shared=5, n_per_query=2) == ""


def test_repeats_that_cost_little_are_not_advised_against():
    cells = cells_of(1.0, 1.2, 0.1, seed=3)
    assert advice(cells, n_shared=1000, n_per_query=1)  # a repeat pays for all that is shared
    assert not advice(cells, n_shared=0, n_per_query=1)


@pytest.mark.parametrize(("n_queries", "n_repeats"), [(1, 5), (5, 1), (1, 1)])
def test_nothing_is_said_where_no_interval_can_be_had(n_queries, n_repeats):
    assert advice(cells_of(1.0, 1.0, 1.0, n_queries, n_repeats), 5, 2) == ""


def test_nothing_is_said_where_nothing_varies():
    assert advice(cells_of(0.0, 0.0, 0.0), 5, 2) == ""
