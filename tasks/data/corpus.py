"""Turns records into sentences of numbered words, on which models of word vectors are trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.components import place
from tasks.data import splits
from tasks.data.ids import number_of
from tasks.data.paths import resolve_path
from tasks.data.text_columns import read_texts
from tasks.digests import digest, digest_arrays, digest_texts
from tasks.errors import InputError

MAX_SENTENCES = 1000  # per record: a sentence's id is the record's id * 1000 + its number in the record
LAST_RECORD = 2**63 // MAX_SENTENCES - 1
# a number is a token of its own: 3,000 and 1.5 are numbers, but 1980s and b2b are words
_TOKEN = re.compile(r"(?P<number>(?:(?>[0-9]+(?:[.,:][0-9]+)*)|[0-9]+)(?![^\W_]))|[^\W_]+(?:['’][^\W_]+)*")
_CUT = re.compile(r"\s*[\r\n]+\s*|(?<=[.!?…])\s+(?![a-z])|(?<=[.!?…][\"'”’)\]])\s+(?![a-z])")


class SentenceSource(splits.SplitConfig):
    """A split without labels. Format folder reads the class folders as plain folders; other formats need only `text`."""

    @model_validator(mode="after")
    def _columns_fit_format(self) -> SentenceSource:
        if self.label is not None:
            raise ValueError("sentences have no label; remove the option label")
        for option in ("text_pair", "labels"):
            if getattr(self, option) is not None:
                raise ValueError(f"{option} is an option of classifiers; sentences are single texts without labels")
        if self.format == "folder" and (self.text is not None or self.id is not None):
            raise ValueError("format: folder takes no text or id")
        if self.format != "folder" and not self.text:
            raise ValueError(f"format: {self.format} needs the columns of the text")
        return self

    @property
    def columns(self) -> list[str]:
        """Every column that is read, each once."""
        return list(dict.fromkeys([*self.text_columns, *([self.id] if self.id else [])]))


class CorpusConfig(BaseModel):
    """Where the sentences come from.

    `sentences: split` cuts a record at line breaks, and after . ! ? or … (and one closing quote or bracket) if white
    space follows and then anything but a lower-case Latin letter; it knows no abbreviations. With `whole` a record is
    one sentence. Sentences with fewer than `min_tokens` words of the vocabulary are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: SentenceSource
    sentences: Literal["split", "whole"] = "whole"
    min_tokens: int = Field(2, ge=1)


