"""The key word of a pair of query and training example: the word that contributes most to their influence score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.methods.tracin_we import TracInWE
from tasks.sources import with_sources
from tasks.task import Task

if TYPE_CHECKING:
    from influence.gradients import GradientShard

NO_WORD = -1


class KeyWords(Method):
    """The token of the word that contributes most to the score of a pair, by the word decomposition of `of`.

    For `side` opponents it is the word w with the most negative contribution
        sum_c weight_c <dl_i/dE_w, dl_q/dE_v>, v = w, or the word of the query that `of` matches with w at checkpoint c,
    for proponents the word with the most positive one. Ties go to the smaller token. Start, end and padding tokens are not words. A pair
    without a word of that sign has NO_WORD. Yeh et al. 2022, section 4.3 and appendix K, whose sign is the opposite.

    It is computed and stored like a score, but it is a token id and ranks nothing: a campaign adds it, no config names it.
    """

    name: ClassVar[str] = "key_words"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    side: Literal["proponents", "opponents"]
    of: TracInWE = TracInWE()

    def options_identity(self, base_dir: Path) -> dict[str, Any]:
        """Return name, version, side, and the identity of the method whose scores are decomposed, with its source if it is a plugin's."""
        of = with_sources(self.of.options_identity(base_dir), self.of)
        return {"name": self.name, "version": self.version, "side": self.side, "of": of}

    def takes_last_checkpoint(self) -> bool:
        """Return whether `of` uses the last checkpoint only."""
        return self.of.takes_last_checkpoint()

    def weighs_by_learning_rate(self) -> bool:
        """Return whether `of` weighs checkpoints by their learning rate."""
        return self.of.weighs_by_learning_rate()

    def prepare(self, task: Task, base_dir: Path, queries: QueryBlock) -> tuple[Any, tuple[int, ...]]:
        """Return what `of` prepares, and the ids of the special tokens."""
        return self.of.prepare(task, base_dir, queries), tuple(sorted(task.special_ids))

    def score(self, queries: GradientShard, train: GradientShard, prepared: tuple[Any, tuple[int, ...]]) -> np.ndarray:
        """Return token ids float32 [n_queries, n_train], exact up to 2^24; NO_WORD where there is no key word."""
        used, special = prepared
        pairs, tokens, parts = [], [], []
        for ours, theirs in zip(queries.checkpoints, train.checkpoints, strict=True):
            rows, columns, words, products = self.of.by_word(ours, theirs, used)
            kept = ~np.isin(words, special)
            pairs.append((rows * len(train) + columns)[kept])
            tokens.append(words[kept])
            parts.append(theirs.weight * products[kept])
        found = np.full(len(queries) * len(train), NO_WORD, np.float32)
        sign = 1.0 if self.side == "opponents" else -1.0
        at, word = _lowest(np.concatenate(pairs), np.concatenate(tokens), sign * np.concatenate(parts))
        found[at] = word
        return found.reshape(len(queries), len(train))


def _lowest(pairs: np.ndarray, tokens: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair that has a token whose parts sum to less than 0, and the token of its lowest sum: int64 [n], [n].

    `pairs`, `tokens` int64 [E] and `parts` float64 [E]: the parts of one pair and token are summed in their order.
    """
    width = int(tokens.max(initial=0)) + 1
    keys, inverse = np.unique(pairs * width + tokens, return_inverse=True)
    sums = np.bincount(inverse, weights=parts, minlength=len(keys))
    keys, sums = keys[sums < 0], sums[sums < 0]
    pair, token = keys // width, keys % width
    order = np.lexsort((token, sums, pair))
    first = np.unique(pair[order], return_index=True)[1]
    return pair[order][first], token[order][first]
