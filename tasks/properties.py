"""Properties of word vectors: one differentiable number per set of vectors. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from tasks.base import Component
from tasks.errors import InputError
from tasks.weat import PermutationTest, associations

if TYPE_CHECKING:
    from torch import Tensor

_LABEL = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}$"


@dataclass(frozen=True)
class ResolvedProperty:
    """A property whose words are known to be in the vocabulary; it can be pickled.

    `words` are those whose vectors it reads, each once. `refused` is the reason why it cannot be measured, or None; if
    it is set, `value` and `tensor` raise ValueError.
    """

    label: str
    words: tuple[str, ...]
    refused: str | None

    def describe(self) -> str:
        """Describe in words what is measured."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return what determines the number, as plain JSON: the words themselves, never a file's path or the label."""
        raise NotImplementedError

    @property
    def lists(self) -> Mapping[str, tuple[str, ...]]:
        """The word lists of an association test by letter (x, y, a and, if two-sided, b); empty for other properties."""
        return {}

    def permutation_test(
        self, vectors: np.ndarray, index: Mapping[str, int], *, n_samples: int = 10_000
    ) -> PermutationTest | None:
        """Return the permutation test of an association in vectors [n, dim]; None for other properties."""
        return None

    def value(self, vectors: np.ndarray, initial: np.ndarray, index: Mapping[str, int]) -> float:
        """Return the number, in float64, of final and initial vectors [n, dim]; `index` maps every word of `words` to its row.

        NaN if it is undefined (a zero vector).
        """
        self._refuse()
        return float(self._formula(np.asarray(vectors, np.float64), np.asarray(initial, np.float64), index))

    def tensor(self, vectors: Tensor, initial: Tensor, index: Mapping[str, int]) -> Tensor:
        """Return the same number as a tensor [] of the dtype of `vectors`, differentiable in them."""
        self._refuse()
        return self._formula(vectors, initial, index)

    def _refuse(self) -> None:
        if self.refused is not None:
            raise ValueError(f"{self.label} cannot be measured: {self.refused}")

    def _formula(self, vectors: Any, initial: Any, index: Mapping[str, int]) -> Any:
        """Compute the number from numpy arrays or from tensors."""
        raise NotImplementedError


class Property(Component):
    """A property as a config describes it.

    `label` is its name in every table, by default made of its name and words.
    """

    model_config = ConfigDict(populate_by_name=True)

    label: str | None = Field(None, alias="as", pattern=_LABEL)

    def identity(self) -> dict[str, Any]:
        """Return name, version and options, without the label; a resolved property's identity has words in place of paths."""
        return {key: value for key, value in super().identity().items() if key != "label"}

    def resolve(self, counts: Mapping[str, int], base_dir: Path, where: str) -> ResolvedProperty:
        """Return the property on the words of this vocabulary.

        `counts` maps each word of the vocabulary to its number of uses in the corpus; other words cannot be used.
        Raises InputError with `where` (file and dotted key).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ResolvedDisplacement(ResolvedProperty):
    """The distance that one word has moved."""

    def describe(self) -> str:
        """Describe the property for people."""
        return f"mean squared difference between the final and the initial vector of {self.words[0]!r}"

    def identity(self) -> dict[str, Any]:
        """Return the word."""
        return {"name": Displacement.name, "version": Displacement.version, "word": self.words[0]}

    def _formula(self, vectors: Any, initial: Any, index: Mapping[str, int]) -> Any:
        row = index[self.words[0]]
        return ((vectors[row] - initial[row]) ** 2).mean()


class Displacement(Property):
    """MSE(e) = mean over dimensions of (E_F(e) - E_I(e))^2: how far training moved a word. Silva et al. 2022, Eq. 9."""

    name: ClassVar[str] = "displacement"
    version: ClassVar[int] = 1

    word: str = Field(min_length=1)
    min_uses: int = Field(1, ge=1)

    def resolve(self, counts: Mapping[str, int], base_dir: Path, where: str) -> ResolvedDisplacement:
        """Return the property on this vocabulary. Raises InputError if the word has fewer than `min_uses` uses."""
        _require({"word": (self.word,)}, counts, self.min_uses, where)
        return ResolvedDisplacement(self.label or plain_label(f"displacement_{self.word}"), (self.word,), None)


@dataclass(frozen=True)
class ResolvedNeighbour(ResolvedProperty):
    """The mean cosine of the first word to the others."""

    def describe(self) -> str:
        """Describe the property for people."""
        return f"mean cosine of {self.words[0]!r} to {' '.join(self.words[1:])}"

    def identity(self) -> dict[str, Any]:
        """Return the word and those it is compared with."""
        word, *near = self.words
        return {"name": Neighbour.name, "version": Neighbour.version, "word": word, "near": near}

    def _formula(self, vectors: Any, initial: Any, index: Mapping[str, int]) -> Any:
        return associations(rows_of(vectors, self.words[:1], index), rows_of(vectors, self.words[1:], index))[0]


class Neighbour(Property):
    """mean over `near` of cos(word, n), in [-1, 1]: a nearest-neighbour relation (Silva et al. 2022, section 4.2)."""

    name: ClassVar[str] = "neighbour"
    version: ClassVar[int] = 1

    word: str = Field(min_length=1)
    near: tuple[str, ...] = Field(min_length=1)
    min_uses: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _each_once(self) -> Neighbour:
        words = (self.word, *self.near)
        repeated = [word for word in words if words.count(word) > 1]
        if repeated:
            raise ValueError(f"the word {repeated[0]!r} is given twice")
        return self

    def resolve(self, counts: Mapping[str, int], base_dir: Path, where: str) -> ResolvedNeighbour:
        """Return the property on this vocabulary. Raises InputError if a word has fewer than `min_uses` uses."""
        _require({"word": (self.word,), "near": self.near}, counts, self.min_uses, where)
        return ResolvedNeighbour(self.label or plain_label(f"neighbour_{self.word}"), (self.word, *self.near), None)


def rows_of(vectors: Any, words: Sequence[str], index: Mapping[str, int]) -> Any:
    """Return the vectors of these words, [len(words), dim], from an array or a tensor."""
    return vectors[[index[word] for word in words]]


def _require(named: Mapping[str, Sequence[str]], counts: Mapping[str, int], min_uses: int, where: str) -> None:
    for key, words in named.items():
        for word in words:
            if word not in counts:
                raise InputError(f"{where}.{key}", f"the word {word!r} is not in the vocabulary")
            if counts[word] < min_uses:
                problem = f"the word {word!r} is used {counts[word]} times, fewer than min_uses {min_uses}"
                raise InputError(f"{where}.{key}", problem)


def plain_label(label: str) -> str:
    """Restrict a default label to the characters that labels may have."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", label)[:80]
