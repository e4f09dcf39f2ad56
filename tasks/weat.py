"""The Word Embedding Association Test (Caliskan et al. 2017): effect size, permutation test, halves of the lists.

The formulas work for numpy arrays and for torch tensors, in which they are differentiable in every vector.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from tasks.data.word_lists import WeatLists
from tasks.seeds import generator

Array = TypeVar("Array", bound=Any)  # np.ndarray or torch.Tensor
Statistic = Literal["effect_size", "mean_difference"]
Ddof = Literal[0, 1]

MOST_EXACT = 20_000  # number of partitions: C(16, 8) = 12,870 are enumerated, C(20, 10) = 184,756 are sampled
_CHUNK = 10_000


@np.errstate(divide="ignore", invalid="ignore")
def unit(vectors: Array) -> Array:
    """Return vectors [..., dim] at length one; NaN where a vector is zero."""
    return vectors / ((vectors * vectors).sum(-1) ** 0.5)[..., None]


def associations(words: Array, a: Array, b: Array | None = None) -> Array:
    """Return s(w, A, B) = mean over A of cos(w, a) - mean over B of cos(w, b); without B the first term alone.

    words [n, dim], a [n_a, dim], b [n_b, dim] -> [n], in [-2, 2]. Caliskan et al. 2017; Silva et al. 2022, Eq. 11, and
    section 4.3.1 for the one-sided form.
    """
    attribute = unit(a).mean(0) if b is None else unit(a).mean(0) - unit(b).mean(0)
    return unit(words) @ attribute


@np.errstate(divide="ignore", invalid="ignore")
def statistic_of(s: Array, n_x: int, *, statistic: Statistic = "effect_size", ddof: Ddof = 1) -> Array:
    """Return the mean of s over X minus that over Y, divided by the sd of s over X u Y (not for `mean_difference`).

    s [n_x + n_y]: associations of X, then of Y. Positive: X is closer to A (or farther from B) than Y. The sd divides
    the sum of squares by n - 1 with `ddof` 1, by n with `ddof` 0.
    """
    difference = s[:n_x].mean() - s[n_x:].mean()
    if statistic == "mean_difference":
        return difference
    return difference / (((s - s.mean()) ** 2).sum() / (len(s) - ddof)) ** 0.5


def weat(
    targets: Array,
    n_x: int,
    a: Array,
    b: Array | None = None,
    *,
    statistic: Statistic = "effect_size",
    ddof: Ddof = 1,
    absolute: bool = False,
) -> Array:
    """Return the WEAT statistic, a scalar, of targets [n_x + n_y, dim] (X, then Y), a [n_a, dim] and b [n_b, dim] or None.

    Silva et al. 2022, Eqs. 11-12, with the denominator of Caliskan et al. 2017 (theirs is misprinted). Their influence
    code has ddof 1 and keeps the sign, their text has `absolute`, their evaluation has ddof 0. NaN where a vector is
    zero.
    """
    value = statistic_of(associations(targets, a, b), n_x, statistic=statistic, ddof=ddof)
    return abs(value) if absolute else value


@dataclass(frozen=True)
class PermutationTest:
    """The p-value over `n_partitions` partitions: all of them if `exact`, else a random sample."""

    p: float
    n_partitions: int
    exact: bool


def permutation_test(
    s: np.ndarray, n_x: int, *, two_sided: bool = False, n_samples: int = 10_000, seed: int = 0
) -> PermutationTest:
    """Return how often X and Y of these sizes, drawn from X u Y, differ at least as much as the ones given.

    s [n_x + n_y]: associations of X, then of Y; difference d = mean of s over X_i - mean over Y_i. One-sided (Caliskan
    et al. 2017): the share of partitions with d_i >= d; two-sided: |d_i| >= |d|. The given partition counts, so p > 0.
    Up to `MOST_EXACT` partitions are enumerated; otherwise `n_samples` are drawn and p = (1 + count) / (1 + n_samples).
    NaN if an association is NaN.
    """
    s = np.asarray(s, np.float64)
    n_all = math.comb(len(s), n_x)
    exact = n_all <= MOST_EXACT
    n_partitions = n_all if exact else n_samples
    if not np.isfinite(s).all():
        return PermutationTest(math.nan, n_partitions, exact)
    observed = _extremity(s, np.arange(n_x)[None], two_sided)[0]
    least = observed - 1e-12 * np.abs(s).sum()  # tolerance for the order of summation
    chunks = _all_subsets(len(s), n_x) if exact else _drawn_subsets(len(s), n_x, n_samples, seed)
    count = sum(int((_extremity(s, subsets, two_sided) >= least).sum()) for subsets in chunks)
    return PermutationTest(count / n_all if exact else (1 + count) / (1 + n_samples), n_partitions, exact)


def _extremity(s: np.ndarray, subsets: np.ndarray, two_sided: bool) -> np.ndarray:
    """Return the mean over each subset [n, n_x] minus the mean over the rest: [n]."""
    n_x = subsets.shape[1]
    inside = s[subsets].sum(1)
    difference = inside / n_x - (s.sum() - inside) / (len(s) - n_x)
    return np.abs(difference) if two_sided else difference


def _all_subsets(n: int, n_x: int) -> list[np.ndarray]:
    return [np.array(list(itertools.combinations(range(n), n_x)))]


def _drawn_subsets(n: int, n_x: int, n_samples: int, seed: int) -> Iterator[np.ndarray]:
    random = generator(seed, "weat permutations")
    for start in range(0, n_samples, _CHUNK):
        rows = np.tile(np.arange(n), (min(_CHUNK, n_samples - start), 1))
        yield random.permuted(rows, axis=1)[:, :n_x]


def halves(lists: WeatLists, seed: int) -> tuple[WeatLists, WeatLists]:
    """Split every list in two by a permutation keyed (seed, its words).

    This allows choosing settings on one half and reporting on the other. The first half of an odd list is the larger.
    The split of a list does not depend on its order or on its letter, so the halves of `art` are those of `science`.
    """
    parts = {letter: _halved(words, seed) for letter, words in lists.named().items()}
    first, second = ({letter: part[side] for letter, part in parts.items()} for side in (0, 1))
    return WeatLists(**first), WeatLists(**second)


def _halved(words: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ordered = sorted(words)
    shuffled = generator(seed, "word list halves", zlib.crc32("\n".join(ordered).encode())).permutation(len(ordered))
    first = {ordered[position] for position in shuffled[: -(-len(ordered) // 2)]}
    return tuple(w for w in words if w in first), tuple(w for w in words if w not in first)
