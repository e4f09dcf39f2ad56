"""The effect of a word embedding association test as a property of word vectors. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from tasks.data.paths import resolve_path
from tasks.data.word_lists import WEATS, WeatLists, WordListFile, read_word_lists
from tasks.errors import InputError
from tasks.properties import Property, ResolvedProperty, plain_label, rows_of
from tasks.suggestions import did_you_mean
from tasks.weat import Ddof, PermutationTest, Statistic, associations, halves, permutation_test, weat


@dataclass(frozen=True)
class ResolvedWeat(ResolvedProperty):
    """A WEAT on the words that were kept."""

    weat_lists: WeatLists
    statistic: Statistic
    ddof: Ddof
    absolute: bool

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """The kept words: x, y, a and, unless one-sided, b."""
        return self.weat_lists.named()

    def describe(self) -> str:
        """Describe the statistic and every list for people."""
        name = "difference of mean associations" if self.statistic == "mean_difference" else "effect size"
        sizes = f" (ddof {self.ddof})" if self.statistic == "effect_size" else ""
        lists = "; ".join(f"{letter.upper()}: {' '.join(words)}" for letter, words in self.lists.items())
        refused = f"; refused: {self.refused}" if self.refused else ""
        return f"{'absolute ' if self.absolute else ''}WEAT {name}{sizes}; {lists}{refused}"

    def identity(self) -> dict[str, Any]:
        """Return the words of each list, and the statistic."""
        lists = {letter: list(words) for letter, words in self.lists.items()}
        options = {"statistic": self.statistic, "ddof": self.ddof, "absolute": self.absolute}
        return {"name": Weat.name, "version": Weat.version, "lists": lists, **options}

    def permutation_test(
        self,
        vectors: np.ndarray,
        index: Mapping[str, int],
        *,
        two_sided: bool = False,
        n_samples: int = 10_000,
        seed: int = 0,
    ) -> PermutationTest:
        """Return the test of `tasks.weat.permutation_test` on vectors [n, dim]."""
        self._refuse()
        s = associations(*self._parts(np.asarray(vectors, np.float64), index))
        return permutation_test(s, len(self.weat_lists.x), two_sided=two_sided, n_samples=n_samples, seed=seed)

    def _parts(self, vectors: Any, index: Mapping[str, int]) -> tuple[Any, Any, Any]:
        """Return the vectors of X and Y, of A and of B (None if one-sided)."""
        lists = self.weat_lists
        targets, a = rows_of(vectors, lists.x + lists.y, index), rows_of(vectors, lists.a, index)
        return targets, a, None if lists.b is None else rows_of(vectors, lists.b, index)

    def _formula(self, vectors: Any, initial: Any, index: Mapping[str, int]) -> Any:
        targets, a, b = self._parts(vectors, index)
        options: dict[str, Any] = {"statistic": self.statistic, "ddof": self.ddof, "absolute": self.absolute}
        return weat(targets, len(self.weat_lists.x), a, b, **options)


class Weat(Property):
    """The effect of a word embedding association test (Caliskan et al. 2017; Silva et al. 2022, appendix B).

    The words are given by `test`, a name (career, math, science, art, race, religion, scifi; with `file`, a name in
    that JSON file, or weat_1 to weat_10 made of its lists), or by `x`, `y`, `a` and `b`, lists of words or names of
    lists of `file`; without `b` the test is one-sided (their section 4.3.1). `lowercase` lower-cases the words as the
    vocabulary does. Words with fewer than `min_uses` uses are left out; each list must keep at least `min_words`, or
    the test is refused (with `if_too_few: skip` the reason is recorded and the campaign continues without the test).
    `half` first or second uses that half of every list, split by `half_seed`; each half must have `min_words_half`
    words.
    """

    name: ClassVar[str] = "weat"
    version: ClassVar[int] = 1

    test: str | None = None
    file: str | None = None
    x: tuple[str, ...] | str | None = None
    y: tuple[str, ...] | str | None = None
    a: tuple[str, ...] | str | None = None
    b: tuple[str, ...] | str | None = None
    lowercase: bool = True
    statistic: Statistic = "effect_size"
    ddof: Ddof = 1
    absolute: bool = False
    min_uses: int = Field(20, ge=1)
    min_words: int = Field(6, ge=1)
    if_too_few: Literal["refuse", "skip"] = "refuse"
    half: Literal["first", "second"] | None = None
    half_seed: int = Field(0, ge=0)
    min_words_half: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Weat:
        given = {letter: words for letter in "xyab" if (words := getattr(self, letter)) is not None}
        if (self.test is None) == (not given):
            raise ValueError("give either `test`, or the lists `x`, `y`, `a` and, unless one-sided, `b`")
        if given and not {"x", "y", "a"} <= given.keys():
            raise ValueError(f"only {', '.join(given)} given; a test needs x, y and a")
        named = [letter for letter, words in given.items() if isinstance(words, str)]
        if named and self.file is None:
            raise ValueError(f"{named[0]} is the name of a list; give the `file` that has it, or a list of words")
        return self

    def resolve(self, counts: Mapping[str, int], base_dir: Path, where: str) -> ResolvedWeat:
        """Return the test on the words that are used often enough. Raises InputError listing what each list kept and lost."""
        configured = self._configured(base_dir, where)
        kept = WeatLists(
            **{k: tuple(w for w in words if self._is_kept(w, counts)) for k, words in configured.named().items()}
        )
        refused = self._too_few(configured, kept, counts)
        if refused is None and self.half is not None:
            kept = halves(kept, self.half_seed)[0 if self.half == "first" else 1]
        if refused is not None and self.if_too_few == "refuse":
            raise InputError(where, f"{self._title()} {refused}; if_too_few: skip leaves it out")
        words = () if refused is not None else tuple(dict.fromkeys(w for ws in kept.named().values() for w in ws))
        return ResolvedWeat(
            self.label or self._default_label(), words, refused, kept, self.statistic, self.ddof, self.absolute
        )

    def _is_kept(self, word: str, counts: Mapping[str, int]) -> bool:
        return counts.get(word, 0) >= self.min_uses

    def _configured(self, base_dir: Path, where: str) -> WeatLists:
        """Return the lists before any word is left out. Raises InputError."""
        source = read_word_lists(resolve_path(self.file, base_dir, f"{where}.file")) if self.file is not None else None
        lists = self._of_test(source, where) if self.test is not None else self._explicit(source, where)
        if self.lowercase:
            lists = WeatLists(**{k: tuple(w.lower() for w in words) for k, words in lists.named().items()})
        problem = lists.problem()
        if problem is not None:
            raise InputError(where, f"{self._title()}: {problem}")
        return lists

    def _of_test(self, source: WordListFile | None, where: str) -> WeatLists:
        name = self.test or ""
        if source is not None:
            return source.test(name, f"{where}.test")
        if name not in WEATS:
            raise InputError(
                f"{where}.test", f"unknown test {name!r}; allowed: {', '.join(WEATS)}{did_you_mean(name, WEATS)}"
            )
        return WEATS[name]

    def _explicit(self, source: WordListFile | None, where: str) -> WeatLists:
        lists: dict[str, tuple[str, ...]] = {}
        for letter in "xyab":
            words: tuple[str, ...] | str | None = getattr(self, letter)
            if isinstance(words, str):
                lists[letter] = source.words(words, f"{where}.{letter}") if source is not None else ()
            elif words is not None:
                lists[letter] = words
        return WeatLists(**lists)

    def _too_few(self, configured: WeatLists, kept: WeatLists, counts: Mapping[str, int]) -> str | None:
        """Return why the words are too few, list by list, or None."""
        keeps = kept.named()
        if any(len(words) < self.min_words for words in keeps.values()):
            lists = "; ".join(_losses(k, words, keeps[k], counts) for k, words in configured.named().items())
            return f"keeps too few words (each list needs {self.min_words} with {self.min_uses} uses or more): {lists}"
        smallest = min(len(words) // 2 for words in keeps.values())
        if self.half is not None and smallest < self.min_words_half:
            sizes = ", ".join(f"{k} {len(words)}" for k, words in keeps.items())
            return f"cannot be halved (each half needs {self.min_words_half} words of every list); kept: {sizes}"
        return None

    def _title(self) -> str:
        return f"the test {self.test!r}" if self.test is not None else "the test"

    def _default_label(self) -> str:
        return plain_label("_".join(part for part in ("weat", self.test, self.half) if part))


def _losses(letter: str, configured: Sequence[str], kept: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return `x 3 of 8 (without steve 4, greg unknown, ...)`; a word outside the vocabulary has no count."""
    lost = [f"{word} {counts.get(word, 'unknown')}" for word in configured if word not in kept]
    shown = ", ".join(lost[:6]) + (", ..." if len(lost) > 6 else "")
    return f"{letter} {len(kept)} of {len(configured)}" + (f" (without {shown})" if lost else "")
