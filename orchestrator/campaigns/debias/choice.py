"""The choice of the reported fine-tune setting: on the reported test itself, or on the other half of its words."""

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
    """One choice of a setting.

    It is made on the part `chosen_on` of the test and reported on `reported_on`, for one `seed` or for all (None), among `n_eligible`
    of `n_candidates` settings. `setting` is None if none could be chosen. `chosen_abs`, `reported_abs`: mean |effect| of the chosen
    setting on the two parts.
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
    """The reported effects of a variant on one test, `values` float64 [n_folds, n_seeds], and the choices behind them.

    `half`: `all` or `halves` for embeddings without a choice, else the rule of choice. The effect is the mean over folds; the
    absolute effect is the mean over folds of |effect|, so that halves with opposite signs do not cancel.
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
        """The chosen settings in words; empty if nothing was chosen."""
        if self.half == CHOSEN_PER_SEED:
            return "each seed's own"
        named = [(pick, pick.setting.text) for pick in self.picks if pick.setting is not None]
        texts = [f"{text} (on {pick.chosen_on})" if self.half == HELD_OUT else text for pick, text in named]
        return "; ".join(texts)


def unchosen(grid: EffectGrid, start: str, test: str) -> tuple[Reported, Reported]:
    """Return the effects before any fine-tune: on all words, and on both halves, with which `held_out` must be compared."""
    on_all = grid.before(start, test)[None]
    on_halves = np.stack([grid.before(start, test, part) for part in (SECOND, FIRST)])
    return Reported(test, ALL, start, on_all), Reported(test, HALVES, start, on_halves)


def reported(grid: EffectGrid, variant: Variant, test: str, rule: str) -> Reported:
    """Return the effects of a variant on the test it corrects, by one rule of choice.

    held_out: the setting with the smallest mean |effect| over seeds on one half of the words is reported on the other
    half, and vice versa (cross-fitting); NaN if the test has no halves.
    chosen: the setting with the smallest mean |effect| on all words is reported on the same words. This selects on the
    evaluation metric, so the reported effect is biased towards zero.
    chosen_per_seed: as `chosen`, but separately for every seed, as the published code does (its get_best_result).
    A variant with aim `polar` takes the largest instead of the smallest. Ties go to the first setting. A setting that diverged
    under a seed is not chosen, unless all settings diverged under that seed.
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
    """Return one choice for some seeds (given by position), and the effects of the chosen setting on the reported part: [n_seeds]."""
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
    """Return the row of |effect| [n_candidates, n_seeds] that is best on the part for choosing, and the number of eligible rows."""
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
    """Return the mean |effect| over the seeds that have one; at least one must."""
    return float(np.abs(values[np.isfinite(values)]).mean())
