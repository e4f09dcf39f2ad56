"""Tokenises texts, and pairs of texts, by words of the train set or by a pretrained tokeniser; caches them by content."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tasks.base import BETWEEN, Text
from tasks.data.cache import cached_table
from tasks.data.segments import cut_longest_first, require_room, require_separator
from tasks.data.token_arrays import Tokens, join_tokens, table_of_tokens, tokens_of_table
from tasks.digests import digest, digest_file, digest_texts
from tasks.errors import InputError
from tasks.sources import with_sources

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, START, END, SEPARATOR = 0, 1, 2, 3, 4  # only encodings of pairs have a separator
_WORD_SPECIALS, _WORD_SEPARATOR = ("[PAD]", "[UNK]", "[START]", "[END]"), "[SEP]"
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
PAD_NAMES = ("[PAD]", "<pad>", "<|endoftext|>")
REPLACING = {"unknown": ("unk_token", ("[UNK]", "<unk>")), "mask": ("mask_token", ("[MASK]", "<mask>"))}
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

    `neutral_ids` are the tokens of an empty text (or of a pair of empty texts), which replace a removed example.
    `special_ids` stand for no word (pad, start, end, separator). `unknown_id` stands for words outside the vocabulary; None if
    there are none.
    `replacements`: the tokens that may replace a word, by their names in tasks.data.edits.ReplaceBy.
    """

    vocabulary_size: int
    pad_id: int
    unknown_id: int | None
    neutral_ids: tuple[int, ...]
    special_ids: tuple[int, ...]
    replacements: Mapping[str, int]

    def encode(self, texts: Sequence[Any]) -> Tokens:
        """Return the tokens of `texts`, including special tokens, at most `max_length` per text.

        `texts` holds strings; for the tokeniser of an encoding that `of_pairs` made, it holds pairs of strings.
        """
        ...

    def token_text(self, token_id: int) -> str:
        """Return the token in a form that people can read."""
        ...


class Encoding(Protocol):
    """How texts become tokens; its identity enters the train digest.

    An encoding that can read pairs of texts also has the method `of_pairs() -> Encoding`.
    """

    @property
    def max_length(self) -> int:
        """The most tokens of a text, including special ones."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return content digests and options, never a path."""
        ...

    def fit(self, train_texts: Sequence[Any], cache_dir: Path | None = None) -> Tokeniser:
        """Return the tokeniser of the full train set, so that a removal never changes the vocabulary."""
        ...


@dataclass(frozen=True)
class WordEncoding:
    """Words and punctuation marks between a start and an end token, at most `max_length` tokens in all.

    The vocabulary is made of the words that occur at least `min_count` times within the first `max_length` - 2 words of
    the train texts. It keeps the `max_vocabulary` most frequent ones (special tokens not counted), sorted by falling
    count, then by text. With `pairs`, a separator stands between the two segments of a pair, and the longer segment is
    cut first.
    """

    max_length: int
    lowercase: bool = True
    max_vocabulary: int | None = None
    min_count: int = 1
    pairs: bool = False
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Return options and version; `pairs` only if it is set, so that identities of single texts stay what they were."""
        options = {name: value for name, value in asdict(self).items() if name != "pairs" or value}
        return {"kind": "words", "version": self.version, **options}

    def of_pairs(self) -> WordEncoding:
        """Return the same encoding for pairs of texts. Raises InputError if `max_length` is too small for them."""
        require_room(self.max_length, n_special=3)
        return replace(self, pairs=True)

    def fit(self, train_texts: Sequence[Text], cache_dir: Path | None = None) -> WordTokeniser:
        """Return the tokeniser whose vocabulary comes from `train_texts`."""
        import pyarrow as pa

        key = digest(["vocabulary", _digest_of(train_texts), with_sources(self.identity(), self)])
        table = cached_table(
            cache_dir, key, lambda: pa.table({"word": pa.array(self._vocabulary(train_texts), pa.string())})
        )
        return WordTokeniser(self, tuple(table.column("word").to_pylist()))

    def words(self, text: Text) -> list[list[re.Match[str]]]:
        """Return the words that fit between the special tokens, for every segment of `text`: one, or two of a pair."""
        if isinstance(text, str):
            return [list(islice(_WORD.finditer(text), self.max_length - 2))]
        first, second = (list(_WORD.finditer(segment)) for segment in text)
        n_first, n_second = cut_longest_first(len(first), len(second), self.max_length - 3)
        return [first[:n_first], second[:n_second]]

    def form(self, word: str) -> str:
        """Return the word in the form that the vocabulary has.

        It takes single words, because lower-casing a whole text can move its characters.
        """
        return word.lower() if self.lowercase else word

    def _vocabulary(self, texts: Sequence[Text]) -> list[str]:
        counts = Counter(
            self.form(match.group()) for text in texts for segment in self.words(text) for match in segment
        )
        kept = sorted(
            (word for word, count in counts.items() if count >= self.min_count), key=lambda word: (-counts[word], word)
        )
        return kept[: self.max_vocabulary]


class WordTokeniser:
    """A word encoding with its vocabulary; ids 0 pad, 1 unknown, 2 start, 3 end, 4 separator (of pairs), then the words."""

    pad_id = PAD
    replacements = MappingProxyType({"pad": PAD, "unknown": UNKNOWN})
    unknown_id = UNKNOWN

    def __init__(self, encoding: WordEncoding, words: Sequence[str]):
        self.encoding = encoding
        specials = (*_WORD_SPECIALS, _WORD_SEPARATOR) if encoding.pairs else _WORD_SPECIALS
        self.neutral_ids = (START, SEPARATOR, END) if encoding.pairs else (START, END)
        self.special_ids = (PAD, START, END, SEPARATOR) if encoding.pairs else (PAD, START, END)
        self.words = (*specials, *words)
        self._ids = {word: position for position, word in enumerate(words, len(specials))}
        self.vocabulary_size = len(self.words)

    def encode(self, texts: Sequence[Text]) -> Tokens:
        """Return the tokens of `texts`: start, words, end; with a separator between the two segments of a pair."""
        return join_tokens([self._row(text) for text in texts])

    def _row(self, text: Text) -> tuple[list[int], list[tuple[int, int]]]:
        ids, spans = [START], [(0, 0)]
        for number, words in enumerate(self.encoding.words(text)):
            shift = 0
            if number:
                ids.append(SEPARATOR)
                spans.append((0, 0))
                shift = len(text[0]) + len(BETWEEN)
            ids += [self._ids.get(self.encoding.form(word.group()), UNKNOWN) for word in words]
            spans += [(word.start() + shift, word.end() + shift) for word in words]
        return [*ids, END], [*spans, (0, 0)]

    def token_text(self, token_id: int) -> str:
        """Return the word, or the special token's name in brackets."""
        return self.words[token_id]


