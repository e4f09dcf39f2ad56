"""The sections of a debias campaign: effects before and after, directions, the grid, and the sentences behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.report.columns import columns
from orchestrator.report.data import CampaignPage, Section
from orchestrator.report.effect_figures import HELD_OUT, PER_SEED, SIDES, WHOLE, effects_svg
from orchestrator.report.numbers import number, significant
from orchestrator.report.sections.views import DebiasView, Sentence

if TYPE_CHECKING:
    from orchestrator.pipeline import Pipeline

WORDS_TOLD, GRID_ROWS_SHOWN = 4, 200
EXPLAINED = (
    "Influence says which sentences gave the word vectors their bias. The claim is tested by fine-tuning on them: "
    "gradient ascent undoes the sentences that amplify the bias (A), descent reinforces those that mitigate it (M), "
    "and the association test is measured again."
)
_LISTS = {"x": "target X", "y": "target Y", "a": "attribute A", "b": "attribute B"}
_KEYS = ["test", "variant"]
_SIDES = {  # what a number was chosen and reported on -> title -> column, in the order of the table
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
_SETS = {
    "A": ("Amplify the bias (A)", "Adds to the bias"),
    "M": ("Mitigate the bias (M)", "Takes from the bias"),
}


def debias_page(pipeline: Pipeline) -> CampaignPage:
    """What a debias campaign adds to the report."""
    experiment, tables = pipeline.experiment, pipeline.results.tables
    asked = [("Campaign", experiment.settings.campaign), *experiment.campaign.asked(experiment, pipeline.planned)]
    view = DebiasView(
        effects=tables["effects"],
        directions=tables["directions"],
        grid=tables["grid"],
        settings=tables["settings"],
        refused=list(getattr(experiment.task, "refused", {}).items()),
        contrasts=tables.get("effect_contrasts"),
        tests=tables.get("tests"),
    )
    return CampaignPage(asked, EXPLAINED, debias_sections(view))


def debias_sections(view: DebiasView) -> list[Section]:
    """Sections `effects`, `directions`, `grid`, `sentences`, `neighbours`, `refused`; those without content are left out."""
    sections = [
        _effects(view),
        _directions(view),
        _grid(view),
        _sentences(view),
        _neighbours(view),
        _refused(view),
    ]
    return [section for section in sections if section is not None]


def cause(sentence: Sentence, names: Mapping[str, str]) -> str:
    """Why a sentence moves a bias test, in words: the target and attribute words it moves, with the sign of each.

    `names`: list -> what it stands for. The words that pull where the sentence's set says come first.
    """
    sign = -1.0 if sentence.set == "M" else 1.0
    ranked = sorted(sentence.words, key=lambda word: (-abs(word[2]), word[0]))
    along = [word for word in ranked if sign * word[2] > 0][:WORDS_TOLD]
    against = [word for word in ranked if sign * word[2] < 0][:WORDS_TOLD]
    if not along and not against:
        return "Holds no word of the test: it works through other words."
    does = _SETS.get(sentence.set, ("", "Moves the bias"))[1]
    parts = [f"{does} through {_listed(along, names)}"] if along else [f"{does} as a whole"]
    parts += [f"against it: {_listed(against, names)}"] if against else []
    return "; ".join(parts) + "."


def _listed(words: Sequence[tuple[str, str, float]], names: Mapping[str, str]) -> str:
    told = []
    for word, which, contribution in words:
        place = _LISTS.get(which, which) + (f": {names[which]}" if which in names else "")
        told.append(f"{word} ({place}, {significant(contribution, 2)})")
    return ", ".join(told[:-1]) + " and " + told[-1] if len(told) > 1 else told[0]


def _effects(view: DebiasView) -> Section | None:
    if not len(view.effects):
        return None
    table = side_by_side(view.effects)
    variants = table.drop(columns="test").assign(variant=table["variant"].astype(str).str.replace("_", " "))
    shown = columns(variants, ("variant",))
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
        "sections/debias_effects.html.jinja",
        data,
        {"effects": effects_svg(view.effects)},
        nav="Effects",
    )


def side_by_side(effects: pd.DataFrame) -> pd.DataFrame:
    """A row per test and variant: the effect where nothing was chosen beside that where the setting was.

    Columns `setting`, `held_out` with its interval, `setting_on_whole_test`, `whole_test` with its interval,
    `chosen_per_seed`, `p`, `n_seeds`, `paper`. A column that is empty throughout is left out.
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


