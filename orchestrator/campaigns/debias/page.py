"""The report sections of a debias campaign: effects before and after, directions, the grid, and the influential sentences."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.campaigns.debias.block import DebiasBlock
from orchestrator.campaigns.debias.figures import HELD_OUT, PER_SEED, SIDES, WHOLE, effects_svg
from orchestrator.campaigns.debias.page_view import DebiasPageView
from orchestrator.campaigns.debias.sentences import (
    LISTS,
    REPEAT,
    SETS,
    base_checkpoints,
    cause,
    influential_sentences,
    list_names,
    nearest_neighbours,
    spans,
)
from orchestrator.campaigns.finished import FinishedRun
from orchestrator.report.columns import Column, columns
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.numbers import number

TEMPLATES = Path(__file__).parent / "templates"
GRID_ROWS_SHOWN = 200
EXPLAINED = (
    "Influence says which sentences gave the word vectors their bias. The claim is tested by fine-tuning on them: "
    "gradient ascent undoes the sentences that amplify the bias (A), descent reinforces those that mitigate it (M), "
    "and the association test is measured again."
)
_SHOWN = (
    "Every repeat has a base model and scores of its own; the sentences and neighbours below are those of repeat {repeat} "
    "(seed {seed}), by the method {method}."
)
_KEYS = ["test", "variant"]
_SIDES = {  # words on which a setting was chosen and reported -> title -> column, in the order of the table
    HELD_OUT: {
        "setting": "setting",
        "held_out": "effect",
        "held_out_ci_low": "ci_low",
        "held_out_ci_high": "ci_high",
    },
    WHOLE: {
        "setting_on_whole_test": "setting",
        "whole_test": "effect",
        "whole_test_ci_low": "ci_low",
        "whole_test_ci_high": "ci_high",
    },
    PER_SEED: {"chosen_per_seed": "effect"},
}


def debias_page(campaign: DebiasBlock, finished: FinishedRun) -> CampaignPage:
    """Return a debias campaign's part of the report."""
    experiment, tables = finished.experiment, finished.results.tables
    asked = [("Campaign", experiment.settings.campaign), *campaign.asked(experiment, finished.plan)]
    task: Any = experiment.task
    checkpoints = base_checkpoints(finished)
    sentences = influential_sentences(campaign, finished, checkpoints)
    view = DebiasPageView(
        effects=tables["effects"],
        directions=tables["directions"],
        grid=tables["grid"],
        settings=tables["settings"],
        sentences=sentences,
        neighbours=nearest_neighbours(campaign, finished, checkpoints),
        refused=list(task.refused.items()),
        names=list_names(task.properties),
        contrasts=tables.get("effect_contrasts"),
        tests=tables.get("tests"),
        given_ids={one.train_id: experiment.train.shown_id(one.train_id) for one in sentences},
    )
    shown = _SHOWN.format(method=next(iter(experiment.scored)), repeat=REPEAT, seed=experiment.seeds[REPEAT])
    return CampaignPage(asked, f"{EXPLAINED} {shown}" if view.sentences else EXPLAINED, debias_sections(view))


def debias_sections(view: DebiasPageView) -> list[Section]:
    """Return the sections `effects`, `directions`, `grid`, `sentences`, `neighbours`, `refused`; those without content are left out."""
    sections = [
        _effects(view),
        _directions(view),
        _grid(view),
        _sentences(view),
        _neighbours(view),
        _refused(view),
    ]
    return [section for section in sections if section is not None]


def _effects(view: DebiasPageView) -> Section | None:
    if not len(view.effects):
        return None
    table = _worded(side_by_side(view.effects))
    if "setting" in table:
        table["setting"] = table["setting"].map(short_setting, na_action="ignore")
    shown = columns(table.drop(columns="test"), ("variant",))
    rows = list(zip(*(column.cells for column in shown), strict=True))
    tests = table["test"].astype(str).tolist()
    data = {
        "columns": shown,
        "tests": {test: [row for row, of in zip(rows, tests, strict=True) if of == test] for test in tests},
        "has_sides": {HELD_OUT, WHOLE} <= {SIDES.get(str(half)) for half in view.effects["half"]},
        "details": [
            (title, columns(one, _texts(one)))
            for title, one in (
                ("Every effect, with |effect|", view.effects),
                ("Differences of |effect|", view.contrasts),
                ("The settings that were chosen", view.settings),
                ("Every test of every base model", view.tests),
            )
            if one is not None and len(one)
        ],
    }
    return Section(
        "effects",
        "Bias before and after",
        TEMPLATES / "effects.html.jinja",
        data,
        {"effects": effects_svg(view.effects)},
        nav="Effects",
    )