@dataclass(frozen=True)
class PretrainedEncoding:
    """A Hugging Face tokeniser from `directory`, cut at `max_length`; `digest` is the digest of its files.

    With `pairs` it joins the two segments of a pair in its own way, and the longer segment is cut first.
    """

    directory: Path
    max_length: int
    digest: str
    pairs: bool = False
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Return the digest of the tokeniser files, the length, and `pairs` if it is set; never the directory."""
        found = {"kind": "pretrained", "version": self.version, "digest": self.digest, "max_length": self.max_length}
        return {**found, "pairs": True} if self.pairs else found

    def of_pairs(self) -> PretrainedEncoding:
        """Return the same encoding for pairs of texts. Raises InputError if the tokeniser cannot join or fit two texts.

        Without tokenizer.json this is found out by `fit`, because transformers converts other files, and imports torch.
        """
        if (self.directory / "tokenizer.json").is_file():
            PretrainedTokeniser(self.directory, self.max_length, pairs=True)
        return replace(self, pairs=True)

    def fit(self, train_texts: Sequence[Text], cache_dir: Path | None = None) -> PretrainedTokeniser:
        """Return the tokeniser unchanged; it does not depend on the train set."""
        return PretrainedTokeniser(self.directory, self.max_length, self.pairs)


class PretrainedTokeniser:
    """A fast Hugging Face tokeniser without padding."""

    def __init__(self, directory: Path, max_length: int, pairs: bool = False):
        self._fast = _fast_tokeniser(directory)
        if pairs:
            require_separator(self._fast, directory)
            require_room(max_length, self._fast.num_special_tokens_to_add(True))
        self._fast.no_padding()
        self._fast.enable_truncation(max_length)
        self.vocabulary_size = self._fast.get_vocab_size(with_added_tokens=True)
        self.pad_id = _special_id(self._fast, directory, "pad_token", PAD_NAMES) or 0
        empty = self._fast.encode("", "") if pairs else self._fast.encode("")
        self.neutral_ids = tuple(empty.ids) or (self.pad_id,)
        self.unknown_id = _unknown_id(self._fast)
        self.special_ids = tuple(sorted({self.pad_id, *self.neutral_ids}))
        unknown, mask = (_special_id(self._fast, directory, key, names) for key, names in REPLACING.values())
        found = {"pad": self.pad_id, "unknown": unknown, "mask": mask}
        self.replacements = {name: token for name, token in found.items() if token is not None}
        self._has_types = pairs and any(empty.type_ids)

    def encode(self, texts: Sequence[Text]) -> Tokens:
        """Return the tokens of `texts` with the tokeniser's own special tokens; a text without tokens gets one pad token."""
        rows, found = [], self._fast.encode_batch(list(texts))
        for text, encoded in zip(texts, found, strict=True):
            shift = 0 if isinstance(text, str) else len(text[0]) + len(BETWEEN)  # of the second segment
            spans = [
                (0, 0) if special else (start + shift, end + shift) if segment else (start, end)
                for (start, end), special, segment in zip(
                    encoded.offsets, encoded.special_tokens_mask, encoded.sequence_ids, strict=True
                )
            ]
            rows.append((encoded.ids or [self.pad_id], spans or [(0, 0)]))
        return join_tokens(rows, [encoded.type_ids for encoded in found] if self._has_types else None)

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
    tokeniser: Tokeniser, encoding: Encoding, train_texts: Sequence[Text], texts: Sequence[Text], cache_dir: Path | None
) -> Tokens:
    """Return the tokens of `texts`, read from the cache if the same encoding made them before from the same texts."""
    made_by = with_sources(encoding.identity(), encoding, tokeniser)
    key = digest(["tokens", _digest_of(train_texts), _digest_of(texts), made_by])
    return tokens_of_table(cached_table(cache_dir, key, lambda: table_of_tokens(tokeniser.encode(texts))))


def _digest_of(texts: Sequence[Text]) -> str:
    return digest_texts(part for text in texts for part in ((text,) if isinstance(text, str) else text))


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


def _special_id(fast: Tokenizer, directory: Path, key: str, known: Sequence[str]) -> int | None:
    """Return the id of the token that the tokeniser's configuration names under `key`, else of the first `known` name that it has."""
    file = directory / "tokenizer_config.json"
    try:
        name = json.loads(file.read_text(encoding="utf-8")).get(key) if file.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(file, f"not a tokeniser configuration: {error}") from error
    names = [name.get("content") if isinstance(name, dict) else name, *known]
    ids = [fast.token_to_id(name) for name in names if name]
    return next((token for token in ids if token is not None), None)
