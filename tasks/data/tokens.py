"""Texts -> tokens: a word vocabulary made from the train set, or a pretrained tokeniser; kept in an Arrow cache by content."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from tasks.data.cache import cached_table
from tasks.digests import digest, digest_file, digest_texts
from tasks.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_matrix
    from tokenizers import Tokenizer

PAD, UNKNOWN, START, END = 0, 1, 2, 3
_WORD_SPECIALS = ("[PAD]", "[UNK]", "[START]", "[END]")
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
TOKENISER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
                   "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Tokens:
    """Tokens of n texts, end to end: text i is ids[offsets[i]:offsets[i + 1]].

    `offsets` int64 [n + 1], `ids` int32 [total], `spans` int32 [total, 2]: (start, end) characters in the text, (0, 0) for special tokens.
    """

    offsets: np.ndarray
    ids: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Number of tokens of each of `rows`: int64 [len(rows)]."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def padded(self, rows: np.ndarray, length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [len(rows), length], cut or filled with `pad_id`, and the mask bool of real positions."""
        positions = np.arange(length)
        mask = positions < self.lengths(rows)[:, None]
        at = np.minimum(self.offsets[rows][:, None] + positions, max(len(self.ids) - 1, 0))
        return np.where(mask, self.ids[at], pad_id).astype(np.int64), mask

    def counts(self, vocabulary_size: int) -> csr_matrix:
        """How often each token id occurs in each text: CSR float64 [n, vocabulary_size]."""
        from scipy.sparse import csr_matrix

        counts = csr_matrix((np.ones(len(self.ids)), self.ids, self.offsets), shape=(len(self), vocabulary_size))
        counts.sum_duplicates()
        return counts


class Tokeniser(Protocol):
    """A fitted encoding. `neutral_ids` are the tokens of an empty text: what a removed example is replaced by."""

    vocabulary_size: int
    pad_id: int
    neutral_ids: tuple[int, ...]
    special_ids: tuple[int, ...]

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `texts`, special tokens included, at most `max_length` each."""
        ...

    def token_text(self, token_id: int) -> str:
        """What the token looks like, for people."""
        ...


class Encoding(Protocol):
    """How texts become tokens; what enters the train digest."""

    max_length: int

    def identity(self) -> dict[str, Any]:
        """Content digests and options, never a path."""
        ...

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> Tokeniser:
        """The tokeniser for this train set, whole: a removal never changes the vocabulary."""
        ...


@dataclass(frozen=True)
class WordEncoding:
    """Words and punctuation marks between a start and an end token, at most `max_length` tokens in all.

    The vocabulary holds the words that occur at least `min_count` times in the first `max_length` - 2 words of the train texts, the most
    frequent `max_vocabulary` of them (special tokens not counted), in order of falling count, then of text.
    """

    max_length: int
    lowercase: bool = True
    max_vocabulary: int | None = None
    min_count: int = 1
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Options and version."""
        return {"kind": "words", "version": self.version, **asdict(self)}

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> WordTokeniser:
        """The tokeniser whose vocabulary comes from `train_texts`."""
        import pyarrow as pa

        key = digest(["vocabulary", digest_texts(train_texts), self.identity()])
        table = cached_table(cache_dir, key, lambda: pa.table({"word": pa.array(self._vocabulary(train_texts), pa.string())}))
        return WordTokeniser(self, tuple(table.column("word").to_pylist()))

    def words(self, text: str) -> list[re.Match[str]]:
        """The words of `text` that fit between the special tokens."""
        found = []
        for match in _WORD.finditer(text):
            if len(found) >= self.max_length - 2:
                break
            found.append(match)
        return found

    def form(self, word: str) -> str:
        """The word as the vocabulary has it. Lower-cased word by word: lower-casing a whole text can move its characters."""
        return word.lower() if self.lowercase else word

    def _vocabulary(self, texts: Sequence[str]) -> list[str]:
        counts = Counter(self.form(match.group()) for text in texts for match in self.words(text))
        kept = sorted((word for word, count in counts.items() if count >= self.min_count), key=lambda word: (-counts[word], word))
        return kept[: self.max_vocabulary]


class WordTokeniser:
    """A word encoding with its vocabulary; ids 0 pad, 1 unknown, 2 start, 3 end, then the words."""

    pad_id = PAD
    neutral_ids = (START, END)
    special_ids = (PAD, START, END)

    def __init__(self, encoding: WordEncoding, words: Sequence[str]):
        self.encoding = encoding
        self.words = (*_WORD_SPECIALS, *words)
        self._ids = {word: position for position, word in enumerate(words, len(_WORD_SPECIALS))}
        self.vocabulary_size = len(self.words)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `texts`: start, words, end."""
        rows = []
        for text in texts:
            words = self.encoding.words(text)
            ids = [self._ids.get(self.encoding.form(word.group()), UNKNOWN) for word in words]
            rows.append(([START, *ids, END], [(0, 0), *(word.span() for word in words), (0, 0)]))
        return _tokens(rows)

    def token_text(self, token_id: int) -> str:
        """The word, or the special token's name in brackets."""
        return self.words[token_id]


