"""Tokenises texts by the words of the train set or by a pretrained tokeniser, with an Arrow cache by content."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tasks.data.cache import cached_table
from tasks.data.token_arrays import Tokens, join_tokens, table_of_tokens, tokens_of_table
from tasks.digests import digest, digest_file, digest_texts
from tasks.errors import InputError
from tasks.sources import with_sources

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, START, END = 0, 1, 2, 3
_WORD_SPECIALS = ("[PAD]", "[UNK]", "[START]", "[END]")
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
TOKENISER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


class Tokeniser(Protocol):
    """A fitted encoding; it can be pickled.

    `neutral_ids` are the tokens of an empty text, which replace a removed example. `special_ids` stand for no word
    (pad, start, end). `unknown_id` stands for words outside the vocabulary; None if there are none.
    """

    vocabulary_size: int
    pad_id: int
    unknown_id: int | None
    neutral_ids: tuple[int, ...]
    special_ids: tuple[int, ...]

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of `texts`, including special tokens, at most `max_length` per text."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return the token in a form that people can read."""
        ...


class Encoding(Protocol):
    """How texts become tokens; its identity enters the train digest."""

    @property
    def max_length(self) -> int:
        """The most tokens of a text, including special ones."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return content digests and options, never a path."""
        ...

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> Tokeniser:
        """Return the tokeniser of the full train set, so that a removal never changes the vocabulary."""
        ...


@dataclass(frozen=True)
class WordEncoding:
    """Words and punctuation marks between a start and an end token, at most `max_length` tokens in all.

    The vocabulary is made of the words that occur at least `min_count` times within the first `max_length` - 2 words of
    the train texts. It keeps the `max_vocabulary` most frequent ones (special tokens not counted), sorted by falling
    count, then by text.
    """

    max_length: int
    lowercase: bool = True
    max_vocabulary: int | None = None
    min_count: int = 1
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Return options and version."""
        return {"kind": "words", "version": self.version, **asdict(self)}

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> WordTokeniser:
        """Return the tokeniser whose vocabulary comes from `train_texts`."""
        import pyarrow as pa

        key = digest(["vocabulary", digest_texts(train_texts), with_sources(self.identity(), self)])
        table = cached_table(
            cache_dir, key, lambda: pa.table({"word": pa.array(self._vocabulary(train_texts), pa.string())})
        )
        return WordTokeniser(self, tuple(table.column("word").to_pylist()))

    def words(self, text: str) -> list[re.Match[str]]:
        """Return the words of `text` that fit between the special tokens."""
        found = []
        for match in _WORD.finditer(text):
            if len(found) >= self.max_length - 2:
                break
            found.append(match)
        return found

    def form(self, word: str) -> str:
        """Return the word in the form that the vocabulary has.

        It takes single words, because lower-casing a whole text can move its characters.
        """
        return word.lower() if self.lowercase else word

    def _vocabulary(self, texts: Sequence[str]) -> list[str]:
        counts = Counter(self.form(match.group()) for text in texts for match in self.words(text))
        kept = sorted(
            (word for word, count in counts.items() if count >= self.min_count), key=lambda word: (-counts[word], word)
        )
        return kept[: self.max_vocabulary]


class WordTokeniser:
    """A word encoding with its vocabulary; ids 0 pad, 1 unknown, 2 start, 3 end, then the words."""

    pad_id = PAD
    unknown_id = UNKNOWN
    neutral_ids = (START, END)
    special_ids = (PAD, START, END)

    def __init__(self, encoding: WordEncoding, words: Sequence[str]):
        self.encoding = encoding
        self.words = (*_WORD_SPECIALS, *words)
        self._ids = {word: position for position, word in enumerate(words, len(_WORD_SPECIALS))}
        self.vocabulary_size = len(self.words)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of `texts`: start, words, end."""
        rows = []
        for text in texts:
            words = self.encoding.words(text)
            ids = [self._ids.get(self.encoding.form(word.group()), UNKNOWN) for word in words]
            rows.append(([START, *ids, END], [(0, 0), *(word.span() for word in words), (0, 0)]))
        return join_tokens(rows)

    def token_text(self, token_id: int) -> str:
        """Return the word, or the special token's name in brackets."""
        return self.words[token_id]


