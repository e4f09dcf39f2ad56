"""Influence distance: closed forms, its range, and clusters that were planted."""

import numpy as np
import pytest

from influence.diagnostics.mislabel_clusters import (
    LINKAGES,
    by_size,
    cluster,
    common_words,
    influence_distance,
    sizes_of,
)


def products(n: int = 30, width: int = 4, seed: int = 0) -> np.ndarray:
    phi = np.random.default_rng(seed).normal(size=(n, width))
    return phi @ phi.T


def planted(per_group: int = 5, groups: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of noisy copies of orthogonal directions, with norms that differ by orders of magnitude; and the groups."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), per_group)
    phi = np.eye(groups, 12)[group] + 0.03 * rng.normal(size=(len(group), 12))
    phi *= 10.0 ** rng.uniform(-3, 3, size=(len(group), 1))
    return phi @ phi.T, group


def test_distance_is_one_minus_the_cosine():
    phi = np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]])
    found = influence_distance(phi @ phi.T)
    root = 1 - 1 / np.sqrt(2)
    expected = [
        [0, 0, 1, 2, root],
        [0, 0, 1, 2, root],
        [1, 1, 0, 1, root],
        [2, 2, 1, 0, 2 - root],
        [root, root, root, 2 - root, 0],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_distance_is_symmetric_zero_on_the_diagonal_and_between_0_and_2(dtype):
    found = influence_distance(products().astype(dtype))
    assert (found == found.T).all()
    assert (np.diagonal(found) == 0).all()
    assert found.min() >= 0
    assert found.max() <= 2
    assert found.max() > 1.5  # the range is used: opposed examples are far apart


def test_distance_does_not_depend_on_the_scale_of_an_example():
    influence, scale = products(), 10.0 ** np.linspace(-4, 4, 30)
    np.testing.assert_allclose(
        influence_distance(influence * np.outer(scale, scale)), influence_distance(influence), atol=1e-12
    )


def test_an_example_without_influence_is_at_distance_1():
    influence = products(3)
    influence[1] = influence[:, 1] = 0
    found = influence_distance(influence)
    assert found[1].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("influence", "problem"),
    [
        (np.ones((2, 3)), "square"),
        (np.full((2, 2), np.nan), "finite"),
        (np.array([[-1.0, 0.0], [0.0, 1.0]]), "negative influence on itself"),
        (np.array([[1.0, 1.2], [1.2, 1.0]]), "more than themselves"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
    ],
)
def test_scores_that_are_no_inner_products_are_refused(influence, problem):
    with pytest.raises(ValueError, match=problem):
        influence_distance(influence)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_planted_clusters_are_found_whatever_the_norms(linkage):
    influence, group = planted()
    labels = cluster(influence_distance(influence), linkage)
    assert len(np.unique(labels)) == 3
    assert all(len(np.unique(labels[group == g])) == 1 for g in range(3))
    assert sizes_of(labels).tolist() == [5] * 15


@pytest.mark.parametrize("linkage", LINKAGES)
def test_clusters_do_not_depend_on_the_order_of_the_examples(linkage):
    influence = products(40, width=12)
    order = np.random.default_rng(1).permutation(40)
    labels = cluster(influence_distance(influence), linkage, 0.4)
    permuted = cluster(influence_distance(influence[np.ix_(order, order)]), linkage, 0.4)
    together = labels[:, None] == labels[None, :]
    assert ((permuted[:, None] == permuted[None, :]) == together[np.ix_(order, order)]).all()
    assert 1 < len(np.unique(labels)) < 40


def test_linkage_decides_whether_a_chain_is_one_cluster():
    place = np.arange(6) * 0.5  # neighbours at distance 0.5
    chain = np.abs(place[:, None] - place[None, :])
    assert len(np.unique(cluster(chain, "single", 0.8))) == 1
    assert len(np.unique(cluster(chain, "complete", 0.8))) == 3


def test_clusters_are_numbered_by_size_and_then_by_first_member():
    assert by_size(np.array([7, 3, 3, 9, 7, 3, 1])).tolist() == [1, 0, 0, 2, 1, 0, 3]
    assert sizes_of(by_size(np.array([7, 3, 3, 9, 7, 3, 1]))).tolist() == [2, 3, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_examples_are_no_special_case(n):
    assert cluster(np.zeros((n, n))).tolist() == [0] * n
    assert sizes_of(np.zeros(n, np.int64)).tolist() == [1] * n


def test_common_words_have_the_largest_mean_contribution_over_all_pairs():
    pairs = [[(5, 3.0), (6, -1.0), (0, 9.0)], [(5, 1.0), (7, 8.0)], [(6, 0.5), (8, 1.0), (9, 1.0)], []]
    assert common_words(pairs, frozenset({0})) == [(7, 2.0), (5, 1.0), (8, 0.25), (9, 0.25)]
    assert common_words([]) == []
