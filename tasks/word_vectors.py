"""The task `word_vectors`: skip-gram vectors of the words in the user's sentences, and properties of these vectors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from tasks.base import Batch, Split
from tasks.components import parse_fitting, parse_named, place
from tasks.data.corpus import Corpus, CorpusConfig, VocabularyConfig, read_corpus
from tasks.data.pairs import Pairs, PairSampler
from tasks.digests import digest
from tasks.errors import InputError
from tasks.models.skip_gram import PairLoss
from tasks.properties import ResolvedProperty
from tasks.recipe import Recipe
from tasks.recipes.pair_options import PairOptions
from tasks.registry import MODELS, PROPERTIES, RECIPES
from tasks.seeds import purpose_seed
from tasks.task import OpenRequest, TaskConfig
from tasks.touched_targets import ClosedForms, weights_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CLASSES = ("sentence",)


class WordVectors(TaskConfig):
    """Word vectors: `data` (sentences), `vocabulary`, `model`, `recipe`, and what is recorded.

    `properties` lists the measured properties of the vectors (an association test, a neighbour relation ...); the split
    `properties` has one row for each. `watch` lists further words; the split `words` holds them and the words of the
    properties.
    """

    name: ClassVar[str] = "word_vectors"
    version: ClassVar[int] = 1

    data: CorpusConfig
    vocabulary: VocabularyConfig = Field(default_factory=lambda: VocabularyConfig.model_validate({}))
    properties: list[dict[str, Any]] = Field(default_factory=list)
    watch: list[str] = Field(default_factory=list)
    model: dict[str, Any]
    recipe: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Return name and version; sentences, model and recipe are in the task's own identities, by content and never by path."""
        return {"name": self.name, "version": self.version}

    def open(self, request: OpenRequest) -> WordVectorTask:
        """Read and number the sentences, and resolve the properties. Raises InputError naming file and key."""
        model = parse_fitting(MODELS, self.model, WordVectors.name, request.at("model"))
        corpus = read_corpus(self.data, self.vocabulary, request.base_dir, request.where, request.key)
        recipe = _recipe(self.recipe, corpus, request.at("recipe"))
        resolved = self._resolved(corpus, request)
        for position, word in enumerate(self.watch):
            if word not in corpus.vocabulary.index:
                problem = f"{word!r} is not in the vocabulary: it occurs fewer than {self.vocabulary.min_count} times"
                raise InputError(place(request.where, request.at(f"watch.{position}").key), problem)
        return WordVectorTask(corpus, resolved, self.watch, model, recipe)

    def _resolved(self, corpus: Corpus, request: OpenRequest) -> list[ResolvedProperty]:
        found: list[ResolvedProperty] = []
        for position, options in enumerate(self.properties):
            key = request.at(f"properties.{position}").key
            here = place(request.where, key)
            resolved = parse_named(PROPERTIES, options, request.where, key, request.plugins).resolve(
                corpus.vocabulary.count_of, request.base_dir, here
            )
            if resolved.label in [other.label for other in found]:
                raise InputError(here, f"the label {resolved.label!r} is used twice; set `label`")
            found.append(resolved)
        if not self.watch and all(resolved.refused for resolved in found):
            raise InputError(
                place(request.where, request.key), "nothing is recorded; set properties that can be measured, or watch"
            )
        return found


def _recipe(options: Any, corpus: Corpus, request: OpenRequest) -> Recipe:
    """Return the recipe that `options` name, with its word lists read. Raises InputError if it does not fit the vocabulary."""
    where = place(request.where, request.key)
    recipe = parse_fitting(RECIPES, options, WordVectors.name, request).with_files(request.base_dir, where)
    recipe.check(corpus.vocabulary.index, where)
    return recipe


