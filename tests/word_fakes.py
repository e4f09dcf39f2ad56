"""A real but tiny word-vector task in memory, built from random sentences, on which the contracts train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.corpus import Corpus, Sentences, Vocabulary
from tasks.models.skip_gram import SkipGram
from tasks.properties import Displacement, Neighbour
from tasks.word_vectors import WordVectorTask

WATCHED = ("w1", "w2", "w3", "w7")


class FakeWordTask(WordVectorTask):
    """Sentences of the words w0 .. w29; w1 is common, w29 rare."""

    def with_noise_in(self, ids: np.ndarray, seed: int = 0) -> FakeWordTask:
        """Return the same task with other words (three times as many) in the train rows `ids`; preprocessing is unchanged."""
        random, old = np.random.default_rng(seed), self.corpus
        numbers = [
            old.sentences.tokens[old.sentences.offsets[row] :][:n] for row, n in enumerate(old.sentences.lengths)
        ]
        for row in self.splits["train"].rows_of(ids):
            numbers[row] = random.integers(0, len(old.vocabulary), 3 * max(map(len, numbers)))
        corpus = _corpus(old.ids, numbers, old.vocabulary)
        return _measuring(FakeWordTask(corpus, self.properties, WATCHED, self.model, self.recipe), self.measured)


def word_task(
    recipe: Any,
    *,
    model: Any = None,
    n_train: int = 24,
    n_words: int = 30,
    seed: int = 0,
    measured: Sequence[str] = ("words", "properties"),
) -> FakeWordTask:
    """Return a task of sentences of 4 to 12 words whose ids are not positions, with four words, a displacement and a neighbour relation."""
    random = np.random.default_rng(seed)
    shares = 1 / (np.arange(n_words) + 2)
    numbers = [random.choice(n_words, random.integers(4, 13), p=shares / shares.sum()) for _ in range(n_train)]
    counts = np.bincount(np.concatenate(numbers), minlength=n_words).astype(np.int64).clip(1)
    vocabulary = Vocabulary(tuple(f"w{number}" for number in range(n_words)), counts)
    properties = [Displacement(word="w1"), Neighbour(word="w2", near=("w3", "w7"))]
    resolved = [p.resolve(vocabulary.count_of, Path(), f"properties.{i}") for i, p in enumerate(properties)]
    corpus = _corpus(100 + random.permutation(n_train), numbers, vocabulary)
    return _measuring(FakeWordTask(corpus, resolved, WATCHED, model or SkipGram(dim=8), recipe), measured)


def _measuring(task: FakeWordTask, splits: Iterable[str]) -> FakeWordTask:
    task.measured = {name: task.measured[name] for name in splits}
    return task


def parent_of(task: WordVectorTask, seed: int = 1) -> dict[str, np.ndarray]:
    """Return weights from which a fine-tune can start: fresh input vectors, random output vectors."""
    state = {name: array.numpy().copy() for name, array in task.network(seed).state_dict().items()}
    random = np.random.default_rng(seed)
    state["output.weight"] = random.normal(0, 0.3, state["output.weight"].shape).astype(np.float32)
    return state


def _corpus(ids: np.ndarray, numbers: list[np.ndarray], vocabulary: Vocabulary) -> Corpus:
    texts = tuple(" ".join(vocabulary.words[number] for number in sentence) for sentence in numbers)
    sentences = Sentences.of([sentence.tolist() for sentence in numbers])
    return Corpus(np.asarray(ids, np.int64), texts, sentences, vocabulary, {})
