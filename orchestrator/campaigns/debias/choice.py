"""Which fine-tune setting is reported: chosen on the reported test itself, or on the other half of its words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from orchestrator.campaigns.debias.effects import (
    ALL,
    CHOSEN,
    CHOSEN_PER_SEED,
    FIRST,
    HALVES,
    HELD_OUT,
    SECOND,
    EffectGrid,
    Setting,
    Variant,
)

RULES = (HELD_OUT, CHOSEN, CHOSEN_PER_SEED)
FOLDS = {HELD_OUT: ((FIRST, SECOND), (SECOND, FIRST)), CHOSEN: ((ALL, ALL),), CHOSEN_PER_SEED: ((ALL, ALL),)}


@dataclass(frozen=True)
class Pick:
    """One choice: on which part, for which part, for one seed or (None) all, among how many, and what it came to.

    `setting` None: none could be chosen. `chosen_abs`, `reported_abs`: its mean |effect| on the two parts.
    """

    chosen_on: str
    reported_on: str
    seed: int | None
    setting: Setting | None
    n_candidates: int
    n_eligible: int
    chosen_abs: float
    reported_abs: float


@dataclass(frozen=True, eq=False)
class Reported:
    """Effects on one test that stand for a variant: float64 [n_folds, n_seeds], and how they were chosen.

    `half`: all or halves for embeddings that are not chosen, else the rule. An effect is the mean over folds, an absolute
    effect the mean over folds of |effect|: halves of opposite sign do not cancel there.
    """

    test: str
    half: str
    variant: str
    values: np.ndarray
    picks: tuple[Pick, ...] = ()

    @property
    def effect(self) -> np.ndarray:
        """Effect under every seed: float64 [n_seeds]."""
        return self.values.mean(axis=0)

    @property
    def abs_effect(self) -> np.ndarray:
        """|effect| under every seed: float64 [n_seeds]."""
        return np.abs(self.values).mean(axis=0)

    @property
    def setting(self) -> str:
        """What was chosen, in words; empty where nothing is."""
        if self.half == CHOSEN_PER_SEED:
            return "each seed's own"
        named = [(pick, pick.setting.text) for pick in self.picks if pick.setting is not None]
        texts = [f"{text} (on {pick.chosen_on})" if self.half == HELD_OUT else text for pick, text in named]
        return "; ".join(texts)


def unchosen(grid: EffectGrid, start: str, test: str) -> tuple[Reported, Reported]:
    """Effects before any fine-tune: on all words, and on both halves, which is what held_out must be held against."""
    on_all = grid.before(start, test)[None]
    on_halves = np.stack([grid.before(start, test, part) for part in (SECOND, FIRST)])
    return Reported(test, ALL, start, on_all), Reported(test, HALVES, start, on_halves)


def reported(grid: EffectGrid, variant: Variant, test: str, rule: str) -> Reported:
    """Effects of a variant on the test it corrects, by one rule of choice.

    held_out: the setting with the smallest mean |effect| over seeds on one half of the words is reported on the other
    half, and the other way round (cross-fitting); NaN where the test has no halves.
    chosen: smallest on all words, reported on the same: selection on the evaluation metric, biased to zero.
    chosen_per_seed: the same for every seed by itself, as the published code does (its get_best_result).
    Ties go to the setting that comes first. A setting that diverged under a seed is not chosen, unless all did there.
    """
    n_seeds = len(grid.seeds)
    groups = [[s] for s in range(n_seeds)] if rule == CHOSEN_PER_SEED else [list(range(n_seeds))]
    values = np.full((len(FOLDS[rule]), n_seeds), np.nan)
    picks = []
    for fold, parts in enumerate(FOLDS[rule]):
        for group in groups:
            pick, values[fold, group] = _pick(grid, variant, test, parts, group)
            picks.append(replace(pick, seed=int(grid.seeds[group[0]])) if rule == CHOSEN_PER_SEED else pick)
    return Reported(test, rule, variant.name, values, tuple(picks))


def _pick(
    grid: EffectGrid, variant: Variant, test: str, parts: tuple[str, str], seeds: list[int]
) -> tuple[Pick, np.ndarray]:
    """One choice for some seeds (by position), and the chosen setting's effects on the reported part: [n_seeds]."""
    candidates = grid.candidates(variant)
    on, for_ = (grid.after(test, test, part, made_for=parts[0])[candidates][:, seeds] for part in parts)
    started = np.isfinite(grid.before(variant.start, test, parts[0])[seeds])
    position, n_eligible = _best(np.abs(on[:, started]), np.abs(for_[:, started]), variant.aim)
    if position is None:
        return Pick(*parts, None, None, len(candidates), 0, np.nan, np.nan), np.full(len(seeds), np.nan)
    effects = np.where(started, for_[position], np.nan)
    means = (_mean_abs(on[position][started]), _mean_abs(effects))
    setting = grid.settings[candidates[position]]
    return Pick(*parts, None, setting, len(candidates), n_eligible, *means), effects


def _best(on: np.ndarray, for_: np.ndarray, aim: str) -> tuple[int | None, int]:
    """Row of |effect| [n_candidates, n_seeds] that serves best on the choosing part, and how many could be chosen."""
    measured = np.isfinite(on) & np.isfinite(for_)
    seeds = measured.any(axis=0)
    if not seeds.any():
        return None, 0
    eligible = measured[:, seeds].all(axis=1)
    if not eligible.any():
        return None, 0
    mean = on[:, seeds].sum(axis=1) if aim == "neutral" else -on[:, seeds].sum(axis=1)
    return int(np.where(eligible, mean, np.inf).argmin()), int(eligible.sum())


def _mean_abs(values: np.ndarray) -> float:
    """Mean |effect| over the seeds that have one, at least one of which does."""
    return float(np.abs(values[np.isfinite(values)]).mean())
