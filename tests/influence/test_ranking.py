import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.ranking import GROUPS, least, opponents, proponents, ranked

IDS = np.array([50, 10, 40, 20, 30])
SCORES = np.array([1.0, -2.0, 1.0, 0.5, -2.0])


def test_groups_take_the_highest_the_lowest_and_the_smallest():
    assert proponents(SCORES, IDS, 3).tolist() == [40, 50, 20]
    assert opponents(SCORES, IDS, 3).tolist() == [10, 30, 20]
    assert least(SCORES, IDS, 3).tolist() == [20, 40, 50]


@pytest.mark.parametrize("group", GROUPS)
def test_ties_go_to_the_smaller_id(group):
    assert ranked(np.zeros(5), IDS, group).tolist() == [10, 20, 30, 40, 50]
    assert ranked(np.array([0.0, -0.0, 0.0, -0.0, 0.0]), IDS, group).tolist() == [10, 20, 30, 40, 50]


@given(st.lists(st.integers(-3, 3), min_size=5, max_size=5), st.permutations(range(5)), st.sampled_from(GROUPS))
def test_key_order_keeps_ids(scores, order, group):
    scores = np.array(scores, float)
    assert ranked(scores, IDS, group).tolist() == ranked(scores[order], IDS[order], group).tolist()


@pytest.mark.parametrize("group", GROUPS)
def test_sets_of_all_k_are_prefixes_of_one_ranking(group):
    take = {"proponents": proponents, "opponents": opponents, "least": least}[group]
    for k in range(6):
        assert take(SCORES, IDS, k).tolist() == ranked(SCORES, IDS, group)[:k].tolist()


@pytest.mark.parametrize("group", GROUPS)
def test_a_matrix_is_ranked_row_by_row(group):
    matrix = np.stack([SCORES, -SCORES, SCORES[::-1]])
    np.testing.assert_array_equal(ranked(matrix, IDS, group), [ranked(row, IDS, group) for row in matrix])


def test_bad_input_raises():
    with pytest.raises(ValueError, match="group 'best' is not one of proponents"):
        ranked(SCORES, IDS, "best")
    with pytest.raises(ValueError, match=r"k 6 is outside 0\.\.5"):
        proponents(SCORES, IDS, 6)
    with pytest.raises(ValueError, match="NaN"):
        ranked(np.array([np.nan] * 5), IDS, "least")
    with pytest.raises(ValueError, match="do not fit"):
        ranked(SCORES[:4], IDS, "least")
