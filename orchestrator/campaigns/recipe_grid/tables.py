"""Tables of a recipe grid: trials, settings, and the accuracy of chosen settings compared with a baseline, with its verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from orchestrator.analysis.contrasts import holm
from orchestrator.analysis.curves import Row
from orchestrator.analysis.units import UnitMean, over_units
from orchestrator.analysis.verdicts import interval, number
from orchestrator.campaigns.recipe_grid.selection import Choice, GridSetting, GridTrials
from tasks.digests import canonical_json

KEY = ["arm", "level", "setting"]
TRIALS = [*KEY, "seed", "status", "train", "dev", "test"]
SETTINGS = [*KEY, "options", "n_trials", "n_failed", "dev", "dev_se", "chosen"]
ACCURACY = [*KEY, "options", "n_trials", "n_failed", "test", "se", "ci_low", "ci_high", "test_all"]
ACCURACY += ["diff", "diff_se", "diff_ci_low", "diff_ci_high", "p", "p_holm", "p_unpaired", "paper"]


def key_of(setting: GridSetting) -> Row:
    """Return the columns that identify a setting."""
    return {"arm": setting.arm, "level": setting.column, "setting": setting.label}


def name_of(row: Mapping[Any, Any]) -> str:
    """Return arm and level of a table's row, as sentences name them."""
    level = row["level"]
    if isinstance(level, float):
        return row["arm"] if isnan(level) else f"{row['arm']} at {level:g}"
    return f"{row['arm']} at {level}"


def bracketed(row: Mapping[Any, Any], prefix: str = "") -> str:
    """Return the interval of a table's row, as sentences show it."""
    low, high = row[f"{prefix}ci_low"], row[f"{prefix}ci_high"]
    if isnan(low) and isnan(row[f"{prefix}se"]):
        return "[no interval: one trial]"
    return interval(low, high)


def trials_table(trials: GridTrials) -> pd.DataFrame:
    """Return every trial (columns TRIALS), setting by setting; accuracies are fractions, NaN where nothing was recorded."""
    status = trials.status
    rows = [
        {**key_of(setting), "seed": seed, "status": str(status[s, r])}
        | {name: float(getattr(trials, name)[s, r]) for name in ("train", "dev", "test")}
        for s, setting in enumerate(trials.settings)
        for r, seed in enumerate(trials.seeds)
    ]
    return pd.DataFrame(rows, columns=TRIALS)


def settings_table(trials: GridTrials, choices: Iterable[Choice]) -> pd.DataFrame:
    """Return the basis of the selection (columns SETTINGS): dev accuracy and its standard error over the trials that did not fail.

    n_failed: trials that failed, diverged or were quarantined.
    """
    dev, chosen = _mean(trials, trials.dev), {choice.setting for choice in choices}
    rows = [
        {**_counted(trials, s), "dev": float(dev.mean[s]), "dev_se": float(dev.se[s]), "chosen": s in chosen}
        for s in range(len(trials.settings))
    ]
    return pd.DataFrame(rows, columns=SETTINGS)


