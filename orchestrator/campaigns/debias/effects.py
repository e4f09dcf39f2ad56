"""The effects of bias tests before and after fine-tuning on influential examples.

A fine-tune is made for one corrected test, with a setting and a seed. Every test then has an effect on all its words and on
each half of them. Silva et al. 2022, section 4.4 (Table 3) and appendix D (Tables 5 and 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

ORIGINAL, HARD_DEBIASED = "original", "hard_debiased"
ALL, FIRST, SECOND = "all", "first", "second"
HALVES = "halves"
CHOSEN, CHOSEN_PER_SEED, HELD_OUT = "chosen", "chosen_per_seed", "held_out"


@dataclass(frozen=True)
class Setting:
    """One fine-tune setting: the action (undo, reinforce, both, amplify ...), the number of examples, the passes over them, and the start."""

    action: str
    size: int
    passes: int
    start: str = ORIGINAL

    @property
    def text(self) -> str:
        """The setting without its start, as tables show it: `undo 100 x 5`."""
        return f"{self.action} {self.size} x {self.passes}"


@dataclass(frozen=True)
class Variant:
    """A row of the paper's table: the best setting among those with some actions and one start.

    `aim` neutral: the smallest mean |effect| is best; polar: the largest (over-biasing).
    """

    name: str
    start: str
    actions: tuple[str, ...]
    aim: Literal["neutral", "polar"] = "neutral"


@dataclass(frozen=True, eq=False)
class EffectGrid:
    """Effects of every test before and after every fine-tune; 0 is neutral, NaN means not measured or diverged.

    `original`, `hard_debiased` (None if not made): float64 [n_tests, n_parts, n_seeds], effects of the embeddings that fine-tunes
    start from. `effects`: float64 [n_corrected, n_settings, n_tests, n_parts, n_seeds], effects of the fine-tune made for a
    corrected test with a setting and a seed. `effects_for_halves`: name of a half -> the same for fine-tunes made from one half of the
    corrected test's words, so that a choice on one half is independent of the other. `parts` contains `all` and, if tests are
    split, `first` and `second`, where a test without halves is NaN. `corrected` is a subset of `tests`. Seeds are independent runs.
    Raises ValueError if a shape differs from the labels, or a label occurs twice or is unknown.
    """

    tests: Sequence[str]
    corrected: Sequence[str]
    parts: Sequence[str]
    settings: Sequence[Setting]
    seeds: Sequence[int]
    original: np.ndarray
    effects: np.ndarray
    hard_debiased: np.ndarray | None = None
    effects_for_halves: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis in ("tests", "corrected", "parts", "settings", "seeds"):
            labels = getattr(self, axis)
            if len(set(labels)) != len(labels):
                raise ValueError(f"{axis} contains a label twice: {list(labels)}")
        if ALL not in self.parts or not set(self.corrected) <= set(self.tests):
            raise ValueError(f"parts {list(self.parts)} need {ALL!r}; {list(self.corrected)} must be among the tests")
        start = (len(self.tests), len(self.parts), len(self.seeds))
        shapes = {"original": start, "effects": (len(self.corrected), len(self.settings), *start)}
        if self.hard_debiased is not None:
            shapes["hard_debiased"] = start
        for half, array in self.effects_for_halves.items():
            if np.shape(array) != shapes["effects"] or half not in self.parts:
                raise ValueError(f"effects_for_halves[{half!r}] has shape {np.shape(array)}, not {shapes['effects']}")
        for name, wanted in shapes.items():
            if np.shape(getattr(self, name)) != wanted:
                raise ValueError(f"{name} has shape {np.shape(getattr(self, name))}, but the labels need {wanted}")
        unknown = {s.start for s in self.settings} - set(self.starts)
        if unknown:
            raise ValueError(f"settings start from {sorted(unknown)}, but only {list(self.starts)} have effects")

    @property
    def starts(self) -> tuple[str, ...]:
        """The embeddings from which fine-tunes can start."""
        return (ORIGINAL,) if self.hard_debiased is None else (ORIGINAL, HARD_DEBIASED)

    def before(self, start: str, test: str, part: str = ALL) -> np.ndarray:
        """Return the effects of the embeddings of a start: float64 [n_seeds]; NaN if there is no such part."""
        array = self.original if start == ORIGINAL else self.hard_debiased
        if start not in self.starts or array is None:
            raise ValueError(f"there is no start {start!r}; known are {list(self.starts)}")
        return self._part(np.asarray(array, np.float64)[self.tests.index(test)], part)

    def after(self, corrected: str, test: str, part: str = ALL, made_for: str = ALL) -> np.ndarray:
        """Return the effects on a part of `test` of the fine-tunes made for `corrected`: float64 [n_settings, n_seeds].

        `made_for`: the half of the words that the fine-tunes were made from; if there are none for this half, those for all words.
        """
        made = self.effects_for_halves.get(made_for, self.effects)
        effects = np.asarray(made, np.float64)[self.corrected.index(corrected)]
        return self._part(effects[:, self.tests.index(test)], part)

    def change(self, corrected: str, test: str) -> np.ndarray:
        """Return the effects after minus those before, with the same seed, on all words: float64 [n_settings, n_seeds]."""
        before = {start: self.before(start, test) for start in self.starts}
        start = np.array([before[s.start] for s in self.settings]).reshape(-1, len(self.seeds))
        return self.after(corrected, test) - start

    def candidates(self, variant: Variant) -> np.ndarray:
        """Return the positions of the settings from which a variant is chosen: int64 [n_candidates]."""
        fits = [s.start == variant.start and s.action in variant.actions for s in self.settings]
        return np.flatnonzero(fits)

    def _part(self, array: np.ndarray, part: str) -> np.ndarray:
        """Select a part of an array [..., n_parts, n_seeds]: [..., n_seeds]; NaN if there is no such part."""
        if part not in self.parts:
            return np.full((*array.shape[:-2], array.shape[-1]), np.nan)
        return array[..., self.parts.index(part), :]
