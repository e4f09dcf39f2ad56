"""Hard debiasing of word vectors by projection (Bolukbasi et al. 2016), a baseline for influence-based bias undoing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from tasks.data.paths import resolve_path
from tasks.data.word_lists import DEFINITIONAL_PAIRS, Pairs, read_pairs, read_words
from tasks.digests import digest
from tasks.errors import InputError
from tasks.recipe import Recipe, Trained, Training
from tasks.training import Watch, deterministic, is_finite, start_from

Content = TypeVar("Content")
Words = tuple[str, ...]


class HardDebias(Recipe):
    """Remove the bias direction from a parent's input vectors: neutralise every word except the specific ones, equalise pairs.

    `definitional`: pairs whose differences span the direction (default: the ten of Bolukbasi et al. 2016). `equalize`:
    pairs made equidistant to every neutral word (default: the definitional ones), in the case they are written in and
    in lower, Title and UPPER case. `specific`: words that keep their bias (default: those of the definitional pairs);
    the equalised words are added to them. Each is a list or a JSON file; `with_files` reads the files and fills in the
    defaults. `n_components`: dimensions of the bias subspace. `renormalise`: neutralised vectors are scaled back to
    length one.
    """

    name: ClassVar[str] = "hard_debias"
    version: ClassVar[int] = 1
    fits: ClassVar[str] = "word_vectors"
    needs_parent: ClassVar[bool] = True

    definitional: Pairs | str | None = None
    equalize: Pairs | str | None = None
    specific: Words | str | None = None
    n_components: int = Field(1, ge=1)
    renormalise: bool = True

    @model_validator(mode="after")
    def _some_direction(self) -> HardDebias:
        if self.definitional == ():
            raise ValueError("definitional is empty; the bias direction needs at least one pair")
        return self

    def with_files(self, base_dir: Path, where: str) -> Self:
        """Return this recipe with lists in the place of paths and defaults, as `identity` and `train` require.

        Raises InputError naming `where` (file and dotted key of the recipe) or the list's file.
        """
        definitional = _content(self.definitional, DEFINITIONAL_PAIRS, read_pairs, base_dir, f"{where}.definitional")
        specific = tuple(word for pair in definitional for word in pair)
        return self.model_copy(
            update={
                "definitional": definitional,
                "equalize": _content(self.equalize, definitional, read_pairs, base_dir, f"{where}.equalize"),
                "specific": _content(self.specific, specific, read_words, base_dir, f"{where}.specific"),
            }
        )

    def check(self, vocabulary: Mapping[str, int], where: str) -> None:
        """Raise InputError if the vocabulary has too few definitional pairs for the subspace."""
        if (problem := _Lists.of(self, vocabulary).problem(self.n_components)) is not None:
            raise InputError(f"{where}.definitional", problem)

    def identity(self) -> dict[str, Any]:
        """Return name, version and options, with the lists as content digests. Raises ValueError before `with_files`."""
        definitional, equalize, specific = self._read()
        lists = {
            "definitional": digest([list(pair) for pair in definitional]),
            "equalize": digest([list(pair) for pair in equalize]),
            "specific": digest(sorted(set(specific))),
        }
        return {**super().identity(), **lists}

    def last_epoch(self) -> float:
        """Return 1, because the projection is the only step."""
        return 1.0

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return 1, because the projection is the only step. Raises ValueError outside 0 < epoch <= 1."""
        if not 0 < epoch <= 1:
            raise ValueError(f"epoch {epoch} is outside 0 < epoch <= 1")
        return 1

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return 0, because no gradient step is made. Raises ValueError for any step but 1."""
        if step != 1:
            raise ValueError(f"step {step} is outside 1..1")
        return 0.0

    def train(self, task: Any, training: Training) -> Trained:
        """Return the parent's network with debiased input vectors (`input.weight` [V, dim]); nothing is random, nothing else changes.

        `task.vocabulary`: word -> row. `metrics`: n_steps (1), n_definitional (pairs that span the subspace),
        variance_share (of the first component in their differences), n_neutralised (words), n_equalised (pairs),
        n_equalize_unknown (listed pairs that are in the vocabulary in no case). Raises ValueError without a parent,
        with an edit, or if the vocabulary has too few definitional pairs.
        """
        import torch

        numerics, parent = training.numerics, training.parent
        if parent is None or not training.edit.is_empty:
            raise ValueError("hard_debias changes a parent's vectors: it needs a parent and the empty edit")
        lists = _Lists.of(self, task.vocabulary)
        if (problem := lists.problem(self.n_components)) is not None:
            raise ValueError(problem)
        deterministic(numerics)
        network = start_from(task.network(training.seed), parent)
        network = network.to(device=numerics.device, dtype=getattr(torch, numerics.dtype))
        watch = Watch.of(training, 1)
        watch.passed(0, network)
        if not is_finite(network):
            return Trained(network, {"n_steps": 0.0}, diverged=True, observed=watch.observed)
        vectors = unit(np.asarray(parent["input.weight"], np.float64))
        basis, share = bias_subspace(
            vectors[lists.definitional[:, 0]], vectors[lists.definitional[:, 1]], self.n_components
        )
        debiased = debias(vectors, basis, lists.neutral, lists.equalised, renormalise=self.renormalise)
        with torch.no_grad():
            network.get_parameter("input.weight").copy_(torch.from_numpy(debiased))
        watch.passed(1, network)
        metrics = {"n_steps": 1.0, "variance_share": share, **lists.metrics()}
        return Trained(network, metrics, diverged=not is_finite(network), observed=watch.observed)

    def _read(self) -> tuple[Pairs, Pairs, Words]:
        lists = self.definitional, self.equalize, self.specific
        if any(content is None or isinstance(content, str) for content in lists):
            raise ValueError("the word lists of hard_debias have not been read; call with_files first")
        return lists  # type: ignore[return-value]


@dataclass(frozen=True)
class _Lists:
    """The lists as rows of the vectors: pairs int64 [n, 2], neutral int64 [n]."""

    definitional: np.ndarray
    equalised: np.ndarray
    neutral: np.ndarray
    n_equalize_unknown: int

    @staticmethod
    def of(recipe: HardDebias, vocabulary: Mapping[str, int]) -> _Lists:
        definitional, equalize, specific = recipe._read()
        known = [[pair for pair in _cases(listed) if _has(vocabulary, pair)] for listed in equalize]
        equalised = list(dict.fromkeys(pair for pairs in known for pair in pairs))
        biased = {*specific, *(word for pair in equalised for word in pair)}
        return _Lists(
            _rows([pair for pair in definitional if _has(vocabulary, pair)], vocabulary),
            _rows(equalised, vocabulary),
            np.array(sorted(row for word, row in vocabulary.items() if word not in biased), np.int64),
            sum(not pairs for pairs in known),
        )

    def problem(self, n_components: int) -> str | None:
        """Return what is wrong with the definitional pairs, or None."""
        found = len(self.definitional)
        if found >= n_components:
            return None
        return f"{found} pairs have both words in the vocabulary; n_components {n_components} needs as many"

    def metrics(self) -> dict[str, float]:
        """Return how many entries of each list are in the vocabulary."""
        return {
            "n_definitional": float(len(self.definitional)),
            "n_neutralised": float(len(self.neutral)),
            "n_equalised": float(len(self.equalised)),
            "n_equalize_unknown": float(self.n_equalize_unknown),
        }


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, dim] at length one; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)


def bias_subspace(first: np.ndarray, second: np.ndarray, n_components: int) -> tuple[np.ndarray, float]:
    """Return principal components of pairs [n, dim], each pair centred on its mean: orthonormal [n_components, dim].

    The second value is the share of the variance of the first component. Bolukbasi et al. 2016, section 5: C = sum over
    pairs and words of (w - mu)(w - mu)^T / 2; with w - mu = +-(first - second) / 2, the components are the right
    singular vectors of the differences.
    """
    _, singular, components = np.linalg.svd(first - second, full_matrices=False)
    total = (singular**2).sum()
    return components[:n_components], float(singular[0] ** 2 / total) if total > 0 else 0.0


def debias(
    vectors: np.ndarray, basis: np.ndarray, neutral: np.ndarray, equalised: np.ndarray, *, renormalise: bool = True
) -> np.ndarray:
    """Return unit vectors [V, dim], with rows `neutral` projected out of the subspace and the pairs `equalised` [n, 2] equalised.

    The subspace is spanned by `basis` [k, dim], and w_B is the part of w in it. Neutralise: w := (w - w_B) / |w - w_B|
    (no division without `renormalise`). Equalise, with mu the mean of a pair and nu = mu - mu_B: w := nu + sqrt(1 -
    |nu|^2) (w_B - mu_B) /
    w_B - mu_B|. Pairs are processed in their order. Bolukbasi et al. 2016, section 6.
    """
    debiased = vectors.copy()
    without = vectors[neutral] - _inside(vectors[neutral], basis)
    debiased[neutral] = unit(without) if renormalise else without
    for pair in equalised:
        mean = debiased[pair].mean(0)
        nu = mean - _inside(mean, basis)
        sides = unit(_inside(debiased[pair] - mean, basis))
        debiased[pair] = nu + np.sqrt(max(0.0, 1 - nu @ nu)) * sides
    return debiased


def _inside(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the part of vectors [..., dim] in the subspace spanned by orthonormal rows."""
    return vectors @ basis.T @ basis


def _cases(pair: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the pair as written, and in the three cases of the released code."""
    (a, b) = pair
    return [(a, b), (a.lower(), b.lower()), (a.title(), b.title()), (a.upper(), b.upper())]


def _has(vocabulary: Mapping[str, int], pair: tuple[str, str]) -> bool:
    return pair[0] in vocabulary and pair[1] in vocabulary


def _rows(pairs: Sequence[tuple[str, str]], vocabulary: Mapping[str, int]) -> np.ndarray:
    return np.array([[vocabulary[a], vocabulary[b]] for a, b in pairs], np.int64).reshape(-1, 2)


def _content(
    given: Content | str | None, default: Content, read: Callable[[Path], Content], base_dir: Path, where: str
) -> Content:
    if isinstance(given, str):
        return read(resolve_path(given, base_dir, where))
    return default if given is None else given
