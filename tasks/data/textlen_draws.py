"""Builds TextLen from CoNLL sentences with the draws of Han and Tsvetkov 2021."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tasks.data.conll import Sentence

SHORT, LONG = 0, 1
CLASSES = ("short", "long")
NEGATIVE, POSITIVE = 0, 1
CONFOUND_NAMES = ("negative", "positive")
PREFIXES = (("Negative", "."), ("Positive", "."))  # indexed by confound
LAST_SEED = 2**32 - 1


class Example(NamedTuple):
    """A sentence cut to a length of its class, without its prefix, and the confound that chooses the prefix."""

    tokens: Sentence
    label: int
    confound: int

    def text(self, prefix: bool) -> str:
        """Return its tokens joined by one space, after the tokens of its prefix if `prefix`."""
        return " ".join((*PREFIXES[self.confound], *self.tokens) if prefix else self.tokens)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sentence ~ int(Normal(mean of its class, sd)), at least 1 and at most the sentence's own length."""

    mean_short: float = 15.0
    mean_long: float = 25.0
    sd: float = 4.0


def long_sentences(sentences: Sequence[Sentence], n_tokens: int, seed: int) -> list[Sentence]:
    """Return the first `n_tokens` tokens of every sentence that has at least so many, in an order drawn from `seed`."""
    found = [sentence[:n_tokens] for sentence in sentences if len(sentence) >= n_tokens]
    random.Random(seed).shuffle(found)
    return found


def textlen_examples(sentences: Sequence[Sentence], agreement: float, lengths: Lengths, seed: int) -> list[Example]:
    """Turn these sentences into TextLen: the first half becomes long, the second short; their number is even.

    Exactly round(agreement * n / 2) examples of either class have the prefix of their class (long: positive). The draws
    are, in this order, the lengths of the long half and of the short half (numpy's legacy generator), and the order of
    the confounds of the long half, of the short half, and of the examples (Python's generator). `seed` starts both
    generators. The result equals the published data row for row, because the published code seeds the two global
    generators in the same way.

    Source: Han and Tsvetkov 2021, section 5.2, and their released generator.
    """
    # the published data come from numpy's legacy streams
    numbers, order = np.random.RandomState(seed), random.Random(seed)
    half = len(sentences) // 2
    n_agreeing = round(agreement * half)
    n_tokens = [
        np.maximum(numbers.normal(mean, lengths.sd, half).astype(int), 1).tolist()
        for mean in (lengths.mean_long, lengths.mean_short)
    ]
    confounds = [[own] * n_agreeing + [other] * (half - n_agreeing) for own, other in ((1, 0), (0, 1))]
    for listed in confounds:
        order.shuffle(listed)
    halves = zip((LONG, SHORT), (sentences[:half], sentences[half:]), n_tokens, confounds, strict=True)
    examples = [
        Example(sentence[:n], label, confound)
        for label, *columns in halves
        for sentence, n, confound in zip(*columns, strict=True)
    ]
    order.shuffle(examples)
    return examples
