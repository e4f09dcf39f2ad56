"""Renders ReportData as report.html, one self-contained page, and figures/*.svg. All user text is escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from orchestrator.analysis.checks import CAUTION, FAILED, standing, with_status
from orchestrator.report import highlight, numbers
from orchestrator.report.canvas import inline
from orchestrator.report.columns import Column, columns
from orchestrator.report.data import QueryPage, ReportData

_HERE = Path(__file__).parent
HOLES_SHOWN = 40
WORDS_SHOWN = 12  # length of the word list below a pair of texts; in the texts all words are marked
HOLE_LABELS = ("method", "group")


def write_report(data: ReportData, run_dir: Path) -> Path:
    """Write `figures/*.svg` and `report.html` under `run_dir` and return the page's path. Equal data give equal bytes.

    Raises ValueError if two sections have a figure of the same name.
    """
    drawn = _figures(data)
    (run_dir / "figures").mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        _replace(run_dir / "figures" / f"{name}.svg", svg)
    path = run_dir / "report.html"
    _replace(path, page(data))
    return path


def page(data: ReportData) -> str:
    """Return the page as HTML, with the figures of its sections."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    holes = data.holes if data.holes is not None else pd.DataFrame()
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            data=data,
            # safe as markup, since matplotlib escapes labels
            figures={name: Markup(inline(svg)) for name, svg in _figures(data).items()},
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
            failed=with_status(data.checks, "failed"),
            failed_title=FAILED,
            cautions=with_status(data.checks, "caution"),
            caution_title=CAUTION,
            standing=standing(data.checks),
            failures=_records(data.failures),
            failures_title="Failures" if data.holes is None else "Holes and failures",
            words_shown=WORDS_SHOWN,
            holes=columns(holes.head(HOLES_SHOWN), HOLE_LABELS),
            n_holes=len(holes),
            n_holes_shown=min(len(holes), HOLES_SHOWN),
            provenance=list(_flat(data.provenance)),
        )
    )


def _figures(data: ReportData) -> dict[str, str]:
    names = [name for section in data.sections for name in section.figures]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two sections have a figure named {twice[0]!r}")
    return {name: svg for section in data.sections for name, svg in section.figures.items()}


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the environment of the templates, made once, so that a process compiles each template once."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.FunctionLoader(_template_of_campaign), jinja2.FileSystemLoader(_HERE)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=numbers.number,
        signed=numbers.signed,
        significant=numbers.significant,
        interval=_interval,
        span=_span,
        count=numbers.count,
        p_value=numbers.p_value,
        plain=numbers.plain,
        records=_records,
        of_group=_of_group,
        passage=highlight.passage,
        methods_of=_methods_of,
        columns=columns,
        rows=_rows,
    )
    return environment


def _template_of_campaign(name: str) -> str | None:
    """Return the text of a template that is named by its absolute path; None for the report's own templates."""
    path = Path(name)
    return path.read_text(encoding="utf-8") if path.is_absolute() else None


def _interval(row: Mapping[str, Any], prefix: str) -> str:
    return numbers.interval(row.get(f"{prefix}_low"), row.get(f"{prefix}_high"))


def _span(row: Mapping[str, Any], prefix: str, digits: int) -> str:
    """Format an interval of an unsigned quantity, such as a fraction."""
    low, high = row.get(f"{prefix}_low"), row.get(f"{prefix}_high")
    return f"[{numbers.number(low, digits)}, {numbers.number(high, digits)}]"


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def _of_group(table: pd.DataFrame, group: str) -> list[dict[Any, Any]]:
    return _records(table.loc[table["group"].astype(str) == group]) if len(table) else []


def _methods_of(query: QueryPage) -> list[str]:
    return [method for method, groups in query.examples.items() if any(len(examples) for examples in groups.values())]


def _rows(found: Sequence[Column]) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in found), strict=True))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Flatten nested mappings to dotted keys; sequences and empty mappings are shown as JSON."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence | Mapping) and not isinstance(value, str):
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)
        else:
            yield f"{prefix}{key}", numbers.plain(value)


def _replace(path: Path, text: str) -> None:
    """Write a file atomically, so that a reader sees either the old or the new content."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    os.replace(partial, path)
