"""The task `textlen`: whether a sentence is short or long, with a prefix of two tokens that mostly reveals the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasks.base import Split
from tasks.components import parse_component, place
from tasks.confounded import SPLITS, ConfoundedText
from tasks.data.conll import read_sentences, read_token_rows
from tasks.data.paths import resolve_path
from tasks.data.textlen_draws import (
    CLASSES,
    CONFOUND_NAMES,
    LAST_SEED,
    Example,
    Lengths,
    long_sentences,
    textlen_examples,
)
from tasks.errors import InputError

EVALUATION_AGREEMENT = 0.5  # of dev and test, so that there the prefix is independent of the label
EvenCount = Annotated[int, Field(ge=2, multiple_of=2)]
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]


class PublishedFiles(BaseModel):
    """A folder with the published data: {train,dev,test}.parquet and, for `prefix: false`, no_prefix_*.parquet.

    Columns: `tokens` (texts, prefix included), `label` (0 short, 1 long), `spurious` (0 negative, 1 positive).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    published: str
    prefix: bool = True

    def read(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        """Return the three splits; ids are row numbers. Raises InputError naming the key, or file, row and column."""
        folder = resolve_path(self.published, base_dir, place(where, f"{key}.published"))
        files = {name: folder / f"{'' if self.prefix else 'no_prefix_'}{name}.parquet" for name in SPLITS}
        for file in files.values():
            if not file.is_file():
                needed = ", ".join(file.name for file in files.values())
                problem = f"{self.published!r} has no file {file.name}; needed there: {needed}"
                raise InputError(place(where, f"{key}.published"), problem)
        return {name: _published_split(file) for name, file in files.items()}


class Generator(BaseModel):
    """TextLen generated from two CoNLL files; the defaults are the published parameters.

    Sentences with fewer than `max_tokens` tokens are left out, the others cut to their first `max_tokens`. Train and
    dev come from `conll_train`, test from `conll_test`. `seed` chooses their sentences; the draw seeds determine
    lengths, prefixes and order. `agreement` is the share of train examples whose prefix is that of their class; in dev
    and test it is half. The published test set comes from the development file of CoNLL-2003 (testa), although the
    paper says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    conll_train: str
    conll_test: str
    prefix: bool = True
    n_train: EvenCount = 1500
    n_dev: EvenCount = 480
    n_test: EvenCount = 500
    max_tokens: int = Field(default=30, ge=1)
    mean_short: float = Field(default=15.0, ge=1, allow_inf_nan=False)
    mean_long: float = Field(default=25.0, ge=1, allow_inf_nan=False)
    sd: float = Field(default=4.0, ge=0, allow_inf_nan=False)
    agreement: float = Field(default=0.9, ge=0, le=1)
    seed: Seed = 2021
    train_draw_seed: Seed = 2022
    test_draw_seed: Seed = 2023  # for dev and test

    def read(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        """Return the three splits; ids are row numbers. Raises InputError naming key and file."""
        of_train = self._sentences("conll_train", {"n_train": self.n_train, "n_dev": self.n_dev}, base_dir, where, key)
        of_test = self._sentences("conll_test", {"n_test": self.n_test}, base_dir, where, key)
        drawn = {
            "train": self._examples(of_train[: self.n_train], self.agreement, self.train_draw_seed),
            "dev": self._examples(of_train[-self.n_dev :], EVALUATION_AGREEMENT, self.test_draw_seed),
            "test": self._examples(of_test[-self.n_test :], EVALUATION_AGREEMENT, self.test_draw_seed),
        }
        return {name: _drawn_split(examples, self.prefix) for name, examples in drawn.items()}

    def _examples(self, sentences: Sequence[tuple[str, ...]], agreement: float, seed: int) -> list[Example]:
        lengths = Lengths(self.mean_short, self.mean_long, self.sd)
        return textlen_examples(sentences, agreement, lengths, seed)

    def _sentences(
        self, option: str, counts: dict[str, int], base_dir: Path, where: str, key: str
    ) -> list[tuple[str, ...]]:
        path = resolve_path(getattr(self, option), base_dir, place(where, f"{key}.{option}"))
        found = long_sentences(read_sentences(path), self.max_tokens, self.seed)
        if len(found) < sum(counts.values()):
            asked = " + ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(
                place(where, f"{key}.{option}"),
                f"{path} has {len(found)} sentences of {self.max_tokens} tokens or more; {asked} need {sum(counts.values())}",
            )
        return found


class TextLen(ConfoundedText):
    """Short or long: `data` is `{published: <folder>}` or `{conll_train: <file>, conll_test: <file>, ...}`, each with `prefix`.

    The classes are (short, long). The confound is the prefix, "Negative ." or "Positive ."; it agrees with the class in
    90% of train and in half of dev and test. `prefix: false` leaves it out of the texts and changes nothing else: this
    is the control without a spurious attribute, whose confounds are still known.

    Source: Han and Tsvetkov 2021, sections 3 and 5.2.
    """

    name: ClassVar[str] = "textlen"
    version: ClassVar[int] = 1

    data: dict[str, Any]

    def read_splits(self, base_dir: Path, where: str, key: str) -> dict[str, Split]:
        """Read or generate the splits. Raises InputError naming file and dotted key."""
        return self._source(where, key).read(base_dir, where, key)

    def _source(self, where: str, key: str) -> PublishedFiles | Generator:
        """Return the form of `data` that its keys select."""
        if "published" in self.data:
            return parse_component(PublishedFiles, self.data, where, key)
        if self.data.keys() & {"conll_train", "conll_test"}:
            return parse_component(Generator, self.data, where, key)
        raise InputError(
            place(where, key), "does not say where the text is; needed: published, or conll_train and conll_test"
        )


def _drawn_split(examples: Sequence[Example], prefix: bool) -> Split:
    texts = tuple(example.text(prefix) for example in examples)
    return _split(texts, [example.label for example in examples], [example.confound for example in examples])


def _published_split(file: Path) -> Split:
    tokens, columns = read_token_rows(file, ["label", "spurious"])
    if not tokens:
        raise InputError(file, "holds no rows")
    for name, values in columns.items():
        for row, value in enumerate(values):
            if value not in (0, 1):
                raise InputError(f"{file}: row {row}", f"{name} {value!r}: allowed: 0, 1")
    return _split(tuple(map(" ".join, tokens)), columns["label"], columns["spurious"])


def _split(texts: tuple[str, ...], labels: Sequence[int], confounds: Sequence[int]) -> Split:
    ids = np.arange(len(texts), dtype=np.int64)
    return Split(
        ids,
        np.asarray(labels, np.int64),
        CLASSES,
        texts,
        confounds=np.asarray(confounds, np.int64),
        confound_names=CONFOUND_NAMES,
    )
