"""Shared parts of the report sections of a recipe grid: tables with readable settings, and the data of their template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.campaigns.recipe_grid.grid_rows import ordered
from orchestrator.report.columns import Column, columns
from orchestrator.report.data import Section
from orchestrator.report.numbers import is_missing

if TYPE_CHECKING:
    from orchestrator.campaigns.recipe_grid.results import RecipeGridView

TEMPLATE = Path(__file__).parent / "templates" / "page.html.jinja"
ROWS_SHOWN, OPEN_UP_TO = 200, 24
_LABELS = ("arm", "level", "setting", "options")
TITLES = {  # column -> the name from which its title is made; the ends of an interval name their quantity
    "ci_low": "test_ci_low",
    "ci_high": "test_ci_high",
    "diff": "difference",
    "diff_se": "difference_se",
    "diff_ci_low": "difference_ci_low",
    "diff_ci_high": "difference_ci_high",
    "p_holm": "p_Holm",
}


def table_of(tables: Mapping[str, pd.DataFrame], name: str, view: RecipeGridView) -> pd.DataFrame:
    """Return the table in the order of arms and levels, or an empty one if it is missing.

    The column `setting` is dropped if no arm has several settings to choose from.
    """
    table = tables.get(name)
    if table is None or not len(table):
        return pd.DataFrame()
    dropped = [] if has_search(tables) else ["setting"]
    return ordered(table, view.arms).drop(columns=dropped, errors="ignore")


def has_search(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether any arm, at any level, has more than one setting to choose from."""
    return bool(tables["settings"].duplicated(["arm", "level"]).to_numpy().any())


def is_known(table: pd.DataFrame, name: str) -> bool:
    """Return whether the column has any value."""
    return not all(map(is_missing, table[name]))


def level_word(view: RecipeGridView) -> str:
    """Return the name of the ablated key in words: the last part of its dotted name."""
    return view.ablate.rpartition(".")[2].replace("_", " ")


def options_text(options: str, ablate: str = "") -> str:
    """Format JSON of {dotted key: value} as `learning_rate 2e-05, epochs 10`, without the key `ablate`, whose value is the level.

    Only the last part of a key is shown, unless two keys have the same last part.
    """
    if is_missing(options):
        return ""
    values = {key: value for key, value in json.loads(options).items() if key != ablate}
    last = [key.rpartition(".")[2] for key in values]
    names = [short if last.count(short) == 1 else key for key, short in zip(values, last, strict=True)]
    return ", ".join(f"{name} {_value(value)}" for name, value in zip(names, values.values(), strict=True))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def named(
    table: pd.DataFrame, view: RecipeGridView, shown: Sequence[str] = (), titles: Mapping[str, str] = TITLES
) -> list[Column]:
    """Return the columns that identify a row, then `shown` (empty: all others), with readable options and the level titled by its key."""
    if "options" in table:
        table = table.assign(options=[options_text(options, view.ablate) for options in table["options"]])
    labels = [name for name in _LABELS if name in table and any(table[name])]
    kept = [name for name in (shown or table.columns) if name in table and name not in _LABELS]
    word = level_word(view)
    is_taken = word in {"", *table.columns, *titles.values()}
    names = {
        **titles,
        "options": "options" if "setting" in labels else "setting",
        "level": "level" if is_taken else word,
    }
    return columns(table.loc[:, [*labels, *kept]].rename(columns=names), [names.get(label, label) for label in labels])


def detail(
    title: str, table: pd.DataFrame, view: RecipeGridView, file: str, titles: Mapping[str, str] = TITLES
) -> dict[str, Any]:
    """Return a folded table with all columns: its first ROWS_SHOWN rows, and the name of the file with all rows."""
    shown = named(table.head(ROWS_SHOWN), view, (), titles)
    counts = {"n_rows": len(table), "n_shown": min(len(table), ROWS_SHOWN)}
    return {"title": title, "columns": shown, "file": file, "is_open": False, **counts}


def figure_item(name: str, label: str, caption: str) -> dict[str, str]:
    """Return the template data of a figure; `label` describes it for screen readers."""
    return {"name": name, "label": label, "caption": caption}


def grid_section(
    anchor: str, title: str, data: Mapping[str, Any], figures: Mapping[str, str] | None = None, nav: str = ""
) -> Section:
    """Return a section with the template of this campaign; parts that `data` does not have stay empty."""
    empty = {"intro": "", "pairs": [], "figures": [], "columns": [], "notes": [], "details": []}
    return Section(anchor, title, TEMPLATE, {**empty, **data}, figures or {}, nav)
