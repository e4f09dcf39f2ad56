"""The report sections of a recipe grid: accuracy, levels of the ablated key, confound influence difference, failed trials, search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.campaigns.finished import FinishedRun
from orchestrator.campaigns.recipe_grid.accuracy_figures import accuracy_svg, levels_svg
from orchestrator.campaigns.recipe_grid.block import RecipeGridBlock
from orchestrator.campaigns.recipe_grid.confound_figures import (
    along_training,
    cid_svg,
    influence_svg,
    shown_distributions,
)
from orchestrator.campaigns.recipe_grid.grid_rows import level_text, ordered, ordered_levels
from orchestrator.campaigns.recipe_grid.page_tables import (
    OPEN_UP_TO,
    detail,
    figure_item,
    grid_section,
    has_search,
    is_known,
    level_word,
    named,
    options_text,
    table_of,
)
from orchestrator.report.columns import Column
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.numbers import MISSING, is_missing, number

if TYPE_CHECKING:
    from orchestrator.campaigns.recipe_grid.results import RecipeGridView

STATUSES = ("ok", "failed", "diverged", "quarantined")
EXPLAINED = (
    "Every arm is a way of training; all arms use the same seeds. Settings are chosen on the dev split alone; "
    "the test split has no part in the choice. Accuracies are fractions."
)
_CID_EXPLAINED = (
    "The influence of a training example on a probe is the cosine of their loss gradients, from −1 to 1. The confound "
    "influence difference of a probe: mean influence of the training examples with its label and its confound, minus "
    "mean influence of those with its label and another confound. At 0 the confound makes no difference."
)
_MAIN = (
    *["n_trials", "n_failed", "test", "ci_low", "ci_high"],
    *["diff", "diff_ci_low", "diff_ci_high", "p", "p_holm", "paper"],
)


def recipe_grid_page(campaign: RecipeGridBlock, finished: FinishedRun) -> CampaignPage:
    """Return a recipe grid's part of the report."""
    experiment, results = finished.experiment, finished.results
    asked = [("Campaign", experiment.settings.campaign), *campaign.asked(experiment, finished.plan)]
    return CampaignPage(asked, EXPLAINED, recipe_grid_sections(results.tables, results.view))


