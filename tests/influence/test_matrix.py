from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.matrix import ScoreMatrix, assemble, from_foreign
from influence.ranking import ranked

QUERIES, TRAIN = np.array([7, 3]), np.array([10, 40, 20, 30, 50])
SCORES = np.arange(10, dtype=np.float32).reshape(2, 5)


def blocks(*cuts):
    return [(a, b, SCORES[:, a:b]) for a, b in cuts]


@given(st.sets(st.integers(1, 4)), st.randoms())
def test_any_cut_in_any_order_assembles_to_the_same_matrix(cuts, random):
    edges = [0, *sorted(cuts), 5]
    parts = blocks(*pairwise(edges))
    random.shuffle(parts)
    np.testing.assert_array_equal(assemble(QUERIES, TRAIN, parts).scores, SCORES)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ([(0, 2), (3, 5)], r"no score block covers train positions \[2, 3\)"),
        ([(3, 5)], r"no score block covers train positions \[0, 3\)"),
        ([(0, 4)], r"no score block covers train positions \[4, 5\)"),
        ([], r"no score block covers train positions \[0, 5\)"),
        ([(0, 3), (2, 5)], r"two score blocks cover train positions \[2, 3\)"),
        ([(2, 5), (0, 5)], r"two score blocks cover train positions \[2, 5\)"),
        ([(0, 5), (0, 5)], r"two score blocks cover train positions \[0, 5\)"),
    ],
)
def test_gaps_and_overlaps_raise_naming_the_range(cuts, message):
    with pytest.raises(ValueError, match=message):
        assemble(QUERIES, TRAIN, blocks(*cuts))


def test_blocks_outside_or_of_the_wrong_shape_raise():
    with pytest.raises(ValueError, match=r"\[4, 6\) is outside \[0, 5\)"):
        assemble(QUERIES, TRAIN, [(4, 6, np.zeros((2, 2)))])
    with pytest.raises(ValueError, match=r"\[0, 5\) has shape \(5, 2\), not \(2, 5\)"):
        assemble(QUERIES, TRAIN, [(0, 5, SCORES.T)])


def test_empty_blocks_and_empty_train_sets_are_fine():
    assert assemble(QUERIES, TRAIN, [(5, 5, SCORES[:, :0]), *blocks((0, 5))]).scores.shape == (2, 5)
    assert assemble(QUERIES, TRAIN[:0], []).scores.shape == (2, 0)


@pytest.mark.parametrize(
    ("queries", "train", "scores", "message"),
    [
        (QUERIES, TRAIN, SCORES.T, r"shape \(5, 2\); the ids give \(2, 5\)"),
        ([7, 7], TRAIN, SCORES, "query id 7 appears 2 times"),
        (QUERIES, [1, 2, 3, 2, 4], SCORES, "train id 2 appears 2 times"),
        (QUERIES, TRAIN, np.where(SCORES == 7, np.nan, SCORES), "query 3, train 20 is nan"),
        (QUERIES, TRAIN, np.where(SCORES == 7, 1e300, SCORES.astype(float)), "query 3, train 20 is inf"),
        ([[7, 3]], TRAIN, SCORES, "query ids have 2 axes"),
    ],
)
def test_bad_matrices_raise(queries, train, scores, message):
    with pytest.raises(ValueError, match=message):
        ScoreMatrix(np.asarray(queries), np.asarray(train), scores)


def test_a_query_may_have_no_scores_at_all():
    scores = SCORES.copy()
    scores[1] = np.nan
    matrix = ScoreMatrix(QUERIES, TRAIN, scores)
    assert matrix.diverged.tolist() == [False, True]
    assert matrix.reordered(QUERIES[::-1], TRAIN[:2]).diverged.tolist() == [True, False]
    assert assemble(QUERIES, TRAIN, [(0, 2, scores[:, :2]), (2, 5, scores[:, 2:])]).diverged.tolist() == [False, True]
    assert not ScoreMatrix(QUERIES, TRAIN[:0], scores[:, :0]).diverged.any()
    with pytest.raises(ValueError, match="scores hold NaN and cannot be ranked"):
        ranked(matrix.row(3), TRAIN, "proponents")
    scores[1, 2] = 0
    with pytest.raises(ValueError, match="query 3, train 10 is nan"):
        ScoreMatrix(QUERIES, TRAIN, scores)


def test_foreign_scores_must_be_there_for_every_query():
    scores = SCORES.copy()
    scores[1] = np.nan
    with pytest.raises(ValueError, match="all scores of query number 2 are NaN"):
        from_foreign(scores, "query_train", "helpful_positive")
    with pytest.raises(ValueError, match="all scores of query number 2 are NaN"):
        from_foreign(scores.T, "train_query", "harmful_positive")


def test_a_matrix_cannot_be_changed_and_does_not_share_memory():
    scores = SCORES.copy()
    matrix = ScoreMatrix(QUERIES, TRAIN, scores)
    scores[:] = 0
    np.testing.assert_array_equal(matrix.scores, SCORES)
    with pytest.raises(ValueError, match="read-only"):
        matrix.scores[0, 0] = 1


def test_rows_and_reordering_go_by_id():
    matrix = ScoreMatrix(QUERIES, TRAIN, SCORES)
    np.testing.assert_array_equal(matrix.row(3), SCORES[1])
    np.testing.assert_array_equal(matrix.reordered(np.array([3, 7]), np.array([50, 10])).scores, [[9, 5], [4, 0]])
    with pytest.raises(KeyError, match="train id 60 has no scores"):
        matrix.reordered(QUERIES, np.array([60]))
    with pytest.raises(KeyError, match="query id 4 has no scores"):
        matrix.row(4)


@pytest.mark.parametrize("axes", ["query_train", "train_query"])
@pytest.mark.parametrize("orientation", ["helpful_positive", "harmful_positive"])
def test_foreign_axes_and_signs_are_converted(axes, orientation):
    foreign = SCORES.T if axes == "train_query" else SCORES
    foreign = -foreign if orientation == "harmful_positive" else foreign
    np.testing.assert_array_equal(from_foreign(foreign, axes, orientation), SCORES)


@pytest.mark.parametrize(
    ("array", "axes", "orientation"),
    [
        (SCORES[0], "query_train", "helpful_positive"),
        (SCORES, "rows", "helpful_positive"),
        (SCORES, "query_train", "up"),
    ],
)
def test_unknown_conventions_raise(array, axes, orientation):
    with pytest.raises(ValueError, match=r"axes|orientation"):
        from_foreign(array, axes, orientation)