def short_setting(setting: str) -> str:
    """Shorten `undo 10 x 5 (on first); undo 10 x 5 (on second)` to `undo 10 x 5 (on each half)`."""
    chosen = [re.fullmatch(r"(.+) \(on .+\)", part) for part in setting.split("; ")]
    names = {found[1] for found in chosen if found}
    return f"{names.pop()} (on each half)" if all(chosen) and len(names) == 1 < len(chosen) else setting


def side_by_side(effects: pd.DataFrame) -> pd.DataFrame:
    """Return one row per test and variant, with the effects on words where nothing was chosen and where the setting was chosen.

    Columns `setting`, `held_out` with its interval, `setting_on_whole_test`, `whole_test` with its interval,
    `chosen_per_seed`, `p`, `n_seeds`, `paper`. Empty columns are left out.
    """
    known = effects.reindex(columns=[*_KEYS, "half", "setting", "effect", "ci_low", "ci_high", "p", "n_seeds", "paper"])
    sides = known["half"].astype(str).map(lambda half: SIDES.get(half))
    first = {side: rows.groupby(_KEYS, sort=False).first() for side, rows in known.groupby(sides)}
    table = known.groupby(_KEYS, sort=False)[["p", "n_seeds", "paper"]].first()
    for side, names in reversed(_SIDES.items()):
        if side in first:
            table = (
                pd.DataFrame({title: first[side][column] for title, column in names.items()})
                .reindex(table.index)
                .join(table)
            )
    return table.dropna(axis="columns", how="all").reset_index()


def _directions(view: DebiasPageView) -> Section | None:
    if not len(view.directions):
        return None
    table = _worded(view.directions)
    over_sizes, over_tests = ((table[name].astype(str) == "all") for name in ("size", "test"))
    parts = [
        ("", table.loc[over_sizes & over_tests]),
        ("Test by test", table.loc[over_sizes & ~over_tests]),
        ("Setting by setting", table.loc[~over_sizes]),
    ]
    [(_, shown), *folded] = [(title, part) for title, part in parts if len(part)]
    data = {
        "columns": _direction_columns(shown),
        "details": [(title, _direction_columns(part)) for title, part in folded],
        "has_control": bool(table["action"].astype(str).str.startswith("random").any()),
        "has_seeds": "ci_seed_low" in table.columns,
    }
    template = TEMPLATES / "directions.html.jinja"
    return Section("directions", "Does the bias move as predicted?", template, data, nav="Directions")


def _direction_columns(table: pd.DataFrame) -> list[Column]:
    """Return the columns without the pooled ones, which are `all` in every row."""
    pooled = [name for name in ("test", "size", "passes") if set(table[name].astype(str)) == {"all"}]
    return columns(table.drop(columns=pooled), ("test", "action"))


def _worded(table: pd.DataFrame) -> pd.DataFrame:
    """Replace underscores in Refit's own names (actions, starts, variants) by blanks; names of tests come from the user and are kept."""
    own = [name for name in ("action", "start", "variant") if name in table.columns]
    return table.assign(**{name: table[name].astype(str).str.replace("_", " ") for name in own})


