"""Tables of a debias campaign, with 95% t intervals over seeds, and their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.analysis.contrasts import holm
from orchestrator.analysis.curves import Row
from orchestrator.analysis.units import UnitMean, over_units
from orchestrator.analysis.verdicts import interval, number
from orchestrator.campaigns.debias.choice import RULES, Pick, Reported, reported, unchosen
from orchestrator.campaigns.debias.effects import ALL, CHOSEN, CHOSEN_PER_SEED, HALVES, HELD_OUT, EffectGrid, Variant

EFFECTS = ["test", "half", "variant", "setting", "n_seeds", "effect", "ci_low", "ci_high"]
EFFECTS += ["abs_effect", "abs_ci_low", "abs_ci_high"]
SETTINGS = ["test", "variant", "rule", "chosen_on", "reported_on", "seed", "action", "size", "passes", "start"]
SETTINGS += ["n_candidates", "n_eligible", "chosen_abs", "reported_abs"]
GRID = ["corrected", "test", "action", "size", "passes", "start", "n_seeds", "n_holes", "effect", "ci_low", "ci_high"]
GRID += ["change", "change_ci_low", "change_ci_high"]
CONTRASTS = ["test", "half", "variant", "baseline", "diff", "se", "ci_low", "ci_high", "p", "p_holm", "n_seeds"]
LIKE_FOR_LIKE = {HELD_OUT: HALVES, CHOSEN: ALL, CHOSEN_PER_SEED: ALL, HALVES: HALVES, ALL: ALL}


def collect(grid: EffectGrid, variants: Sequence[Variant]) -> list[Reported]:
    """Return the entries of the effects table, test by test: the starts, which involve no choice, then every variant by every rule.

    Raises ValueError if two variants, or a variant and a start, share a name.
    """
    names = [*grid.starts, *(variant.name for variant in variants)]
    if len(set(names)) != len(names):
        raise ValueError(f"two variants or starts have the same name: {names}")
    found: list[Reported] = []
    for test in grid.tests:
        for start in grid.starts:
            found += unchosen(grid, start, test)
        if test in grid.corrected:
            found += [reported(grid, variant, test, rule) for variant in variants for rule in RULES]
    return found


def effects(found: Iterable[Reported]) -> pd.DataFrame:
    """Return the effects before and after (columns EFFECTS): mean over seeds of the effect and of |effect|, each with its interval.

    half: `all` and `halves` (mean of both halves) for embeddings without a fine-tune; else the rule of choice. `held_out` must
    be compared with `halves`, and the other two rules with `all`.
    Intervals do not account for the choice. For held_out this is correct, except that choosing and reporting share their seeds;
    for the other two rules the intervals are too close to zero. Both means are NaN if no seed has a number.
    """
    rows = []
    for each in found:
        mean, size = over_units(each.effect), over_units(each.abs_effect)
        names = {"test": each.test, "half": each.half, "variant": each.variant, "setting": each.setting}
        numbers = {**_estimate(mean, "effect", ""), **_estimate(size, "abs_effect", "abs_")}
        rows.append({**names, "n_seeds": int(mean.n), **numbers})
    return pd.DataFrame(rows, columns=EFFECTS)


def effect_contrasts(found: Iterable[Reported], baselines: Sequence[str]) -> pd.DataFrame:
    """Return differences of |effect|, variant minus baseline, paired by seed (columns CONTRASTS); negative means more neutral.

    A variant is compared with the baseline on the same words: held_out with halves, the other two rules with all.
    Holm's family is all rows of one half. se, interval and p are NaN with fewer than two seeds.
    """
    found = list(found)
    available = {(each.test, each.half, each.variant): each for each in found}
    rows = []
    for each in found:
        for baseline in baselines:
            other = available.get((each.test, LIKE_FOR_LIKE[each.half], baseline))
            # of two baselines, the one later in the list is compared with the earlier one
            if other is None or each.variant in baselines[: baselines.index(baseline) + 1]:
                continue
            rows.append(_contrast(each, other))
    frame = pd.DataFrame(rows, columns=CONTRASTS)
    for half in LIKE_FOR_LIKE:
        family = frame["half"] == half
        frame.loc[family, "p_holm"] = holm(frame.loc[family, "p"].to_numpy(np.float64))
    return frame


def effect_verdicts(contrasts: Iterable[Mapping[Any, Any]], level: float = 0.05) -> list[str]:
    """Return one sentence for every contrast row, in their order: whether the variant is less biased, by Holm's p < level."""
    return [_verdict(row, level) for row in contrasts]


