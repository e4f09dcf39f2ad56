"""A real but tiny task over pairs of texts, whose label needs both segments: do they share a word?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base import Numerics, Split
from tasks.data.text_columns import join_pairs
from tasks.text_task import TextTask

SERVED = Numerics(frozen_trunk="cached")
WORDS = tuple(f"w{number}" for number in range(4, 40))  # the vocabulary of tests.fakes.tiny_bert


class PairTask(TextTask):
    """The task of text_classification, made in memory; its text is what changes if rows become noise."""

    @property
    def vocabulary_size(self) -> int:
        """The number of token ids."""
        return self.tokeniser.vocabulary_size

    @property
    def tokens(self) -> dict[str, list[np.ndarray]]:
        """The token ids of every train text."""
        train = self._shared.tokens["train"]
        return {"train": np.split(train.ids, train.offsets[1:-1])}

    def with_tokens_at(
        self, replaced: tuple[tuple[int, tuple[int, ...]], ...], change: Callable[[np.ndarray], np.ndarray]
    ) -> PairTask:
        """Return the same task in which `change` is applied to the tokens at these positions of train rows."""
        train, rows = self._shared.tokens["train"], self.splits["train"].rows_of([i for i, _ in replaced])
        at = [int(train.offsets[row]) + p for row, (_, found) in zip(rows, replaced, strict=True) for p in found]
        ids = train.ids.copy()
        ids[at] = change(ids[at])
        other = copy.copy(self)
        other._shared = replace(self._shared, tokens={**self._shared.tokens, "train": replace(train, ids=ids)})
        return other

    def with_noise_in(self, ids: np.ndarray, seed: int = 0) -> PairTask:
        """Return the same task with other segments (longer ones), labels and confounds in the train rows `ids`."""
        random, train = np.random.default_rng(seed), self.splits["train"]
        segments, labels, confounds = list(train.segments()), train.labels.copy(), np.array(train.confounds)
        for row in train.rows_of(ids):
            segments[row] = (_segment(random, 15), _segment(random, 12))
            labels[row], confounds[row] = 1 - labels[row], 1 - confounds[row]
        texts, starts = join_pairs(*zip(*segments, strict=True))
        noisy = replace(train, texts=tuple(texts), pair_starts=starts, labels=labels, confounds=confounds)
        task = type(self)({**self.splits, "train": noisy}, self.measured, self.model, self.recipe, self.base_dir)
        task.prepare()
        return task


class ServedPairTask(PairTask):
    """The same task, which serves the outputs of its frozen trunk as soon as it is prepared."""

    def prepare(self) -> None:
        """Prepare the task, and the outputs of its trunk."""
        super().prepare()
        self.prepare_for(SERVED)

    def with_tokens_at(
        self, replaced: tuple[tuple[int, tuple[int, ...]], ...], change: Callable[[np.ndarray], np.ndarray]
    ) -> PairTask:
        """Return the task with changed tokens, for which the outputs of the trunk are computed afresh."""
        other = super().with_tokens_at(replaced, change)
        other._shared = replace(other._shared, trunk_outputs=None)
        other.prepare_for(SERVED)
        return other


def pair_task(
    model: Any,
    recipe: Any,
    base_dir: Path = Path(),
    *,
    n_train: int = 24,
    n_test: int = 6,
    kind: type[PairTask] = PairTask,
) -> PairTask:
    """Return a prepared task; example ids are not positions, and confounds are drawn independently of the labels."""
    random, splits = np.random.default_rng(0), {}
    for name, n, first_id in (("train", n_train, 100), ("test", n_test, 5000)):
        labels = random.integers(0, 2, n)
        segments = [_pair(random, bool(label)) for label in labels]
        texts, starts = join_pairs(*zip(*segments, strict=True))
        splits[name] = Split(
            first_id + random.permutation(n),
            labels,
            ("apart", "shared"),
            tuple(texts),
            confounds=random.integers(0, 2, n),
            confound_names=("first", "second"),
            pair_starts=starts,
        )
    task = kind(splits, {"test": np.arange(n_test)}, model, recipe, base_dir)
    task.prepare()
    return task


def _segment(random: np.random.Generator, longest: int) -> str:
    return " ".join(random.choice(WORDS, random.integers(1, longest + 1)))


def _pair(random: np.random.Generator, shared: bool) -> tuple[str, str]:
    first, second = _segment(random, 6), _segment(random, 4)
    return first, f"{second} {first.split()[0]}" if shared else second