def recipe_grid_sections(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> list[Section]:
    """Return the sections `accuracy`, `levels`, `cid`, `influence`, `failed`, `search`; those without data are left out.

    `tables`: the tables of results/ by name without ending: `trials, settings, accuracy`, and `cid, cid_probes` with the observer.
    """
    makers = (_accuracy, _levels, _cid, _influence, _failed, _search)
    found = [make(tables, view) for make in makers]
    return [section for section in found if section is not None]


def _accuracy(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    accuracy = table_of(tables, "accuracy", view)
    if not len(accuracy):
        return None
    label = "Test accuracy of every arm with its 95% interval over seeds, and all trials"
    caption = (
        "Mean test accuracy of the chosen setting with its 95% interval over seeds (Student t), above every trial of "
        "that setting."
    )
    if any(accuracy["n_failed"]):
        caption += " Means leave failed trials out; these are hollow dots, or triangles if they lie beyond the edge."
    notes = {
        "diff": f"Difference: the arm minus {view.baseline}, formed within each seed; p is that of the paired t test, p Holm "
        "is corrected for all rows of this table.",
        "paper": "Paper: the published value for the same arm.",
    }
    data = {
        "figures": [figure_item("accuracy", label, caption)],
        "columns": named(accuracy.drop(columns="setting", errors="ignore"), view, _MAIN),
        "notes": [note for name, note in notes.items() if is_known(accuracy, name)],
        "details": [detail("All columns", accuracy, view, "accuracy.csv")],
    }
    svg = accuracy_svg(tables["accuracy"], tables["trials"], view.arms, view.baseline)
    return grid_section("accuracy", "Accuracy", data, {"accuracy": svg})


def _levels(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    accuracy = table_of(tables, "accuracy", view)
    rows = accuracy.loc[accuracy["level"] != ""] if len(accuracy) else accuracy
    if not view.ablate or not len(rows):
        return None
    word = level_word(view)
    caption = (
        f"Test accuracy against {word}, with 95% intervals over seeds; arms whose {word} does not vary are horizontal lines, "
        f"and {view.baseline} has its interval as a band."
    )
    caption += " Below: numbers of failed and of all trials." if any(rows["n_failed"]) else " No trial failed."
    if is_known(rows, "paper"):
        caption += " Dashes: the published values."
    data = {
        "figures": [figure_item("levels", f"Test accuracy against {word}", caption)],
        "columns": _by_level(rows, word),
        "notes": ["Mean test accuracy with its 95% interval, and the number of failed trials, if any."],
    }
    figures = {"levels": levels_svg(accuracy, view.arms, view.baseline, word)}
    return grid_section("levels", word.capitalize(), data, figures)


def _by_level(rows: pd.DataFrame, word: str) -> list[Column]:
    """Return a table with a row per level and a column per arm."""
    levels = list(dict.fromkeys(ordered_levels(list(rows["level"]))))
    cells = {(row["arm"], row["level"]): _cell(row) for row in rows.to_dict("records")}
    arms = [
        Column(str(arm), tuple(cells.get((arm, level), MISSING) for level in levels), True)
        for arm in dict.fromkeys(rows["arm"])
    ]
    return [Column(word, tuple(levels), False), *arms]


def _cell(row: Mapping[Any, Any]) -> str:
    text = number(row["test"], 3)
    if not is_missing(row["ci_low"]):
        text += f" [{number(row['ci_low'], 3)}, {number(row['ci_high'], 3)}]"
    return f"{text}, {int(row['n_failed'])} failed" if row["n_failed"] else text


def _cid(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    cid = table_of(tables, "cid", view)
    if not len(cid) or not is_known(cid, "cid"):
        return None
    caption = (
        "Mean over probes and seeds along training; the band is the 95% interval over seeds. A vertical segment of the "
        "curve shows a round of influence tuning that followed the update of that step."
    )
    cid = cid.drop(columns="setting", errors="ignore")
    last = ordered(along_training(cid).groupby(["arm", "level"], sort=False).tail(1), view.arms)
    shown = ("step", "stage", "cid", "ci_low", "ci_high", "n_seeds", "n_probes")
    data = {
        "intro": _CID_EXPLAINED,
        "figures": [figure_item("cid", "Confound influence difference along training, per arm", caption)],
        "columns": named(last, view, shown, {"cid": "mean_difference"}),
        "notes": ["The last value of every curve; all others are in results/cid.csv."],
    }
    svg = cid_svg(cid, view.arms, view.baseline, level_word(view))
    return grid_section("cid", "Confound influence difference", data, {"cid": svg}, nav="Influence difference")


def _influence(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    shown = shown_distributions(view.distributions, view.arms)
    if not shown:
        return None
    probes = list(dict.fromkeys(one.probe_id for one in shown))
    seeds = list(dict.fromkeys(one.seed for one in shown))
    which = f"train example {', '.join(map(str, probes))} under seed {', '.join(map(str, seeds))}"
    caption = (
        f"How the influences of the training examples with the probe's label are distributed at the end of training; "
        f"the probe is {which}, the first of those recorded for most arms, so the choice does not depend on the result. "
        "Above each panel: the difference of the two means, and the p of its Welch test, which describes these two "
        "distributions and does not generalise to other trainings."
    )
    n_left = len({(one.arm, level_text(one.level)) for one in view.distributions}) - len(shown)
    notes = ["The tests of all probes are in results/cid_probes.csv."] if "cid_probes" in tables else []
    if n_left:
        notes.append(f"Of arms with many levels the lowest and the highest are drawn; {n_left} panels are left out.")
    label = "Influence of training examples with the same and with another confound on one probe, per arm"
    svg = influence_svg(shown, tables.get("cid_probes", pd.DataFrame()))
    data = {"figures": [figure_item("influence", label, caption)], "notes": notes}
    title = "Influence of same-confound and other-confound examples"
    return grid_section("influence", title, data, {"influence": svg}, nav="Influences")


def _failed(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    trials = table_of(tables, "trials", view)
    if not len(trials):
        return None
    bad = trials.loc[trials["status"] != "ok"]
    note = (
        f"{len(bad)} of {len(trials)} trials failed, diverged or were quarantined. They are left out of means and of "
        "tests, and their number is shown with every mean."
    )
    by_setting = bad[:0]
    if "setting" in trials and len(bad):
        by_setting = _counts(trials, ["arm", "level", "setting"]).query("ok < n_trials")
    data = {
        "pairs": [("Rule", view.failed_rule)],
        "columns": named(_counts(trials, ["arm", "level"]), view, ("n_trials", *STATUSES), {}),
        "notes": [note if len(bad) else f"None of {len(trials)} trials failed."],
        "details": [
            detail(title, found, view, "trials.csv", {}) | {"is_open": len(found) <= OPEN_UP_TO}
            for title, found in (("By setting", by_setting), ("Every failed trial", bad))
            if len(found)
        ],
    }
    return grid_section("failed", "Failed trials", data)


def _counts(trials: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the numbers of trials of every status, one row per combination of `keys`."""
    counts = {one: [int(status == one) for status in trials["status"]] for one in STATUSES}
    found = trials.loc[:, list(keys)].assign(n_trials=1, **counts)
    return pd.DataFrame(found.groupby(list(keys), sort=False).sum()).reset_index()


def _search(tables: Mapping[str, pd.DataFrame], view: RecipeGridView) -> Section | None:
    settings = table_of(tables, "settings", view)
    if not len(settings) or not has_search(tables):
        return None
    table = settings.assign(chosen=["chosen" if is_chosen else "" for is_chosen in settings["chosen"]])
    table = ordered(table.sort_values("dev", ascending=False, kind="stable", na_position="last"), view.arms)
    parts = {arm: table.loc[table["arm"] == arm] for arm in view.arms}
    details = [
        detail(_search_title(arm, part, view.ablate), part.drop(columns="arm"), view, "settings.csv")
        | {"is_open": len(table) <= OPEN_UP_TO}
        for arm, part in parts.items()
        if part.duplicated("level").any()
    ]
    intro = (
        "Every setting that was tried, best first. The choice is by mean dev accuracy over the trials that did not fail; "
        "test accuracy has no part in it."
    )
    if view.ablate:
        intro += f" Every value of {level_word(view)} has its own chosen setting."
    return grid_section("search", "Search", {"intro": intro, "details": details})


def _search_title(arm: str, settings: pd.DataFrame, ablate: str) -> str:
    picked = [options_text(one, ablate) for one in settings.loc[settings["chosen"] == "chosen", "options"]]
    chosen = f"chosen: {picked[0]}" if len(picked) == 1 else f"{len(picked)} chosen"
    return f"{arm}, {len(settings)} settings, {chosen}"