def settings(found: Iterable[Reported]) -> pd.DataFrame:
    """Return the choices by every rule (columns SETTINGS); `seed` is `all` if one choice is made for all seeds."""
    rows = [
        {"test": each.test, "variant": each.variant, "rule": each.half, **_pick(pick)}
        for each in found
        for pick in each.picks
    ]
    return pd.DataFrame(rows, columns=SETTINGS).astype(
        {"size": "Int64", "passes": "Int64"}
    )  # missing if none was chosen


def grid_table(grid: EffectGrid) -> pd.DataFrame:
    """Return the effect and its change for every corrected test x test x setting (columns GRID), on all words, over seeds.

    change = effect after minus effect of the start with the same seed; n_holes: seeds without a number.
    Silva et al. 2022, figures 3 and 4: a correction for one test also changes the others.
    """
    rows = []
    for corrected in grid.corrected:
        for test in grid.tests:
            effect, change = over_units(grid.after(corrected, test)), over_units(grid.change(corrected, test))
            columns = {**_columns(effect, "effect", ""), **_columns(change, "change", "change_")}
            for i, setting in enumerate(grid.settings):
                names = {"corrected": corrected, "test": test, "action": setting.action, "size": setting.size}
                names |= {"passes": setting.passes, "start": setting.start}
                counts = {"n_seeds": int(effect.n[i]), "n_holes": len(grid.seeds) - int(effect.n[i])}
                rows.append({**names, **counts, **{name: float(column[i]) for name, column in columns.items()}})
    return pd.DataFrame(rows, columns=GRID)


def _columns(mean: UnitMean, name: str, prefix: str) -> dict[str, np.ndarray]:
    low, high = mean.ci
    return {name: mean.mean, f"{prefix}ci_low": low, f"{prefix}ci_high": high}


def _estimate(mean: UnitMean, name: str, prefix: str) -> Row:
    return {column: float(values) for column, values in _columns(mean, name, prefix).items()}


def _contrast(each: Reported, baseline: Reported) -> Row:
    mean = over_units(each.abs_effect - baseline.abs_effect)
    names = {"test": each.test, "half": each.half, "variant": each.variant, "baseline": baseline.variant}
    numbers = {**_estimate(mean, "diff", ""), "se": float(mean.se), "p": float(mean.p), "p_holm": np.nan}
    return {**names, **numbers, "n_seeds": int(mean.n)}


def _pick(pick: Pick) -> Row:
    setting = pick.setting
    chosen = {name: getattr(setting, name, None) for name in ("action", "size", "passes", "start")}
    numbers = {name: getattr(pick, name) for name in ("n_candidates", "n_eligible", "chosen_abs", "reported_abs")}
    where = {"chosen_on": pick.chosen_on, "reported_on": pick.reported_on}
    return {**where, "seed": ALL if pick.seed is None else pick.seed, **chosen, **numbers}


def _verdict(row: Mapping[Any, Any], level: float) -> str:
    test, variant, baseline = row["test"], row["variant"], row["baseline"]
    how = {
        HELD_OUT: "settings chosen on one half of the words and reported on the other",
        CHOSEN: "setting chosen on the words it is reported on, which favours the variant",
        CHOSEN_PER_SEED: "each seed's setting chosen on the words it is reported on, which favours the variant",
        HALVES: "mean of both halves of the words",
        ALL: "all words",
    }[row["half"]]
    if isnan(row["p_holm"]):
        return f"For {test}, {variant} could not be compared with {baseline} ({how}): fewer than two seeds."
    found = f"({how}): difference of |effect| {number(row['diff'])} {interval(row['ci_low'], row['ci_high'])}, Holm p {number(row['p_holm'])}."
    if row["p_holm"] >= level:
        return f"For {test}, {variant} and {baseline} could not be told apart {found}"
    return f"For {test}, {variant} is {'less' if row['diff'] < 0 else 'more'} biased than {baseline} {found}"