def _grid(view: DebiasPageView) -> Section | None:
    if not len(view.grid):
        return None
    grid = _worded(view.grid)
    own = grid.loc[grid["corrected"] == grid["test"]] if "corrected" in grid.columns else grid
    own = own.drop(columns="corrected", errors="ignore")
    found = {str(test): pivots(rows.drop(columns="test")) for test, rows in own.groupby("test", sort=False)}
    data: dict[str, Any] = {"pivots": found if all(found.values()) else {}, "others": len(own) < len(grid)}
    data |= {"columns": [], "n_left": 0, "file": "grid.csv"}
    if not data["pivots"]:
        data["columns"] = columns(grid.head(GRID_ROWS_SHOWN), _texts(grid))
        data["n_left"] = max(len(grid) - GRID_ROWS_SHOWN, 0)
    return Section("grid", "All settings", TEMPLATES / "grid.html.jinja", data, nav="Settings")


def pivots(grid: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the grid as one table per test, action and so on: a row per size, a column per passes; `best` marks the effect nearest zero.

    If the grid has a column `corrected`, only the effect on the test that a fine-tune was made for is shown. The result is empty if
    the grid has more than one effect per size and passes, for example with several seeds.
    """
    if not {"size", "passes", "effect"} <= set(grid.columns):
        return []
    if "corrected" in grid.columns:
        grid = grid.loc[grid["corrected"] == grid["test"]].drop(columns="corrected")
    labels = [name for name in _texts(grid) if name not in ("setting", "worker")]
    if grid.duplicated([*labels, "size", "passes"]).any():
        return []
    titles = grid[labels].astype(str).agg(" · ".join, axis="columns") if labels else pd.Series("", grid.index)
    return [_pivot(str(title), rows) for title, rows in grid.groupby(titles, sort=False)]


def _pivot(title: str, rows: pd.DataFrame) -> dict[str, Any]:
    wide = rows.pivot(index="size", columns="passes", values="effect").sort_index().sort_index(axis=1)
    best = wide.abs().min(axis=None)
    body = [
        {"size": size, "cells": [{"text": number(v, 3), "best": abs(v) == best} for v in line]}
        for size, line in zip(wide.index.tolist(), wide.to_numpy().tolist(), strict=True)
    ]
    return {"title": title, "passes": wide.columns.tolist(), "rows": body}


def _sentences(view: DebiasPageView) -> Section | None:
    if not view.sentences:
        return None
    tests = list(dict.fromkeys(sentence.test for sentence in view.sentences))
    data = {
        "has_causes": any(math.isfinite(word[2]) for sentence in view.sentences for word in sentence.words),
        "tests": [
            {
                "test": test,
                "names": [(LISTS[which], name) for which, name in view.names.get(test, {}).items() if which in LISTS],
                "sides": [(title, _cards(view, test, which)) for which, (title, _) in SETS.items()],
            }
            for test in tests
        ],
    }
    template = TEMPLATES / "sentences.html.jinja"
    return Section("sentences", "The sentences behind it", template, data, nav="Sentences")


def _cards(view: DebiasPageView, test: str, which: str) -> list[dict[str, Any]]:
    shown = [sentence for sentence in view.sentences if (sentence.test, sentence.set) == (test, which)]
    return [
        {
            "sentence": sentence,
            "id": view.given_ids.get(sentence.train_id, str(sentence.train_id)),
            "spans": spans(sentence.text, sentence.words),
            "cause": cause(sentence),  # the lists themselves are shown above the sentences of a test
        }
        for sentence in sorted(shown, key=lambda sentence: sentence.rank)
    ]


def _neighbours(view: DebiasPageView) -> Section | None:
    if not view.neighbours:
        return None
    listed = [
        (word, ", ".join(f"{neighbour} {number(cosine, 2)}" for neighbour, cosine in found))
        for word, found in view.neighbours
    ]
    intro = (
        "The words with the most similar vectors in the base model, before any fine-tune, with their cosine similarity."
    )
    return Section(
        "neighbours",
        "Nearest neighbours",
        TEMPLATES / "pairs.html.jinja",
        {"intro": intro, "pairs": listed},
        nav="Neighbours",
    )


def _refused(view: DebiasPageView) -> Section | None:
    if not view.refused:
        return None
    intro = "These tests were not run, because the corpus has too few of their words for a meaningful number."
    data = {"intro": intro, "pairs": list(view.refused)}
    return Section("refused", "Tests that were refused", TEMPLATES / "pairs.html.jinja", data, nav="Refused")


def _texts(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
