"""Draws skip-gram pairs and their negatives per sentence, so that no sentence changes the pairs of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from tasks.data.corpus import Sentences

WindowShape = Literal["symmetric", "published"]
NegativesPer = Literal["pair", "centre"]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_KEEP, _WIDTH, _SHARED, _FIRST_OFFSET = 1, 2, 3, 4  # counters of the draws of a word


def mixed(counter: np.ndarray) -> np.ndarray:
    """Hash uint64 [n] to uint64 [n] that look random: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = counter ^ (counter >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def draws(keys: np.ndarray, counter: np.ndarray | int) -> np.ndarray:
    """Return draw number `counter` (0, 1, ...) of the streams `keys` (uint64), broadcast: SplitMix64 without a state."""
    number = np.atleast_1d(np.asarray(counter, np.uint64))  # the product of two scalars would warn on overflow
    return mixed(keys + (number + np.uint64(1)) * _STEP)


def below(random: np.ndarray, n: int) -> np.ndarray:
    """Return whole numbers 0 .. n - 1 from the upper 32 bits of uint64 draws; n < 2^32."""
    return ((random >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32)


class NoiseTable:
    """Draws words with p(w) proportional to count(w)^power from one 64-bit draw each, by Walker's alias method.

    power 0.75: Mikolov et al. 2013; 1.0: "according to their prevalence" (Silva et al. 2022, appendix H).
    """

    def __init__(self, counts: np.ndarray, power: float):
        shares = np.asarray(counts, np.float64) ** power
        level = shares * (len(shares) / shares.sum())
        self.alias = np.arange(len(shares), dtype=np.int32)
        small, large = np.flatnonzero(level < 1).tolist(), np.flatnonzero(level >= 1).tolist()
        while small and large:
            low, high = small.pop(), large[-1]
            self.alias[low] = high
            level[high] -= 1 - level[low]
            if level[high] < 1:
                small.append(large.pop())
        level[large] = level[small] = 1  # the remaining bins differ from 1 only by rounding
        # a draw keeps the word of its bin if its lower half is below this number
        self.keep = (level * 2.0**32).round().astype(np.uint64)

    def words(self, random: np.ndarray) -> np.ndarray:
        """Map uint64 draws to word numbers, int32, of the same shape."""
        bins = below(random, len(self.alias)).astype(np.int32)
        return np.where((random & np.uint64(0xFFFFFFFF)) < self.keep[bins], bins, self.alias[bins])


@dataclass(frozen=True)
class Pairs:
    """Centre words, each with its targets: the words around it, and negatives.

    Centre c is the word `centres[c]` of the sentence `owners[c]`, a position among the requested rows, ascending; its
    targets are starts[c] : starts[c + 1]. `positive` bool [n_targets] marks context words (the others are negatives);
    `copies` float32 is the number of pairs that share the target.
    """

    centres: np.ndarray  # int32 [n_centres]
    owners: np.ndarray  # int64 [n_centres]
    starts: np.ndarray  # int32 [n_centres + 1]
    targets: np.ndarray  # int32 [n_targets]
    positive: np.ndarray
    copies: np.ndarray

    def part(self, first_owner: int, end_owner: int) -> Pairs:
        """Return the centres of the sentences first_owner .. end_owner - 1."""
        a, b = np.searchsorted(self.owners, (first_owner, end_owner))
        begin, end = self.starts[a], self.starts[b]
        targets = (array[begin:end] for array in (self.targets, self.positive, self.copies))
        return Pairs(self.centres[a:b], self.owners[a:b], self.starts[a : b + 1] - begin, *targets)


@dataclass(frozen=True)
class PairSampler:
    """Draws the pairs of a sentence in one epoch.

    A word of relative frequency f is dropped with probability 1 - min(1, (sqrt(f / subsample) + 1) subsample / f); with
    subsample 0 no word is dropped. A centre is paired with the words at `window` places before and after it, or, with
    window_shape `published`, window before and window - 1 after (Silva et al.'s code). With `dynamic_window` a width is
    drawn from 1 .. window for every centre. Every pair, or every centre, has `negatives` words of its own from the
    noise table; they may equal the context word. A draw depends only on the key, the sentence's id and the place in the
    sentence.
    """

    counts: np.ndarray  # of the full train set
    noise: NoiseTable
    window: int
    dynamic_window: bool
    window_shape: WindowShape
    negatives: int
    negatives_per: NegativesPer
    subsample: float

    def sample(self, sentences: Sentences, rows: np.ndarray, ids: np.ndarray, key: int) -> Pairs:
        """Draw the pairs of the sentences `rows` (their ids are `ids`) with `key` (64 bits)."""
        tokens, owners, place = sentences.flat(rows)
        streams = draws(mixed(np.asarray(ids, np.int64).astype(np.uint64) ^ np.uint64(key)), 0)[owners]
        streams = draws(streams, place)
        if self.subsample:
            kept = self._kept(tokens, streams)
            tokens, owners, streams = tokens[kept], owners[kept], streams[kept]
        offsets = self._offsets()
        centre, offset = np.nonzero(self._seen(owners, streams, offsets))
        per_centre = np.bincount(centre, minlength=len(tokens))
        used = np.flatnonzero(per_centre)
        context = tokens[centre + offsets[offset]]
        if self.negatives_per == "centre":
            targets = self._by_centre(streams[used], per_centre[used], context)
        else:
            targets = self._by_pair(draws(streams[centre], _FIRST_OFFSET + offset), context)
        sizes = (
            per_centre[used] + self.negatives
            if self.negatives_per == "centre"
            else per_centre[used] * (1 + self.negatives)
        )
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return Pairs(tokens[used], owners[used], starts, *targets)

    def _kept(self, tokens: np.ndarray, streams: np.ndarray) -> np.ndarray:
        return (draws(streams, _KEEP) >> np.uint64(11)) * 2.0**-53 < self._chance[tokens]

    @cached_property
    def _chance(self) -> np.ndarray:
        ratio = self.subsample / (self.counts / self.counts.sum())
        return np.sqrt(ratio) + ratio

    def _offsets(self) -> np.ndarray:
        last = self.window if self.window_shape == "symmetric" else self.window - 1
        return np.concatenate([np.arange(-self.window, 0), np.arange(1, last + 1)])

    def _seen(self, owners: np.ndarray, streams: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return which places around which words make a pair: bool [n_words, n_offsets]."""
        around = np.arange(len(owners))[:, None] + offsets
        inside = (around >= 0) & (around < len(owners))
        same = inside & (owners[np.where(inside, around, 0)] == owners[:, None]) if len(owners) else inside
        if not self.dynamic_window:
            return same
        width = below(draws(streams, _WIDTH), self.window).astype(np.int64) + 1
        return same & (np.abs(offsets) <= width[:, None])

    def _by_pair(self, streams: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        targets = np.empty((len(context), 1 + self.negatives), np.int32)
        targets[:, 0] = context
        targets[:, 1:] = self.noise.words(draws(streams[:, None], np.arange(self.negatives)))
        positive = np.zeros(targets.shape, bool)
        positive[:, 0] = True
        return targets.ravel(), positive.ravel(), np.ones(targets.size, np.float32)

    def _by_centre(
        self, streams: np.ndarray, n_contexts: np.ndarray, context: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        negatives = self.noise.words(draws(draws(streams, _SHARED)[:, None], np.arange(self.negatives)))
        n_targets = len(context) + negatives.size
        positive = np.ones(n_targets, bool)
        last = np.cumsum(n_contexts + self.negatives)
        positive[last[:, None] - 1 - np.arange(self.negatives)] = False
        targets, copies = np.empty(n_targets, np.int32), np.ones(n_targets, np.float32)
        targets[positive], targets[~positive] = context, negatives.ravel()
        copies[~positive] = np.repeat(n_contexts, self.negatives)
        return targets, positive, copies
