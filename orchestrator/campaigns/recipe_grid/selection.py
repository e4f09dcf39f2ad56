"""Trials of a grid of settings, which of them failed, and the setting that dev chooses. Test accuracy is never read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.digests import canonical_json

OK, FAILED = "ok", "failed"
TIE_DIGITS = 12  # of equal accuracies in another order, sums differ in the last bit


@dataclass(frozen=True, eq=False)
class GridSetting:
    """One point of an arm's grid: `options` {dotted key: value}, `level` its value of the ablated key (None: it has none)."""

    arm: str
    label: str
    level: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def column(self) -> float | str:
        """The level as tables hold it: a number, NaN without one, else its text."""
        if self.level is None:
            return np.nan
        is_number = isinstance(self.level, (int, float)) and not isinstance(self.level, bool)
        return float(self.level) if is_number else level_text(self.level)

    @property
    def group(self) -> tuple[str, str]:
        """Settings of one group compete."""
        return self.arm, "" if self.level is None else canonical_json(self.level)


@dataclass(frozen=True, eq=False)
class GridTrials:
    """Every setting under every seed.

    `outcome` text [n_settings, n_seeds]: ok, diverged or quarantined; `train`, `dev`, `test` float64 [n_settings, n_seeds]:
    accuracies, NaN where nothing was recorded; `failed_below`: a trial whose train accuracy is not at least that failed.
    """

    settings: Sequence[GridSetting]
    seeds: Sequence[int]
    outcome: np.ndarray
    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray
    failed_below: float

    @property
    def status(self) -> np.ndarray:
        """ok, failed, diverged or quarantined: text [n_settings, n_seeds]."""
        return np.where((self.outcome == OK) & ~(self.train >= self.failed_below), FAILED, self.outcome)

    @property
    def usable(self) -> np.ndarray:
        """Trials that did not fail: bool [n_settings, n_seeds]."""
        return self.status == OK


@dataclass(frozen=True)
class Choice:
    """The chosen setting (its position) of an arm at a level; `is_eligible`: it had trials enough that did not fail."""

    setting: int
    is_eligible: bool


def choose(trials: GridTrials, min_trials: int) -> list[Choice]:
    """Per (arm, level), in the order of settings: the highest mean dev accuracy over trials that did not fail.

    Among settings with at least `min_trials` of them; of equals the first. Where there is none: among those with most
    trials that did not fail.
    """
    n_usable = trials.usable.sum(axis=1)
    dev = np.where(trials.usable, trials.dev, 0.0).sum(axis=1) / np.maximum(n_usable, 1)
    groups: dict[tuple[str, str], list[int]] = {}
    for position, setting in enumerate(trials.settings):
        groups.setdefault(setting.group, []).append(position)
    return [_best(np.array(members), np.round(dev, TIE_DIGITS), n_usable, min_trials) for members in groups.values()]


def _best(members: np.ndarray, dev: np.ndarray, n_usable: np.ndarray, min_trials: int) -> Choice:
    enough = min(min_trials, n_usable[members].max())
    eligible = members[n_usable[members] >= enough]
    return Choice(int(eligible[dev[eligible].argmax()]), bool(enough == min_trials))


def level_text(value: Any) -> str:
    """A value of a grid as people read it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)