def accuracy_table(
    trials: GridTrials, choices: Sequence[Choice], baseline: str, paper: Sequence[float]
) -> pd.DataFrame:
    """Return the test accuracy of the chosen setting of every arm and level (columns ACCURACY), with the paper's numbers.

    test: mean over trials that did not fail, with the 95% t interval over seeds; test_all: mean over all trials that have a test accuracy.
    diff = test - test of the baseline's chosen setting, paired by seed over seeds where neither failed; p: two-sided paired t test;
    p_unpaired: Student's t test with equal variances over all trials that did not fail (Han & Tsvetkov 2021, table 2); p_holm: Holm's
    correction of p over all rows. They are NaN for the baseline itself; p, p_unpaired and the interval also with fewer than two seeds.
    """
    [against] = [choice.setting for choice in choices if trials.settings[choice.setting].arm == baseline]
    usable = np.where(trials.usable, trials.test, np.nan)
    rows = [
        {**_counted(trials, s), **_test(usable[s], trials.test[s]), **_against(usable, s, against), "paper": published}
        for s, published in zip((choice.setting for choice in choices), paper, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=ACCURACY)
    frame["p_holm"] = holm(frame["p"].to_numpy(np.float64))
    return frame


def unpaired_p(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided p of Student's t test with equal variances; NaN values are left out.

    t = (mean a - mean b) / sqrt(s^2 (1/n_a + 1/n_b)), with the pooled variance s^2 and n_a + n_b - 2 degrees of freedom. The result is NaN
    with fewer than two values in a or b; without any spread it is 1 if the means agree, else NaN. scipy.stats.ttest_ind gives the same
    up to the last bits, which would change existing tables, and warns if there is no spread.
    """
    first, second = over_units(a), over_units(b)
    n_a, n_b = int(first.n), int(second.n)
    if min(n_a, n_b) < 2:
        return np.nan
    diff, df = float(first.mean - second.mean), n_a + n_b - 2
    squares = sum(float(one.se) ** 2 * n * (n - 1) for one, n in ((first, n_a), (second, n_b)))
    if squares == 0:
        return 1.0 if diff == 0 else np.nan
    return float(2 * stdtr(df, -abs(diff) / np.sqrt(squares / df * (1 / n_a + 1 / n_b))))


def accuracy_verdicts(accuracy: Iterable[Mapping[Any, Any]], baseline: str, level: float = 0.05) -> list[str]:
    """Return one sentence for every row of the accuracy table: better, worse or not distinguishable, by Holm's p < level."""
    return [_verdict(row, baseline, level) for row in accuracy]


def _mean(trials: GridTrials, values: np.ndarray) -> UnitMean:
    return over_units(np.where(trials.usable, values, np.nan))


def _counted(trials: GridTrials, s: int) -> Row:
    setting, n_usable = trials.settings[s], int(trials.usable[s].sum())
    counts = {"n_trials": len(trials.seeds), "n_failed": len(trials.seeds) - n_usable}
    return {**key_of(setting), "options": canonical_json(dict(setting.options)), **counts}


def _test(usable: np.ndarray, every: np.ndarray) -> Row:
    mean = over_units(usable)
    return {"test": float(mean.mean), **_interval(mean, ""), "test_all": float(over_units(every).mean)}


def _against(usable: np.ndarray, s: int, against: int) -> Row:
    if s == against:
        return dict.fromkeys(("diff", "diff_se", "diff_ci_low", "diff_ci_high", "p", "p_unpaired"), np.nan)
    diff = over_units(usable[s] - usable[against])
    found = {"diff": float(diff.mean) + 0.0, **_interval(diff, "diff_"), "p": float(diff.p)}
    return {**found, "p_unpaired": unpaired_p(usable[s], usable[against])}


def _interval(mean: UnitMean, prefix: str) -> Row:
    low, high = mean.ci
    return {f"{prefix}se": float(mean.se), f"{prefix}ci_low": float(low), f"{prefix}ci_high": float(high)}


def _verdict(row: Mapping[Any, Any], baseline: str, level: float) -> str:
    name = name_of(row)
    n_usable = row["n_trials"] - row["n_failed"]
    if not n_usable:
        return f"{name}: none of {row['n_trials']} trials can be used (failed, diverged or quarantined: trials.csv); no test accuracy."
    text = f"{name}: test accuracy {number(row['test'])} {bracketed(row)}"
    if row["n_failed"]:
        text += f" over the {n_usable} of {row['n_trials']} trials that did not fail"
    if row["arm"] == baseline:
        return f"{text}; the others are compared with it."
    if isnan(row["p_holm"]):
        return f"{text}; it could not be compared with {baseline}: fewer than two seeds in common."
    outcome = "better" if row["diff"] > 0 else "worse"
    outcome = f"{outcome} than" if row["p_holm"] < level else "not distinguishable from"
    found = f"difference {_signed(row['diff'])} {bracketed(row, 'diff_')}"
    return f"{text}, {outcome} {baseline}: {found}, p {number(row['p'])} (Holm {number(row['p_holm'])})."


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"