@dataclass(frozen=True)
class PretrainedEncoding:
    """A Hugging Face tokeniser from `directory`, special tokens included, cut at `max_length`; `digest` is that of its files."""

    directory: Path
    max_length: int
    digest: str
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Digest of the tokeniser files and the length; never the directory."""
        return {"kind": "pretrained", "version": self.version, "digest": self.digest, "max_length": self.max_length}

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> PretrainedTokeniser:
        """The tokeniser as it is: it does not depend on the train set."""
        return PretrainedTokeniser(self.directory, self.max_length)


class PretrainedTokeniser:
    """A fast Hugging Face tokeniser without padding."""

    def __init__(self, directory: Path, max_length: int):
        self._fast = _fast_tokeniser(directory)
        self._fast.no_padding()
        self._fast.enable_truncation(max_length)
        self.vocabulary_size = self._fast.get_vocab_size(with_added_tokens=True)
        self.pad_id = _pad_id(self._fast, directory)
        self.neutral_ids = tuple(self._fast.encode("").ids) or (self.pad_id,)
        self.special_ids = tuple(sorted({self.pad_id, *self.neutral_ids}))

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokens of `texts` with the tokeniser's own special tokens; a text without any token is one pad token."""
        rows = []
        for encoded in self._fast.encode_batch(list(texts)):
            spans = [(0, 0) if special else span for span, special in zip(encoded.offsets, encoded.special_tokens_mask, strict=True)]
            rows.append((encoded.ids or [self.pad_id], spans or [(0, 0)]))
        return _tokens(rows)

    def token_text(self, token_id: int) -> str:
        """The token as its vocabulary has it."""
        return self._fast.id_to_token(token_id) or f"[{token_id}]"


def tokeniser_digest(directory: Path) -> str:
    """Digest of the tokeniser files that are in `directory`, by name and content. Raises InputError when there is none."""
    files = {name: digest_file(directory / name) for name in TOKENISER_FILES if (directory / name).is_file()}
    if not files:
        raise InputError(directory, f"holds no tokeniser; looked for {', '.join(TOKENISER_FILES)}")
    return digest(files)


def cached_tokens(tokeniser: Tokeniser, encoding: Encoding, train_texts: Sequence[str], texts: Sequence[str], cache_dir: Path | None) -> Tokens:
    """Tokens of `texts`, from the cache if they were made before from the same texts by the same encoding."""
    key = digest(["tokens", digest_texts(train_texts), digest_texts(texts), encoding.identity()])
    return _from_table(cached_table(cache_dir, key, lambda: _to_table(tokeniser.encode(texts))))


def _tokens(rows: Sequence[tuple[Sequence[int], Sequence[tuple[int, int]]]]) -> Tokens:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(ids) for ids, _ in rows], out=offsets[1:])
    ids = np.fromiter((token for ids, _ in rows for token in ids), np.int32, offsets[-1])
    spans = np.asarray([span for _, spans in rows for span in spans], np.int32).reshape(-1, 2)
    return Tokens(offsets, ids, spans)


def _to_table(tokens: Tokens) -> pa.Table:
    import pyarrow as pa

    offsets = pa.array(tokens.offsets, pa.int64())
    columns = {"id": tokens.ids, "start": tokens.spans[:, 0], "end": tokens.spans[:, 1]}
    return pa.table({name: pa.LargeListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values), pa.int32()))
                     for name, values in columns.items()})


def _from_table(table: pa.Table) -> Tokens:
    id_, start, end = (table.column(name).combine_chunks() for name in ("id", "start", "end"))
    spans = np.stack([column.values.to_numpy() for column in (start, end)], axis=1)
    return Tokens(id_.offsets.to_numpy().copy(), id_.values.to_numpy().copy(), spans)


def _fast_tokeniser(directory: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False, local_files_only=True).backend_tokenizer
    except Exception as error:  # the library raises bare Exception on a broken file
        raise InputError(directory, f"not a usable fast tokeniser: {error}") from error


def _pad_id(fast: Tokenizer, directory: Path) -> int:
    file = directory / "tokenizer_config.json"
    name = json.loads(file.read_text(encoding="utf-8")).get("pad_token") if file.is_file() else None
    names = [name.get("content") if isinstance(name, dict) else name, "[PAD]", "<pad>", "<|endoftext|>"]
    ids = [fast.token_to_id(name) for name in names if name]
    return next((token for token in ids if token is not None), 0)