class WordVectorTask(ClosedForms):
    """A task over sentences; the input vectors of some words, and properties of them, are measured.

    Properties that cannot be measured are listed in `refused` and are in no split. More is better: the query loss of a
    property is minus its value, so a positive score says that the sentence raises the property.
    """

    version: ClassVar[int] = 1
    properties: tuple[ResolvedProperty, ...]
    splits_with_losses = frozenset({"train"})
    splits_with_query_losses = frozenset({"properties"})
    independent_rows = frozenset({"input.weight"})  # a pair has one centre word

    def __init__(
        self, corpus: Corpus, properties: Sequence[ResolvedProperty], watch: Sequence[str], model: Any, recipe: Any
    ):
        self.corpus, self.model, self.recipe = corpus, model, recipe
        self.properties = tuple(p for p in properties if p.refused is None)
        self.refused = {p.label: p.refused for p in properties if p.refused is not None}
        index = corpus.vocabulary.index
        self.watched = tuple(dict.fromkeys([word for p in self.properties for word in p.words] + list(watch)))
        self.watched_index = {word: position for position, word in enumerate(self.watched)}
        self.watched_rows = np.asarray([index[word] for word in self.watched], np.int64)
        self.splits: Mapping[str, Split] = {
            "train": _split(corpus.ids, corpus.texts, corpus.given_ids),
            "words": _split(self.watched_rows, self.watched),
            "properties": _split(np.arange(len(self.properties)), tuple(p.describe() for p in self.properties)),
        }
        recorded = [name for name in ("words", "properties") if len(self.splits[name])]
        self.measured: Mapping[str, np.ndarray] = {name: np.arange(len(self.splits[name])) for name in recorded}

    def with_recipe(self, options: Any, request: OpenRequest) -> WordVectorTask:
        """Return the same task trained by another recipe. Raises InputError if the recipe does not fit."""
        other = copy.copy(self)
        vars(other).pop("_sampler", None)  # it draws pairs by the old recipe's options
        other.recipe = _recipe(options, self.corpus, request)
        return other

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Map each word to its row in the matrices of vectors."""
        return self.corpus.vocabulary.index

    def train_identity(self) -> dict[str, Any]:
        """Return the digest of ids, texts, word numbers, vocabulary, counts (the noise table's), and the options behind them."""
        return {"version": self.version, "corpus": self._corpus_digest, "watched": self._watched_digest}

    def model_identity(self) -> dict[str, Any]:
        """Return options and version of the model."""
        return self.model.identity_of_weights(Path())

    def record_identity(self) -> dict[str, Any]:
        """Return the measured words and properties."""
        properties = [p.identity() for p in self.properties]
        return {
            "version": self.version,
            "words": self._watched_digest,
            "properties": properties,
            "outputs": {"kind": "word_vectors", "dim": self.model.dim},
        }

    @cached_property
    def _corpus_digest(self) -> str:
        return self.corpus.content_digest()

    @cached_property
    def _watched_digest(self) -> str:
        return digest([self.watched_rows.tolist(), list(self.watched)])

    def network(self, seed: int) -> nn.Module:
        """Return fresh vectors, drawn from the generator (seed, 'init')."""
        return self.model.build(len(self.corpus.vocabulary), seed, self.watched_rows)

    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return, for train, the pairs of the sentences `rows`, with fixed windows and negatives.

        `centres`, `targets` (word numbers), `positive`, `factors` (of a target's term of the loss) and `owners`
        (positions in `rows`) are all [n_targets]; `labels` [n] is zero. Other splits have `labels` alone. Blank rows
        have no pairs.
        """
        import torch

        rows = np.asarray(rows, np.int64)
        arrays: dict[str, np.ndarray] = {"labels": np.zeros(len(rows), np.int64)}
        if split == "train":
            arrays |= self._pair_arrays(rows, np.flatnonzero(~blank) if blank is not None else np.arange(len(rows)))
        return {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}

    def _pair_arrays(self, rows: np.ndarray, used: np.ndarray) -> dict[str, np.ndarray]:
        pairs: Pairs = self._sampler.sample(
            self.corpus.sentences, rows[used], self.corpus.ids[rows[used]], self._influence_key
        )
        sizes = np.diff(pairs.starts)
        factors = PairLoss(self.recipe.loss).factors(self.recipe.negatives)
        return {
            "centres": np.repeat(pairs.centres, sizes).astype(np.int64),
            "targets": pairs.targets.astype(np.int64),
            "positive": pairs.positive,
            "factors": np.where(pairs.positive, *factors) * pairs.copies,
            "owners": np.repeat(used[pairs.owners], sizes),
        }

    _influence_key: ClassVar[int] = purpose_seed(0, "influence negatives")

    @cached_property
    def _sampler(self) -> PairSampler:
        if not isinstance(self.recipe, PairOptions):
            raise ValueError(
                f"the recipe {self.recipe.name!r} does not train on sentences, so that sentences have no loss"
            )
        return self.recipe.sampler(self.corpus.vocabulary.counts)

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return minus the loss of every sentence, [n, 1]."""
        return -self.losses(network, batch)[:, None]

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the train loss of every sentence, the sum over its pairs: [n], twice differentiable."""
        inner, outer = weights_of(network)
        scores = (inner[batch["centres"]] * outer[batch["targets"]]).sum(1)
        terms = PairLoss(self.recipe.loss).term_tensor(scores, batch["positive"]) * batch["factors"].to(scores.dtype)
        return terms.new_zeros(len(batch["labels"])).index_add(0, batch["owners"], terms)

    def penalty(self, network: nn.Module) -> Tensor:
        """Return l2 / 2 * the sum of all squared weights, [], which the objective adds to the mean over sentences."""
        inner, outer = weights_of(network)
        return self.model.l2 / 2 * (inner.square().sum() + outer.square().sum())

    def query_losses(self, network: nn.Module, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """Return minus the value of the properties `rows`, [n]. Raises ValueError for another split."""
        import torch

        self._check_properties(split)
        inner, _ = weights_of(network)
        vectors = inner[torch.from_numpy(self.watched_rows).to(inner.device)]
        initial: Tensor = network.get_buffer("initial").to(inner.dtype)
        return -torch.stack([self.properties[row].tensor(vectors, initial, self.watched_index) for row in rows])

    def influence_parameters(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray | None]:
        """Return the input vectors of the words that these properties use, on which alone they depend. Raises ValueError."""
        self._check_properties(split)
        words = {self.vocabulary[word] for row in rows for word in self.properties[row].words}
        return {"input.weight": np.asarray(sorted(words), np.int64)}

    def rows_touching(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the sentences that contain one of these words, and so have it as a centre; for other parameters return all."""
        if name != "input.weight":
            return np.arange(len(self.corpus.ids))
        return self.corpus.sentences.rows_with(rows)

    def _check_properties(self, split: str) -> None:
        if split != "properties":
            raise ValueError(f"rows of {split!r} have no query loss; only properties have one")

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Return input vectors, float32 [n, dim], for `words`; values, float32 [n, 1], for `properties`. Raises ValueError for train."""
        if split not in ("words", "properties"):
            raise ValueError(f"{split!r} is not measured; only words and properties are")
        vectors = weights_of(network)[0].detach().cpu().numpy()[self.watched_rows]
        if split == "words":
            return vectors[rows].astype(np.float32)
        initial = network.get_buffer("initial").detach().cpu().numpy()
        values = [self.properties[row].value(vectors, initial, self.watched_index) for row in rows]
        return np.asarray(values, np.float32).reshape(-1, 1)

    def neighbours(
        self, network: nn.Module | Mapping[str, np.ndarray], words: Sequence[str], n: int = 10
    ) -> dict[str, list[tuple[str, float]]]:
        """Return the `n` words whose input vectors have the highest cosine with each of `words`: word -> (neighbour, cosine), falling.

        `network` is a network, or weights by name. Raises KeyError for a word outside the vocabulary.
        """
        state = network if isinstance(network, Mapping) else network.state_dict()
        vectors = np.asarray(state["input.weight"], np.float64)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        names = self.corpus.vocabulary.words
        found = {}
        for word in words:
            row = self.vocabulary[word]
            cosines = unit @ unit[row]
            nearest = [other for other in np.argsort(-cosines, kind="stable")[: n + 1].tolist() if other != row][:n]
            found[word] = [(names[other], float(cosines[other])) for other in nearest]
        return found


def _split(ids: np.ndarray, texts: tuple[str, ...], given_ids: tuple[str, ...] | None = None) -> Split:
    return Split(np.asarray(ids, np.int64), np.zeros(len(ids), np.int64), CLASSES, texts, given_ids=given_ids)


__all__ = ["WordVectorTask", "WordVectors"]