def _directions(view: DebiasView) -> Section | None:
    if not len(view.directions):
        return None
    table, labels = view.directions, ("test", "action")
    pooled = (table["size"].astype(str) == "all").to_numpy()
    folded = bool(pooled.any()) and not pooled.all()
    data = {
        "columns": columns(table.loc[pooled] if folded else table, labels),
        "details": columns(table.loc[~pooled], labels) if folded else [],
    }
    template = "sections/debias_directions.html.jinja"
    return Section("directions", "Does the bias move as predicted?", template, data, nav="Directions")


def _grid(view: DebiasView) -> Section | None:
    if not len(view.grid):
        return None
    found = pivots(view.grid)
    others = "corrected" in view.grid.columns and bool((view.grid["corrected"] != view.grid["test"]).any())
    data: dict[str, Any] = {"pivots": found, "others": others, "columns": [], "n_left": 0, "file": "grid.csv"}
    if not found:
        data["columns"] = columns(view.grid.head(GRID_ROWS_SHOWN), _texts(view.grid))
        data["n_left"] = max(len(view.grid) - GRID_ROWS_SHOWN, 0)
    return Section("grid", "All settings", "sections/debias_grid.html.jinja", data, nav="Settings")


def pivots(grid: pd.DataFrame) -> list[dict[str, Any]]:
    """The grid as one table per test, action and so on: sizes down, passes across, the effect nearest zero `best`.

    Of a grid that says which test a fine-tune was made for (`corrected`), its effect on that test. Empty where the grid
    is not one effect per size and passes (several seeds, say).
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


def _sentences(view: DebiasView) -> Section | None:
    if not view.sentences:
        return None
    tests = list(dict.fromkeys(sentence.test for sentence in view.sentences))
    data = {
        "tests": [
            {
                "test": test,
                "names": [(_LISTS[which], name) for which, name in view.names.get(test, {}).items() if which in _LISTS],
                "sides": [(title, _cards(view, test, which)) for which, (title, _) in _SETS.items()],
            }
            for test in tests
        ]
    }
    template = "sections/debias_sentences.html.jinja"
    return Section("sentences", "The sentences behind it", template, data, nav="Sentences")


def _cards(view: DebiasView, test: str, which: str) -> list[dict[str, Any]]:
    shown = [sentence for sentence in view.sentences if (sentence.test, sentence.set) == (test, which)]
    return [
        {
            "sentence": sentence,
            "spans": spans(sentence.text, sentence.words),
            "cause": cause(sentence, view.names.get(test, {})),
        }
        for sentence in sorted(shown, key=lambda sentence: sentence.rank)
    ]


def spans(text: str, words: Sequence[tuple[str, str, float]]) -> list[tuple[int, int, float]]:
    """Where the words of a test stand in `text`, as whole words in any case: (start, end, contribution)."""
    return [
        (*match.span(), contribution)
        for word, _, contribution in words
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    ]


def _neighbours(view: DebiasView) -> Section | None:
    if not view.neighbours:
        return None
    told = [
        (word, ", ".join(f"{neighbour} {number(cosine, 2)}" for neighbour, cosine in found))
        for word, found in view.neighbours
    ]
    intro = "The words whose vectors point the same way, with their cosine."
    return Section(
        "neighbours",
        "Nearest neighbours",
        "sections/debias_pairs.html.jinja",
        {"intro": intro, "pairs": told},
        nav="Neighbours",
    )


def _refused(view: DebiasView) -> Section | None:
    if not view.refused:
        return None
    intro = "These tests were not run: with too few of their words in the corpus, a number would say nothing."
    data = {"intro": intro, "pairs": list(view.refused)}
    return Section("refused", "Tests that were refused", "sections/debias_pairs.html.jinja", data, nav="Refused")


def _texts(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
