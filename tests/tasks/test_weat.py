import itertools
import math

import numpy as np
import pytest
import torch

from tasks.data.word_lists import WEATS, WeatLists
from tasks.weat import MOST_EXACT, associations, halves, permutation_test, statistic_of, weat

N_X, N_Y, N_A, N_B, DIM = 5, 4, 3, 6, 7


def vectors(seed=0):
    random = np.random.default_rng(seed)
    return tuple(random.normal(size=(n, DIM)) for n in (N_X + N_Y, N_A, N_B))


def cosine(one, other):
    return sum(p * q for p, q in zip(one, other, strict=True)) / math.sqrt(
        sum(p * p for p in one) * sum(q * q for q in other)
    )


def brute_force(targets, n_x, a, b, ddof, numerator_only=False):
    """Caliskan et al. 2017, word by word."""
    s = [math.fsum(cosine(w, v) for v in a) / len(a) for w in targets]
    if b is not None:
        s = [value - math.fsum(cosine(w, v) for v in b) / len(b) for value, w in zip(s, targets, strict=True)]
    difference = math.fsum(s[:n_x]) / n_x - math.fsum(s[n_x:]) / (len(s) - n_x)
    mean = math.fsum(s) / len(s)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in s) / (len(s) - ddof))
    return difference if numerator_only else difference / deviation


def test_effect_of_axis_aligned_words_in_closed_form():
    # X lies on A, Y on B: s = +-1, difference 2, deviation 1 (ddof 0) or sqrt(4 / 3) (ddof 1)
    targets = np.array([[1.0, 0], [3, 0], [0, 2], [0, 1]])
    a, b = np.array([[5.0, 0]]), np.array([[0, 0.5]])
    assert associations(targets, a, b) == pytest.approx([1, 1, -1, -1])
    assert weat(targets, 2, a, b, ddof=0) == pytest.approx(2)
    assert weat(targets, 2, a, b, ddof=1) == pytest.approx(2 / math.sqrt(4 / 3))
    assert weat(targets, 2, a, b, statistic="mean_difference") == pytest.approx(2)
    assert weat(targets, 2, a, statistic="mean_difference") == pytest.approx(1)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_effect_equals_the_definition_word_by_word(seed, ddof, one_sided):
    targets, a, b = vectors(seed)
    b = None if one_sided else b
    assert weat(targets, N_X, a, b, ddof=ddof) == pytest.approx(brute_force(targets, N_X, a, b, ddof), rel=1e-12)
    difference = weat(targets, N_X, a, b, statistic="mean_difference")
    assert difference == pytest.approx(brute_force(targets, N_X, a, b, ddof, numerator_only=True), rel=1e-12)
    absolute = weat(targets, N_X, a, b, ddof=ddof, absolute=True)
    assert absolute == pytest.approx(abs(brute_force(targets, N_X, a, b, ddof)), rel=1e-12)


def test_the_lengths_of_vectors_do_not_matter():
    parts = vectors(1)
    random = np.random.default_rng(2)
    scaled = [part * random.uniform(0.1, 10, (len(part), 1)) for part in parts]
    assert weat(scaled[0], N_X, *scaled[1:]) == pytest.approx(weat(parts[0], N_X, *parts[1:]), rel=1e-12)


def test_exchanging_attributes_flips_the_sign_to_the_bit_and_exchanging_targets_flips_it():
    targets, a, b = vectors(3)
    exchanged = np.concatenate([targets[N_X:], targets[:N_X]])
    assert weat(targets, N_X, b, a) == -weat(targets, N_X, a, b)
    assert weat(exchanged, N_Y, a, b) == pytest.approx(-weat(targets, N_X, a, b), rel=1e-12)


def test_the_effect_is_bounded_by_two():
    for seed in range(20):
        targets, a, b = vectors(seed)
        assert abs(weat(targets[:8], 4, a, b, ddof=0)) <= 2 + 1e-12


def test_a_zero_vector_has_no_association():
    targets, a, b = vectors(4)
    targets[0] = 0
    assert math.isnan(weat(targets, N_X, a, b))


@pytest.mark.parametrize(
    "options", [{}, {"ddof": 0}, {"absolute": True}, {"statistic": "mean_difference"}, {"one_sided": True}]
)
def test_the_torch_twin_is_equal_and_its_gradient_is_that_of_finite_differences(options):
    options = dict(options)
    parts = vectors(5)[: 2 if options.pop("one_sided", False) else 3]
    tensors = [torch.tensor(part, requires_grad=True) for part in parts]

    def twin(targets, *attributes):
        return weat(targets, N_X, *attributes, **options)

    assert twin(*tensors).item() == pytest.approx(twin(*parts), rel=1e-12)
    assert torch.autograd.gradcheck(twin, tensors)


