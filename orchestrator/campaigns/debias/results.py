"""Computes the tables of a debias campaign, its properties before and after fine-tuning, from its ledger rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.campaigns.debias import tables as debias_tables
from orchestrator.campaigns.debias.block import DebiasBlock
from orchestrator.campaigns.debias.directions import direction_verdicts, directions
from orchestrator.campaigns.debias.effects import (
    ALL,
    CHOSEN,
    FIRST,
    HALVES,
    HELD_OUT,
    SECOND,
    EffectGrid,
    Setting,
    Variant,
)
from orchestrator.campaigns.debias.plan import DebiasPlan, FineTune, property_labels, property_value
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.records import LedgerRow

OURS = ("undo", "reinforce", "both")
TESTS = ["test", "repeat", "seed", "value", "p", "n_partitions", "exact", "words"]


@dataclass(frozen=True)
class DebiasView:
    """The data that the report draws in addition to the tables: the campaign, its plan, its scores and its effects."""

    campaign: DebiasBlock
    plan: DebiasPlan
    scored: Scored
    grid: EffectGrid


def debias_results(campaign: DebiasBlock, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow]) -> Results:
    """Return the tables effects, effect_contrasts, directions, grid, settings and tests, and verdicts on held-out effects and directions."""
    grid = effect_grid(campaign, scored, plan, rows)
    variants = _variants(campaign, grid)
    found = debias_tables.collect(grid, variants)
    contrasts = debias_tables.effect_contrasts(found, list(grid.starts))
    moved = directions(grid, _predicted_signs(campaign, scored, grid), _control_actions(scored, grid))
    split = contrasts["half"].isin((HALVES, HELD_OUT)) & ~contrasts["test"].isin(list(campaign.halves))
    found = [each for each in found if each.test in campaign.halves or each.half not in (HALVES, HELD_OUT)]
    contrasts = contrasts.loc[~split].reset_index(
        drop=True
    )  # these rows are empty: tests without halves have no held-out part
    tables = {
        "effects": debias_tables.effects(found),
        "effect_contrasts": contrasts,
        "directions": moved,
        "settings": debias_tables.settings(found),
        "grid": debias_tables.grid_table(grid),
        "tests": _tests(campaign, scored, plan, rows),
    }
    verdicts = [
        *debias_tables.effect_verdicts(contrasts.loc[has_verdict(contrasts, campaign)].to_dict("records")),
        *direction_verdicts(moved.to_dict("records")),
    ]
    n_holes = int(sum(rows[plan.works[one.work].spec_id].outcome.status != "ok" for one in plan.fine_tunes))
    return Results(
        tables,
        tuple(verdicts),
        headline="effects",
        labels=("test", "half", "variant", "setting"),
        shown=("effect", "ci_low", "ci_high", "abs_effect", "abs_ci_low", "abs_ci_high", "n_seeds"),
        n_excluded=n_holes,
        notes=_notes(campaign, scored, n_holes),
        view=DebiasView(campaign, plan, scored, grid),
    )


def effect_grid(campaign: DebiasBlock, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow]) -> EffectGrid:
    """Return the values of every property, on all words and on halves, before and after every fine-tune; NaN where one diverged or failed."""
    experiment = scored.experiment
    halves = {half for pair in campaign.halves.values() for half in pair}
    tests = [label for label in property_labels(experiment.task) or {} if label not in halves]
    parts = [ALL, FIRST, SECOND] if campaign.halves else [ALL]
    names = {(t, p): _property_of(campaign, t, p) for t in tests for p in parts}

    def values(work: int) -> np.ndarray:
        outcome = rows[plan.works[work].spec_id].outcome
        found = np.full((len(tests), len(parts)), np.nan)
        if outcome.status == "ok":
            for (test, part), label in names.items():
                if label is not None:
                    value = property_value(experiment, outcome.outputs, label)
                    found[tests.index(test), parts.index(part)] = value
        return found

    settings = list(dict.fromkeys(setting_of(scored, one) for one in plan.fine_tunes))
    after = {work: values(work) for work in {one.work for one in plan.fine_tunes}}
    shape = (len(campaign.correct), len(settings), len(tests), len(parts), len(experiment.seeds))
    effects = {part: np.full(shape, np.nan) for part in parts}
    made_for = {names[t, p]: (campaign.correct.index(t), p) for t in campaign.correct for p in parts}
    for one in plan.fine_tunes:
        corrected, part = made_for[one.corrected]
        effects[part][corrected, settings.index(setting_of(scored, one)), ..., one.repeat] = after[one.work]
    return EffectGrid(
        tests=tests,
        corrected=list(campaign.correct),
        parts=parts,
        settings=settings,
        seeds=list(experiment.seeds),
        original=np.stack([values(work) for work in plan.base], axis=-1),
        effects=effects[ALL],
        hard_debiased=np.stack([values(work) for work in plan.hard], axis=-1) if campaign.hard else None,
        effects_for_halves={part: effects[part] for part in parts if part != ALL},
    )


def _property_of(campaign: DebiasBlock, test: str, part: str) -> str | None:
    """Return the property that measures a part of a test; None if the test has no halves."""
    if part == ALL:
        return test
    halves = campaign.halves.get(test)
    return None if halves is None else halves[(FIRST, SECOND).index(part)]


def setting_of(scored: Scored, one: FineTune) -> Setting:
    """Return the setting of a fine-tune; its action includes the method, unless this is the first scored one."""
    first = next(iter(scored.experiment.scored))
    action = one.action if one.method == first else f"{one.method} {one.action}"
    return Setting(action, one.size, one.passes, one.start)


def _variants(campaign: DebiasBlock, grid: EffectGrid) -> list[Variant]:
    """Return the variants: those of the paper's Table 3 (ours, ours after hard-debiasing), of Tables 5 and 6 (over-biased), and of other methods."""
    actions = list(dict.fromkeys(setting.action for setting in grid.settings))
    ours = tuple(action for action in actions if action in OURS)
    others = dict.fromkeys(action.rpartition(" ")[0] for action in actions if " " in action)
    found = [Variant("ours", "original", ours)] if ours and "original" in campaign.starts else []
    if ours and campaign.hard:
        found.append(Variant("ours_after_hard", "hard_debiased", ours))
    if "amplify" in actions and "original" in campaign.starts:
        found.append(Variant("over_biased", "original", ("amplify",), "polar"))
    for method in others:
        same = tuple(f"{method} {action}" for action in OURS if f"{method} {action}" in actions)
        if same and "original" in campaign.starts:
            found.append(Variant(method, "original", same))
    return found


