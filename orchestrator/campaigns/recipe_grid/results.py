"""Computes the tables of a recipe grid from its ledger rows: the settings chosen on dev, their accuracy on test, and their CID."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.campaigns.recipe_grid.block import RecipeGridBlock
from orchestrator.campaigns.recipe_grid.cid import OBSERVER, Observed, cid_note, cid_probes_table, cid_table, recorded
from orchestrator.campaigns.recipe_grid.plan import ROLES, RecipeGridPlan
from orchestrator.campaigns.recipe_grid.selection import OK, Choice, GridTrials, choose
from orchestrator.campaigns.recipe_grid.tables import (
    accuracy_table,
    accuracy_verdicts,
    key_of,
    name_of,
    settings_table,
    trials_table,
)
from orchestrator.campaigns.results import Results
from orchestrator.campaigns.scored import Scored
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import LedgerRow, Outcome

SHOWN = ("test", "ci_low", "ci_high", "diff", "diff_ci_low", "diff_ci_high", "p_holm", "n_failed", "paper")


@dataclass(frozen=True, eq=False)
class Distribution:
    """Influences on one probe at the end of a trial.

    `same`, `other`: float arrays over the train examples with the probe's label and, respectively, its confound or another one.
    """

    arm: str
    level: float | str
    seed: int
    probe_id: int
    same: np.ndarray
    other: np.ndarray


@dataclass(frozen=True, eq=False)
class RecipeGridView:
    """The data that the report draws in addition to the tables.

    `chosen`: (arm, level) -> label of the setting, where the level is np.nan if there is none; `distributions`: for every chosen setting,
    those of the first seed whose trial did not fail.
    """

    trials: pd.DataFrame
    chosen: Mapping[tuple[str, float | str], str]
    distributions: Sequence[Distribution]
    ablate: str
    baseline: str
    failed_rule: str
    arms: tuple[str, ...]


def recipe_grid_results(
    campaign: RecipeGridBlock, scored: Scored, plan: RecipeGridPlan, rows: Mapping[str, LedgerRow]
) -> Results:
    """Return the tables trials, settings and accuracy, with the observer also cid and cid_probes, and verdicts from accuracy."""
    outcomes = {(trial.setting, trial.repeat): rows[plan.works[trial.work].spec_id].outcome for trial in plan.trials}
    trials = grid_trials(campaign, scored.experiment, plan, outcomes)
    choices = choose(trials, campaign.min_trials)
    settings = [trials.settings[choice.setting] for choice in choices]
    paper = [campaign.paper(setting.arm, setting.level) for setting in settings]
    accuracy = accuracy_table(trials, choices, plan.baseline, paper)
    tables = {
        "accuracy": accuracy,
        "settings": settings_table(trials, choices),
        "trials": trials_table(trials),
        **_cid_tables(scored.experiment, trials, choices, outcomes),
    }
    view = RecipeGridView(
        tables["trials"],
        {(setting.arm, setting.column): setting.label for setting in settings},
        tuple(_distributions(scored.experiment, trials, choices, outcomes)),
        campaign.ablate or "",
        plan.baseline,
        campaign.failed_rule,
        tuple(arm.name for arm in campaign.arms),
    )
    return Results(
        tables,
        tuple(accuracy_verdicts(accuracy.to_dict("records"), plan.baseline)),
        headline="accuracy",
        labels=("arm", "level") if campaign.ablate else ("arm",),
        shown=SHOWN,
        n_excluded=int((~trials.usable).sum()),
        notes=(*_notes(campaign, trials, choices, tables), *_without_rounds(trials, choices, outcomes)),
        view=view,
    )


def grid_trials(
    campaign: RecipeGridBlock,
    experiment: Experiment,
    plan: RecipeGridPlan,
    outcomes: Mapping[tuple[int, int], Outcome],
) -> GridTrials:
    """Return the accuracies of every trial, computed from its recorded outputs."""
    shape = len(plan.settings), len(experiment.seeds)
    outcome = np.full(shape, OK, dtype="U16")
    found = np.full((len(ROLES), *shape), np.nan)
    for (s, r), one in outcomes.items():
        outcome[s, r] = one.status
        if one.status == OK:
            arm = experiment.arms[plan.settings[s].label]
            found[:, s, r] = [accuracy(arm, getattr(campaign.splits, role), one.outputs) for role in ROLES]
    return GridTrials(
        plan.settings, experiment.seeds, outcome, *found, failed_below=campaign.failed.train_accuracy_below
    )


def accuracy(arm: Arm, split: str, outputs: Mapping[str, np.ndarray]) -> float:
    """Return the share of the split's measured rows whose largest output is that of their label."""
    labels = arm.task.splits[split].labels[arm.task.measured[split]]
    return float((outputs[split].argmax(axis=1) == labels).mean())


