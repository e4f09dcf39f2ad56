"""Trials of a grid of settings, the rule for failed trials, and the choice of settings on dev. Test accuracy is never read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.digests import canonical_json

OK, FAILED = "ok", "failed"
TIE_DIGITS = 12  # sums of the same accuracies in another order differ in the last bits, which must not break ties


@dataclass(frozen=True, eq=False)
class GridSetting:
    """One point of an arm's grid: `options` {dotted key: value}, and `level`, its value of the ablated key (None if it has none)."""

    arm: str
    label: str
    level: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def column(self) -> float | str:
        """The level in tables: a number, NaN if there is none, else its text."""
        if self.level is None:
            return np.nan
        is_number = isinstance(self.level, (int, float)) and not isinstance(self.level, bool)
        return float(self.level) if is_number else level_text(self.level)

    @property
    def group(self) -> tuple[str, str]:
        """(arm, level as JSON): one setting is chosen among those of a group."""
        return self.arm, "" if self.level is None else canonical_json(self.level)


@dataclass(frozen=True, eq=False)
class GridTrials:
    """The outcomes and accuracies of every setting with every seed.

    `outcome` text [n_settings, n_seeds]: ok, diverged or quarantined; `train`, `dev`, `test` float64 [n_settings, n_seeds]:
    accuracies, NaN where nothing was recorded; `failed_below`: a trial with a lower train accuracy failed.
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
    """The chosen setting (by position) of an arm at a level; `is_eligible`: it has enough trials that did not fail."""

    setting: int
    is_eligible: bool


def choose(trials: GridTrials, min_trials: int) -> list[Choice]:
    """Choose, per (arm, level) in the order of settings, the setting with the highest mean dev accuracy over trials that did not fail.

    Only settings with at least `min_trials` such trials are eligible; if there is none, those with most such trials are. Ties go
    to the first setting.
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
    """Return a value of a grid as text: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)