@dataclass(frozen=True)
class PretrainedEncoding:
    """A Hugging Face tokeniser from `directory`, cut at `max_length`; `digest` is the digest of its files."""

    directory: Path
    max_length: int
    digest: str
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Return the digest of the tokeniser files and the length, never the directory."""
        return {"kind": "pretrained", "version": self.version, "digest": self.digest, "max_length": self.max_length}

    def fit(self, train_texts: Sequence[str], cache_dir: Path | None = None) -> PretrainedTokeniser:
        """Return the tokeniser unchanged; it does not depend on the train set."""
        return PretrainedTokeniser(self.directory, self.max_length)


class PretrainedTokeniser:
    """A fast Hugging Face tokeniser without padding."""

    def __init__(self, directory: Path, max_length: int):
        self._fast = _fast_tokeniser(directory)
        self._fast.no_padding()
        self._fast.enable_truncation(max_length)
        self.vocabulary_size = self._fast.get_vocab_size(with_added_tokens=True)
        self.pad_id = _pad_id(self._fast, directory)
        self.unknown_id = _unknown_id(self._fast)
        self.neutral_ids = tuple(self._fast.encode("").ids) or (self.pad_id,)
        self.special_ids = tuple(sorted({self.pad_id, *self.neutral_ids}))

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of `texts` with the tokeniser's own special tokens; a text without tokens gets one pad token."""
        rows = []
        for encoded in self._fast.encode_batch(list(texts)):
            spans = [
                (0, 0) if special else span
                for span, special in zip(encoded.offsets, encoded.special_tokens_mask, strict=True)
            ]
            rows.append((encoded.ids or [self.pad_id], spans or [(0, 0)]))
        return join_tokens(rows)

    def token_text(self, token_id: int) -> str:
        """Return the token as its vocabulary has it."""
        return self._fast.id_to_token(token_id) or f"[{token_id}]"


def word_ids(tokeniser: Tokeniser, word: str) -> frozenset[int]:
    """Return the ids of the tokens that stand for `word` after a space, and at the start of a text if it is one token there.

    Byte-level BPE has a token for each of the two places. Raises ValueError if the word is not known, is split, or is no
    word but a special token.
    """
    tokens = tokeniser.encode([f" {word}", word])
    cuts = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    after, first = ([i for i in tokens.ids[a:b].tolist() if i not in tokeniser.special_ids] for a, b in cuts)
    if not after:
        raise ValueError(f"{word!r} is no word: the tokenizer gives it no token of its own")
    if tokeniser.unknown_id in after:
        raise ValueError(f"{word!r} is not in the vocabulary of the tokenizer")
    if len(after) > 1:
        parts = ", ".join(repr(tokeniser.token_text(token)) for token in after)
        raise ValueError(f"{word!r} is not one token; the tokenizer splits it into {parts}")
    return frozenset([*after, *(first if len(first) == 1 and first[0] != tokeniser.unknown_id else [])])


def tokeniser_digest(directory: Path) -> str:
    """Return the digest of the tokeniser files in `directory`, by name and content. Raises InputError if there are none."""
    files = {name: digest_file(directory / name) for name in TOKENISER_FILES if (directory / name).is_file()}
    if not files:
        raise InputError(directory, f"holds no tokeniser; looked for {', '.join(TOKENISER_FILES)}")
    return digest(files)


def cached_tokens(
    tokeniser: Tokeniser, encoding: Encoding, train_texts: Sequence[str], texts: Sequence[str], cache_dir: Path | None
) -> Tokens:
    """Return the tokens of `texts`, read from the cache if the same encoding made them before from the same texts."""
    made_by = with_sources(encoding.identity(), encoding, tokeniser)
    key = digest(["tokens", digest_texts(train_texts), digest_texts(texts), made_by])
    return tokens_of_table(cached_table(cache_dir, key, lambda: table_of_tokens(tokeniser.encode(texts))))


def _fast_tokeniser(directory: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            directory, use_fast=True, trust_remote_code=False, local_files_only=True
        ).backend_tokenizer
    except Exception as error:  # the library raises a bare Exception on a broken file
        raise InputError(directory, f"not a usable fast tokeniser: {error}") from error


def _unknown_id(fast: Tokenizer) -> int | None:
    name = getattr(fast.model, "unk_token", None)
    return getattr(fast.model, "unk_id", None) if name is None else fast.token_to_id(name)


def _pad_id(fast: Tokenizer, directory: Path) -> int:
    file = directory / "tokenizer_config.json"
    try:
        name = json.loads(file.read_text(encoding="utf-8")).get("pad_token") if file.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(file, f"not a tokeniser configuration: {error}") from error
    names = [name.get("content") if isinstance(name, dict) else name, "[PAD]", "<pad>", "<|endoftext|>"]
    ids = [fast.token_to_id(name) for name in names if name]
    return next((token for token in ids if token is not None), 0)
