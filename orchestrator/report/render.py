"""report.html and figures/*.svg from ReportData: one self-contained page, user text only ever as escaped text."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from orchestrator.report import figures, highlight, numbers
from orchestrator.report.data import QueryPage, ReportData

_HERE = Path(__file__).parent
HOLES_SHOWN = 40
WORDS_SHOWN = 12  # in the list below a pair of texts; the texts themselves mark them all
EXAMPLE_GROUPS = ("proponents", "opponents")


def write_report(data: ReportData, run_dir: Path) -> Path:
    """Write `figures/*.svg` and `report.html` under `run_dir`; returns the page. The same data give the same bytes."""
    drawn = draw(data)
    (run_dir / "figures").mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        _replace(run_dir / "figures" / f"{name}.svg", svg)
    path = run_dir / "report.html"
    _replace(path, page(data, drawn))
    return path


def page(data: ReportData, drawn: Mapping[str, str]) -> str:
    """The page as HTML; `drawn` are its figures by name, as `draw` returns them."""
    environment = _environment()
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    script_digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(
        "report.html.jinja"
    ).render(
        data=data,
        figures={name: Markup(figures.inline(svg)) for name, svg in drawn.items()},  # matplotlib escapes labels
        script=Markup(script),
        script_digest=script_digest,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        methods=_unique(data.summary, "method"),
        groups=_unique(data.summary, "group"),
        example_groups=EXAMPLE_GROUPS,
        failures=_records(data.failures),
        words_shown=WORDS_SHOWN,
        holes=_records(data.holes)[:HOLES_SHOWN],
        n_holes=len(data.holes),
        provenance=list(_flat(data.provenance)),
    )


def draw(data: ReportData) -> dict[str, str]:
    """Every figure as SVG, by name: curves, auc-del, query-<id>."""
    drawn = {}
    if len(data.curves):
        drawn["curves"] = figures.curves_svg(data.curves)
    if len(data.summary):
        drawn["auc-del"] = figures.forest_svg(data.summary)
    methods = _unique(data.curves, "method")
    for query in data.queries:
        if len(data.query_curves) and len(
            curves := data.query_curves.loc[data.query_curves["query_id"] == query.query_id]
        ):
            drawn[f"query-{int(query.query_id)}"] = figures.query_svg(query.query_id, curves, methods)
    return drawn


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
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
        count=numbers.count,
        p_value=numbers.p_value,
        plain=numbers.plain,
        records=_records,
        of_group=_of_group,
        passage=highlight.passage,
        methods_of=_methods_of,
    )
    return environment


def _interval(row: Mapping[str, Any], prefix: str) -> str:
    return numbers.interval(row.get(f"{prefix}_low"), row.get(f"{prefix}_high"))


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def _of_group(table: pd.DataFrame, group: str) -> list[dict[Any, Any]]:
    return _records(table.loc[table["group"].astype(str) == group]) if len(table) else []


def _methods_of(query: QueryPage) -> list[str]:
    return [method for method, groups in query.examples.items() if any(len(examples) for examples in groups.values())]


def _unique(table: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(table[column].astype(str))) if len(table) else []


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as dotted keys; anything else that is not text as JSON."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence | Mapping) and not isinstance(value, str):
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)
        else:
            yield f"{prefix}{key}", numbers.plain(value)


def _replace(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    os.replace(partial, path)
