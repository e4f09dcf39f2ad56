"""Records -> sentences -> numbers of words: what models of word vectors are trained on."""

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
from tasks.digests import digest, digest_arrays, digest_texts
from tasks.errors import InputError

MAX_SENTENCES = 1000  # of a record: a sentence's id is the record's id * 1000 + its number
LAST_RECORD = 2**63 // MAX_SENTENCES - 1
# a number is no part of a word: 3,000 and 1.5 are numbers, 1980s and b2b are words
_TOKEN = re.compile(r"(?P<number>(?:(?>[0-9]+(?:[.,:][0-9]+)*)|[0-9]+)(?![^\W_]))|[^\W_]+(?:['’][^\W_]+)*")
_CUT = re.compile(r"\s*[\r\n]+\s*|(?<=[.!?…])\s+(?![a-z])|(?<=[.!?…][\"'”’)\]])\s+(?![a-z])")


class SentenceSource(splits.SplitConfig):
    """A split without labels: of a folder the class folders are read as any others, other formats need `text` only."""

    @model_validator(mode="after")
    def _columns_fit_format(self) -> SentenceSource:
        if self.label is not None:
            raise ValueError("sentences have no label; take it out")
        if self.format == "folder" and (self.text is not None or self.id is not None):
            raise ValueError("format: folder takes no text or id")
        if self.format != "folder" and not self.text:
            raise ValueError(f"format: {self.format} needs the columns of the text")
        return self

    @property
    def columns(self) -> list[str]:
        """Every column that is read, once."""
        return list(dict.fromkeys([*self.text_columns, *([self.id] if self.id else [])]))


class CorpusConfig(BaseModel):
    """Where the sentences come from.

    `sentences: split` cuts a record at line breaks, and after . ! ? or … (and one closing quote or bracket) where white
    space and anything but a small Latin letter follow; abbreviations are not known. `whole`: a record is a sentence.
    Sentences with fewer than `min_tokens` words of the vocabulary are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    train: SentenceSource
    sentences: Literal["split", "whole"] = "whole"
    min_tokens: int = Field(2, ge=1)


class VocabularyConfig(BaseModel):
    """Which words are kept: those that occur `min_count` times in the train set and are not in `stopwords`.

    Words are lower-cased runs of letters and digits; apostrophes inside are kept. Numbers become the word `numbers`, or
    stay as they are with `keep`. `stopwords`: words, or the path of a file with one a line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_count: int = Field(5, ge=1)
    numbers: str = Field("<num>", min_length=1)
    stopwords: list[str] | str = Field(default_factory=list)

    def read_stopwords(self, base_dir: Path, where: object, key: str) -> tuple[str, ...]:
        """The stop words, lower-cased, sorted, once. Raises InputError when their file cannot be read."""
        words: Iterable[str] = self.stopwords
        if isinstance(self.stopwords, str):
            path = resolve_path(self.stopwords, base_dir, place(where, f"{key}.stopwords"))
            try:
                words = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(path, f"not a readable UTF-8 file of stop words: {error}") from error
        return tuple(sorted({word.strip().lower() for word in words} - {""}))


def words_of(text: str, numbers: str = "<num>") -> list[str]:
    """The words of a text in order; numbers become `numbers`, unless it is `keep`."""
    found = _TOKEN.finditer(text.lower())
    if numbers == "keep":
        return [match[0].replace("’", "'") for match in found]
    return [numbers if match["number"] else match[0].replace("’", "'") for match in found]


def cut_sentences(text: str) -> list[str]:
    """The sentences of a text by the rule of CorpusConfig; white space around them is left out, empty ones too."""
    return [sentence for part in _CUT.split(text) if (sentence := part.strip())]


@dataclass(frozen=True)
class Vocabulary:
    """`words` by falling count, then alphabetically; `counts` int64 [n_words] in the full train set, whatever is removed."""

    words: tuple[str, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Word -> its number."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def count_of(self) -> Mapping[str, int]:
        """Word -> its count."""
        return dict(zip(self.words, self.counts.tolist(), strict=True))

    @staticmethod
    def of(token_lists: Iterable[Sequence[str]], min_count: int, stopwords: Iterable[str] = ()) -> Vocabulary:
        """The vocabulary of these sentences."""
        counter: Counter[str] = Counter()
        for tokens in token_lists:
            counter.update(tokens)
        for word in stopwords:
            counter.pop(word, None)
        kept = sorted((-count, word) for word, count in counter.items() if count >= min_count)
        return Vocabulary(tuple(word for _, word in kept), np.asarray([-count for count, _ in kept], np.int64))


@dataclass(frozen=True)
class Sentences:
    """Sentences as numbers of words: `tokens` int32 [sum of lengths], sentence i at offsets[i] : offsets[i + 1]."""

    tokens: np.ndarray
    offsets: np.ndarray  # int64 [n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Words of every sentence, int64 [n]."""
        return np.diff(self.offsets)

    def flat(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, position in `rows`, position in the sentence) of every word of these sentences, in order."""
        lengths = self.lengths[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        place_in = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.tokens[np.repeat(self.offsets[rows], lengths) + place_in], owner, place_in

    def rows_with(self, words: np.ndarray) -> np.ndarray:
        """Sentences that hold at least one of these words: int64, sorted."""
        owner = np.repeat(np.arange(len(self)), self.lengths)
        return np.unique(owner[np.isin(self.tokens, words)])

    @staticmethod
    def of(numbers: Sequence[Sequence[int]]) -> Sentences:
        """From one list of word numbers a sentence."""
        offsets = np.cumsum([0, *map(len, numbers)], dtype=np.int64)
        return Sentences(np.fromiter((n for row in numbers for n in row), np.int32, int(offsets[-1])), offsets)


@dataclass(frozen=True)
class Corpus:
    """Sentences (ids int64, texts, numbers of words) and the vocabulary they were numbered with."""

    ids: np.ndarray
    texts: tuple[str, ...]
    sentences: Sentences
    vocabulary: Vocabulary
    options: Mapping[str, object]  # what made words of the texts
    given_ids: tuple[str, ...] | None = None  # the ids as the data has them, where they are text

    def content_digest(self) -> str:
        """Digest of ids, texts, numbers of words, vocabulary and its counts, and the options that made them."""
        vocabulary = [digest_texts(self.vocabulary.words), digest_arrays(counts=self.vocabulary.counts)]
        numbers = digest_arrays(ids=self.ids, tokens=self.sentences.tokens, offsets=self.sentences.offsets)
        return digest([numbers, digest_texts(self.texts), vocabulary, dict(self.options)])


def read_corpus(data: CorpusConfig, vocabulary: VocabularyConfig, base_dir: Path, where: object, key: str) -> Corpus:
    """The corpus these blocks ask for; `key` is the dotted key of the task. Raises InputError."""
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
    """(id, id as text or "", text) of every sentence.

    The id is the record's, or record id * 1000 + number in the record when it is cut. Where the records' ids are text, a
    sentence that was cut has the id `<record>/<number>`, and the number that stands for that.
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
    """(id, id as text or "", text, what to call it) of the records that `config` asks for."""
    table = splits._table(config, base_dir, place(where, f"{key}.path"))
    ids, texts = splits._ids(config, table), splits._texts(config, table)
    rows = splits._taken(config, table.n_rows).tolist()
    if not rows:
        raise InputError(table.source, f"holds no records that {key} takes")
    given = ids.given or [""] * table.n_rows
    return ((int(ids.numbers[row]), given[row], texts[row], table.place(row)) for row in rows)