class VocabularyConfig(BaseModel):
    """Which words are kept: those that occur `min_count` times in the train set and are not in `stopwords`.

    Words are lower-cased runs of letters and digits, including apostrophes inside them. Numbers are replaced by the
    word `numbers`, or kept with the value `keep`. `stopwords` is a list of words, or the path of a file with one word
    per line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_count: int = Field(5, ge=1)
    numbers: str = Field("<num>", min_length=1)
    stopwords: list[str] | str = Field(default_factory=list)

    def read_stopwords(self, base_dir: Path, where: object, key: str) -> tuple[str, ...]:
        """Return the stop words, lower-cased, sorted, each once. Raises InputError if their file cannot be read."""
        words: Iterable[str] = self.stopwords
        if isinstance(self.stopwords, str):
            path = resolve_path(self.stopwords, base_dir, place(where, f"{key}.stopwords"))
            try:
                words = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(path, f"not a readable UTF-8 file of stop words: {error}") from error
        return tuple(sorted({word.strip().lower() for word in words} - {""}))


def words_of(text: str, numbers: str = "<num>") -> list[str]:
    """Return the words of a text in order; numbers are replaced by `numbers`, unless it is `keep`."""
    found = _TOKEN.finditer(text.lower())
    if numbers == "keep":
        return [match[0].replace("’", "'") for match in found]
    return [numbers if match["number"] else match[0].replace("’", "'") for match in found]


def cut_sentences(text: str) -> list[str]:
    """Return the sentences of a text by the rule of CorpusConfig, without surrounding white space and without empty ones."""
    return [sentence for part in _CUT.split(text) if (sentence := part.strip())]


@dataclass(frozen=True)
class Vocabulary:
    """The words of the train set.

    `words` are sorted by falling count, then alphabetically. `counts` int64 [n_words] are those of the full train set,
    whatever an edit removes.
    """

    words: tuple[str, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Map each word to its number."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def count_of(self) -> Mapping[str, int]:
        """Map each word to its count."""
        return dict(zip(self.words, self.counts.tolist(), strict=True))

    @staticmethod
    def of(token_lists: Iterable[Sequence[str]], min_count: int, stopwords: Iterable[str] = ()) -> Vocabulary:
        """Build the vocabulary of these sentences."""
        counter: Counter[str] = Counter()
        for tokens in token_lists:
            counter.update(tokens)
        for word in stopwords:
            counter.pop(word, None)
        kept = sorted((-count, word) for word, count in counter.items() if count >= min_count)
        return Vocabulary(tuple(word for _, word in kept), np.asarray([-count for count, _ in kept], np.int64))


@dataclass(frozen=True)
class Sentences:
    """Sentences as word numbers.

    `tokens` int32 [sum of lengths]; sentence i is tokens[offsets[i] : offsets[i + 1]].
    """

    tokens: np.ndarray
    offsets: np.ndarray  # int64 [n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of words in every sentence: int64 [n]."""
        return np.diff(self.offsets)

    def flat(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (tokens, position in `rows`, position in the sentence) of every word of these sentences, in order."""
        lengths = self.lengths[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        place_in = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.tokens[np.repeat(self.offsets[rows], lengths) + place_in], owner, place_in

    def rows_with(self, words: np.ndarray) -> np.ndarray:
        """Return the sentences that contain at least one of these words: int64, sorted."""
        owner = np.repeat(np.arange(len(self)), self.lengths)
        return np.unique(owner[np.isin(self.tokens, words)])

    @staticmethod
    def of(numbers: Sequence[Sequence[int]]) -> Sentences:
        """Build from one list of word numbers per sentence."""
        offsets = np.cumsum([0, *map(len, numbers)], dtype=np.int64)
        return Sentences(np.fromiter((n for row in numbers for n in row), np.int32, int(offsets[-1])), offsets)


@dataclass(frozen=True)
class Corpus:
    """Sentences (ids int64, texts, word numbers) and the vocabulary that numbers their words."""

    ids: np.ndarray
    texts: tuple[str, ...]
    sentences: Sentences
    vocabulary: Vocabulary
    options: Mapping[str, object]  # how the texts were split into words
    given_ids: tuple[str, ...] | None = None  # the ids as text, if the data has ids of text

    def content_digest(self) -> str:
        """Return the digest of ids, texts, word numbers, vocabulary with counts, and the options that made them."""
        vocabulary = [digest_texts(self.vocabulary.words), digest_arrays(counts=self.vocabulary.counts)]
        numbers = digest_arrays(ids=self.ids, tokens=self.sentences.tokens, offsets=self.sentences.offsets)
        return digest([numbers, digest_texts(self.texts), vocabulary, dict(self.options)])


def read_corpus(data: CorpusConfig, vocabulary: VocabularyConfig, base_dir: Path, where: object, key: str) -> Corpus:
    """Read the corpus that these blocks describe; `key` is the dotted key of the task. Raises InputError."""
    stopwords = vocabulary.read_stopwords(base_dir, where, f"{key}.vocabulary")
    texts = list(_sentences(data, base_dir, where, f"{key}.data.train"))
    token_lists = [words_of(text, vocabulary.numbers) for _, _, text in texts]
    found = Vocabulary.of(token_lists, vocabulary.min_count, stopwords)
    index = found.index
    numbers = [[index[word] for word in tokens if word in index] for tokens in token_lists]
    kept = [row for row, sentence in enumerate(numbers) if len(sentence) >= data.min_tokens]
    if not kept:
        raise InputError(
            place(where, f"{key}.vocabulary"),
            f"none of {len(texts)} sentences has {data.min_tokens} words that occur {vocabulary.min_count} times",
        )
    given = tuple(texts[row][1] for row in kept)
    ids = np.asarray([texts[row][0] for row in kept], np.int64)
    if all(given) and len(np.unique(ids)) < len(ids):
        raise InputError(place(where, f"{key}.data.train.id"), "two ids have the same digest of 63 bits; change one")
    return Corpus(
        ids,
        tuple(texts[row][2] for row in kept),
        Sentences.of([numbers[row] for row in kept]),
        found,
        {"numbers": vocabulary.numbers, "min_count": vocabulary.min_count, "stopwords": list(stopwords)},
        given if all(given) else None,
    )


def _sentences(data: CorpusConfig, base_dir: Path, where: object, key: str) -> Iterator[tuple[int, str, str]]:
    """Yield (id, id as text or "", text) of every sentence.

    The id is the record's id or, if the record is cut into sentences, record id * 1000 + number in the record. If the
    ids of the records are text, a sentence of a cut record has the id `<record>/<number>`, represented by the number
    that stands for this text.
    """
    for record, given, text, name in _records(data.train, base_dir, where, key):
        if data.sentences == "whole":
            yield record, given, text
            continue
        parts = cut_sentences(text)
        if len(parts) > MAX_SENTENCES or not (given or -LAST_RECORD <= record <= LAST_RECORD):
            problem = f"record {given or record} has {len(parts)} sentences; allowed: {MAX_SENTENCES}, of ids up to {LAST_RECORD}"
            raise InputError(name, problem)
        for number, part in enumerate(parts):
            name_of = f"{given}/{number}" if given else ""
            yield number_of(name_of) if given else record * MAX_SENTENCES + number, name_of, part


def _records(config: SentenceSource, base_dir: Path, where: object, key: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield (id, id as text or "", text, name for messages) of the records that `config` selects."""
    table = splits._table(config, base_dir, place(where, f"{key}.path"))
    ids, texts = splits._ids(config, table), read_texts(table, config.text_columns)
    rows = splits._taken(config, table.n_rows).tolist()
    if not rows:
        raise InputError(table.source, f"holds no records that {key} selects")
    given = ids.given or [""] * table.n_rows
    return ((int(ids.numbers[row]), given[row], texts[row], table.place(row)) for row in rows)