def test_the_gradient_is_orthogonal_to_each_vector():
    """Only directions count, so no vector's length has a gradient."""
    tensors = [torch.tensor(part, requires_grad=True) for part in vectors(6)]
    gradients = torch.autograd.grad(weat(tensors[0], N_X, *tensors[1:]), tensors)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close((tensor * gradient).sum(1), torch.zeros(len(tensor), dtype=torch.float64))


def all_differences(s, n_x):
    for chosen in itertools.combinations(range(len(s)), n_x):
        rest = [s[i] for i in range(len(s)) if i not in chosen]
        yield math.fsum(s[i] for i in chosen) / n_x - math.fsum(rest) / len(rest)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("n_x", "n_y"), [(4, 4), (5, 3), (1, 6)])
def test_the_exact_p_value_counts_every_partition(n_x, n_y, two_sided):
    s = np.random.default_rng(n_x).normal(size=n_x + n_y) + np.r_[np.full(n_x, 0.5), np.zeros(n_y)]
    observed = s[:n_x].mean() - s[n_x:].mean()
    differences = list(all_differences(s, n_x))
    extreme = [abs(d) >= abs(observed) - 1e-9 if two_sided else d >= observed - 1e-9 for d in differences]
    found = permutation_test(s, n_x, two_sided=two_sided)
    assert (found.exact, found.n_partitions) == (True, len(differences))
    assert found.p == pytest.approx(sum(extreme) / len(differences), abs=1e-15)


def test_the_most_extreme_partition_has_the_smallest_p_value_there_is():
    s = np.arange(16.0)[::-1]
    assert permutation_test(s, 8).p == 1 / math.comb(16, 8)
    assert permutation_test(s, 8, two_sided=True).p == 2 / math.comb(16, 8)
    assert permutation_test(s[::-1], 8).p == 1.0


def test_equal_associations_are_ties_and_ties_count():
    assert permutation_test(np.full(8, 0.1), 4).p == 1.0
    s = np.array([0.3, 0.1, 0.2, 0.3, 0.1, 0.2])  # X and Y equal, in other orders of summing
    at_least = [d >= -1e-12 for d in all_differences(s, 3)]
    assert permutation_test(s, 3).p == sum(at_least) / len(at_least)


def test_many_partitions_are_sampled_close_to_the_exact_share():
    s = np.random.default_rng(8).normal(size=18) + np.r_[np.full(9, 0.4), np.zeros(9)]
    assert math.comb(18, 9) > MOST_EXACT
    observed = s[:9].mean() - s[9:].mean()
    subsets = np.array(list(itertools.combinations(range(18), 9)))
    exact = (s[subsets].mean(1) - (s.sum() - s[subsets].sum(1)) / 9 >= observed - 1e-9).mean()
    found = permutation_test(s, 9, n_samples=25_000, seed=1)
    assert (found.exact, found.n_partitions) == (False, 25_000)
    assert found.p == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 25_000))
    assert found == permutation_test(s, 9, n_samples=25_000, seed=1)
    assert found != permutation_test(s, 9, n_samples=25_000, seed=2)


def test_a_sampled_p_value_is_never_zero():
    assert permutation_test(np.arange(40.0)[::-1], 20, n_samples=99).p == 1 / 100


def test_under_the_null_the_exact_p_value_is_uniform():
    random = np.random.default_rng(9)
    values = [permutation_test(random.normal(size=8), 4).p for _ in range(400)]
    for level in (0.1, 0.3, 0.5, 0.9):
        share = np.mean(np.array(values) <= level + 1e-12)
        expected = math.floor(level * 70 + 1e-9) / 70
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))


def test_an_undefined_association_leaves_the_p_value_undefined():
    assert math.isnan(permutation_test(np.array([0.1, math.nan, 0.2, 0.3]), 2).p)


def test_statistic_of_associations_needs_no_vectors():
    assert statistic_of(np.array([1.0, 3, 0, 0]), 2, statistic="mean_difference") == 2
    assert statistic_of(np.array([1.0, 3, 0, 0]), 2, ddof=0) == pytest.approx(2 / math.sqrt(1.5))


@pytest.mark.parametrize("name", sorted(WEATS))
def test_halves_share_no_word_and_lose_none(name):
    first, second = halves(WEATS[name], 3)
    for letter, words in WEATS[name].named().items():
        one, other = first.named()[letter], second.named()[letter]
        assert set(one) | set(other) == set(words)
        assert not set(one) & set(other)
        assert 0 <= len(one) - len(other) <= 1
        assert [word for word in words if word in one] == list(one)


def test_halves_are_keyed_by_the_words_and_the_seed_alone():
    science, art = (halves(WEATS[name], 0)[0] for name in ("science", "art"))
    assert (art.x, art.a, art.b) == (science.x, science.b, science.a)
    turned = WeatLists(*(words[::-1] for words in WEATS["career"].named().values()))
    assert set(halves(turned, 0)[0].x) == set(halves(WEATS["career"], 0)[0].x)
    assert len({halves(WEATS["career"], seed)[0].x for seed in range(20)}) > 5
