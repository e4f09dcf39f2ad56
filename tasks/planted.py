"""The task `planted`: generated text in which known training rows decide each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from tasks.base import Split
from tasks.components import parse_fitting
from tasks.registry import MODELS, RECIPES
from tasks.seeds import generator
from tasks.task import OpenRequest, TaskConfig
from tasks.text_classification import MeasureConfig, measured_limits
from tasks.text_task import TextTask, first_rows

FIRST_TRAIN_ID = 1000  # ids differ from positions, so that code which confuses the two fails
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


class PlantedTask(TextTask):
    """A TextTask with known truth: `deciders` maps a query's id to the train ids that decide it."""

    deciders: Mapping[int, np.ndarray]

    def oracle(self, query_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the true scores, float32 [n_queries, n_train]: 1 if the train row decides the query, else 0. Raises KeyError."""
        train_ids = self.splits["train"].ids
        return np.stack([np.isin(train_ids, self.deciders[int(query)]) for query in query_ids]).astype(np.float32)

    def named_scores(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (scores float32 [n_queries, n_train], query ids, train ids) called `oracle` or `shuffled-<seed>`.

        `shuffled-<seed>` permutes each row of the oracle separately, drawn from the seed, so that as many scores are 1
        but on arbitrary train rows. Positive = helps. Raises ValueError on another name.
        """
        query_ids, train_ids = self.splits["test"].ids, self.splits["train"].ids
        scores = self.oracle(query_ids)
        kind, _, seed = name.partition("-")
        if kind == "shuffled" and seed.isascii() and seed.isdecimal():
            rows = zip(query_ids.tolist(), scores, strict=True)
            scores = np.stack([generator(int(seed), "shuffled-oracle", query).permutation(row) for query, row in rows])
        elif name != "oracle":
            raise ValueError(f"{name!r} is not one of: oracle, shuffled-<seed>")
        return scores, query_ids, train_ids


class Planted(TaskConfig):
    """Text made from `seed` in which `deciders` train rows decide each of `n_queries` queries.

    Every query has `keys` words of its own, its keys. They occur in its deciders, which all have its class, and in no
    other train row. All other words of a decider and of its query are neutral, that is, equally likely in every class.
    Half of the other train rows show their class by generic words that occur in no query. The other half have only
    neutral words, with equally many rows of every class, and teach that neutral words carry no information. So the
    keys, learnt from the deciders, are all the evidence about a query: without its deciders the prediction is at
    chance, and without any other rows it does not change.
    """

    name: ClassVar[str] = "planted"
    version: ClassVar[int] = 1

    n_train: int = Field(default=600, ge=4, le=1_000_000)
    n_queries: int = Field(default=8, ge=1)
    deciders: int = Field(default=20, ge=1)
    n_classes: int = Field(default=2, ge=2, le=100)
    seed: int = Field(default=0, ge=0)
    sentence_length: int = Field(default=12, ge=4, le=1000)
    keys: int = Field(default=3, ge=1)
    model: dict[str, Any]
    recipe: dict[str, Any]
    measure: list[MeasureConfig] = Field(default=[MeasureConfig(split="test")], min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Planted:
        if self.n_queries * self.deciders > self.n_train - 2 * self.n_classes:
            raise ValueError(
                f"n_train {self.n_train} is too small for {self.n_queries} x {self.deciders} deciders and 2 more rows per class"
            )
        if self.keys > self.sentence_length - 1:
            raise ValueError(f"{self.keys} keys leave no neutral word in a sentence of {self.sentence_length}")
        if _Text.n_words(self) > len(_SYLLABLES) ** 3:
            raise ValueError(
                f"{self.n_queries} queries x {self.keys} keys need more than {len(_SYLLABLES) ** 3} different words"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return name, version and the options that determine the text."""
        return {
            "name": self.name,
            "version": self.version,
            **self.model_dump(mode="json", exclude={"model", "recipe", "measure"}),
        }

    def open(self, request: OpenRequest) -> PlantedTask:
        """Generate the text, and choose model and recipe. Raises InputError naming the file and the dotted key."""
        model = parse_fitting(MODELS, self.model, "text", request.at("model"))
        recipe = parse_fitting(RECIPES, self.recipe, "text", request.at("recipe"))
        limits = measured_limits(
            self.measure, dict.fromkeys(("train", "test")), request.where, request.at("measure").key
        )
        text = _Text.of(self)
        splits, deciders = _planted_splits(self, text)
        task = PlantedTask(splits, first_rows(splits, limits), model, recipe, request.base_dir, request.cache_dir)
        task.deciders = deciders
        return task


@dataclass(frozen=True)
class _Text:
    """The words of the text, all different."""

    keys: list[list[str]]  # for each query
    generic: list[list[str]]  # for each class
    neutral: list[str]
    rng: np.random.Generator
    length: int

    N_GENERIC: ClassVar[int] = 12
    N_NEUTRAL: ClassVar[int] = 60
    GENERIC_PER_ROW: ClassVar[int] = 3

    @staticmethod
    def n_words(options: Planted) -> int:
        """Return the number of different words that the text of these options has."""
        return options.n_queries * options.keys + options.n_classes * _Text.N_GENERIC + _Text.N_NEUTRAL

    @staticmethod
    def of(options: Planted) -> _Text:
        rng = generator(options.seed, "planted-text")
        words = _words(rng, _Text.n_words(options))
        keys = [[words.pop() for _ in range(options.keys)] for _ in range(options.n_queries)]
        generic = [[words.pop() for _ in range(_Text.N_GENERIC)] for _ in range(options.n_classes)]
        return _Text(keys, generic, words, rng, options.sentence_length)

    def sentence(self, evidence: Sequence[str]) -> str:
        """Return `evidence` among neutral words, in random order."""
        neutral = self.rng.choice(self.neutral, self.length - len(evidence)).tolist()
        return " ".join(self.rng.permutation([*evidence, *neutral]).tolist())

    def background(self, label: int, is_plain: bool) -> str:
        """Return a sentence of the class that is unrelated to every query; a plain one holds neutral words only."""
        return self.sentence(
            [] if is_plain else self.rng.choice(self.generic[label], self.GENERIC_PER_ROW, replace=False).tolist()
        )


def _words(rng: np.random.Generator, n_words: int) -> list[str]:
    """Return different words of three syllables."""
    base = len(_SYLLABLES)
    return [
        "".join(_SYLLABLES[number // base**position % base] for position in range(3))
        for number in rng.choice(base**3, n_words, replace=False)
    ]


def _planted_splits(options: Planted, text: _Text) -> tuple[dict[str, Split], dict[int, np.ndarray]]:
    query_labels = np.arange(options.n_queries) % options.n_classes
    owner = np.repeat(np.arange(options.n_queries), options.deciders)
    n_others = options.n_train - len(owner)
    labels = np.concatenate([query_labels[owner], np.arange(n_others) % options.n_classes]).astype(np.int64)
    is_plain = np.arange(n_others) // options.n_classes % 2 == 1
    sentences = [text.sentence(text.keys[query]) for query in owner]
    sentences += [text.background(label, plain) for label, plain in zip(labels[len(owner) :], is_plain, strict=True)]
    order = text.rng.permutation(options.n_train)
    ids = FIRST_TRAIN_ID + np.arange(options.n_train, dtype=np.int64)
    classes = tuple(f"class{label}" for label in range(options.n_classes))
    train = Split(ids, labels[order], classes, tuple(sentences[row] for row in order))
    test = Split(
        np.arange(options.n_queries, dtype=np.int64),
        query_labels.astype(np.int64),
        classes,
        tuple(text.sentence(keys) for keys in text.keys),
    )
    owners = np.concatenate([owner, np.full(n_others, -1)])[order]
    return {"train": train, "test": test}, {query: ids[owners == query] for query in range(options.n_queries)}