def _cid_tables(
    experiment: Experiment,
    trials: GridTrials,
    choices: Sequence[Choice],
    outcomes: Mapping[tuple[int, int], Outcome],
) -> dict[str, pd.DataFrame]:
    """Return the tables cid and cid_probes of the chosen settings, over trials that did not fail; {} if none was observed."""
    observer = _observer(experiment)
    observed = []
    for s, r in _used(trials, choices):
        setting, moments = trials.settings[s], recorded(outcomes[s, r].outputs)
        if observer is not None and moments:
            ids = _probe_ids(observer, experiment.arms[setting.label])
            observed.append(Observed(setting, trials.seeds[r], ids, moments))
    return {"cid": cid_table(observed), "cid_probes": cid_probes_table(observed)} if observed else {}


def _distributions(
    experiment: Experiment,
    trials: GridTrials,
    choices: Sequence[Choice],
    outcomes: Mapping[tuple[int, int], Outcome],
) -> Iterator[Distribution]:
    """Yield the distributions of every chosen setting's first trial that did not fail, probe by probe."""
    observer, seen = _observer(experiment), set()
    for s, r in _used(trials, choices):
        setting, outputs = trials.settings[s], outcomes[s, r].outputs
        influences, same = (list(recorded(outputs, key).values()) for key in ("influences", "same"))
        if observer is None or s in seen or not influences:
            continue
        seen.add(s)
        arm = experiment.arms[setting.label]
        ids = _probe_ids(observer, arm)[observer.shown(arm.task)]
        for probe, values, group in zip(ids, influences[-1], same[-1], strict=True):
            parts = values[group == 1], values[group == 0]
            yield Distribution(setting.arm, setting.column, trials.seeds[r], int(probe), *parts)


def _used(trials: GridTrials, choices: Sequence[Choice]) -> Iterator[tuple[int, int]]:
    """Yield (setting, repeat) of the chosen settings' trials that did not fail."""
    for choice in choices:
        for r in np.flatnonzero(trials.usable[choice.setting]):
            yield choice.setting, int(r)


def _observer(experiment: Experiment) -> Any:
    return next((one for one in experiment.config.observers if one.name == OBSERVER), None)


def _probe_ids(observer: Any, arm: Arm) -> np.ndarray:
    return arm.train.ids[observer.probe_rows(arm.task)]


def _without_rounds(
    trials: GridTrials, choices: Sequence[Choice], outcomes: Mapping[tuple[int, int], Outcome]
) -> list[str]:
    """Return a note on trials whose recipe has rounds of influence tuning but ran none, for lack of probes with both groups."""
    without = [
        f"{trials.settings[s].label} (seed {trials.seeds[r]})"
        for s, r in _used(trials, choices)
        if outcomes[s, r].metrics.get("n_rounds") == 0
    ]
    if not without:
        return []
    return [
        f"These trials found no probe with both groups, had no round of influence tuning, and are plain fine-tuning: {', '.join(without)}."
    ]


def _notes(
    campaign: RecipeGridBlock, trials: GridTrials, choices: Sequence[Choice], tables: Mapping[str, pd.DataFrame]
) -> tuple[str, ...]:
    n_failed, n_diverged, n_quarantined = (
        int((trials.status == status).sum()) for status in ("failed", "diverged", "quarantined")
    )
    notes = [
        f"Failed trials: {campaign.failed_rule}. Of {trials.usable.size} trials {n_failed} failed, {n_diverged} diverged and "
        f"{n_quarantined} were quarantined; they are left out of means and tests, but count in test_all if they have an accuracy.",
        f"Settings: {campaign.selection_rule}. A setting is chosen and reported on the same trials, so intervals do not account for "
        "the number of settings it was chosen from.",
    ]
    few = [name_of(key_of(trials.settings[choice.setting])) for choice in choices if not choice.is_eligible]
    if few:
        notes.append(
            f"No setting of {', '.join(few)} has {campaign.min_trials} trials that did not fail; it was chosen on dev among those with most such trials."
        )
    if "cid" in tables:
        notes.append(cid_note(tables["cid"]))
    return tuple(notes)