def _control_actions(scored: Scored, grid: EffectGrid) -> list[str]:
    """Return the actions that use the sets of a control."""
    controls = tuple(f"{label} " for label, is_control in scored.experiment.controls.items() if is_control)
    return [setting.action for setting in grid.settings if controls and setting.action.startswith(controls)]


def has_verdict(contrasts: pd.DataFrame, campaign: DebiasBlock) -> np.ndarray:
    """Return which contrasts have verdicts: held_out ones (for tests without halves: chosen ones), compared with the start of the fine-tune."""
    after_hard = contrasts["variant"].to_numpy() == "ours_after_hard"
    own = contrasts["baseline"].to_numpy() == np.where(after_hard, "hard_debiased", "original")
    half = np.where(contrasts["test"].isin(list(campaign.halves)), HELD_OUT, CHOSEN)
    return own & (contrasts["half"].to_numpy() == half)


def _predicted_signs(campaign: DebiasBlock, scored: Scored, grid: EffectGrid) -> np.ndarray:
    """Return the predicted signs [n_corrected, n_settings, n_seeds]: undoing A and reinforcing M lower the bias, amplifying raises it."""
    raises = np.array([1 if setting.action.endswith("amplify") else -1 for setting in grid.settings])
    signs = np.array([[campaign.sign(scored, r, label) for r in range(len(grid.seeds))] for label in grid.corrected])
    return raises[None, :, None] * signs[:, None, :]


def _tests(campaign: DebiasBlock, scored: Scored, plan: DebiasPlan, rows: Mapping[str, LedgerRow]) -> pd.DataFrame:
    """Return every property of every base model, with the permutation p-value if it is an association test (columns TESTS)."""
    task, found = scored.experiment.task, []
    index = {word: position for position, word in enumerate(task.splits["words"].texts or ())}
    for r, (work, seed) in enumerate(zip(plan.base, scored.experiment.seeds, strict=True)):
        outputs = rows[plan.works[work].spec_id].outcome.outputs
        for resolved in task.properties or ():
            row = {"test": resolved.label, "repeat": r, "seed": seed, "words": len(resolved.words)}
            row["value"] = property_value(scored.experiment, outputs, resolved.label)
            vectors = outputs["words"].astype(np.float64)
            test = resolved.permutation_test(vectors, index, n_samples=campaign.permutations)
            if test is not None:
                row |= {"p": test.p, "n_partitions": test.n_partitions, "exact": test.exact}
            found.append(row)
    return pd.DataFrame(found, columns=TESTS)


def _notes(campaign: DebiasBlock, scored: Scored, n_holes: int) -> tuple[str, ...]:
    notes = ["Every seed has a base model of its own; sets A and M come from that model's own influence scores."]
    if campaign.halves:
        notes.append(
            "held_out: sets and setting come from one half of the word lists, and the effect is measured on the other half, and vice "
            "versa; chosen: sets, setting and effect all come from the whole lists, as in the paper, which favours the fine-tune."
        )
    for label, why in scored.experiment.task.refused.items():
        notes.append(f"{label} was not run: {why}")
    if n_holes:
        notes.append(f"{n_holes} fine-tunes diverged or failed; their effects are missing.")
    return tuple(notes)
