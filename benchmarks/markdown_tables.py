"""Print the tables of a run as Markdown, for docs/results."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from orchestrator.api import open_run
from orchestrator.report.columns import columns


def signed(value: float) -> str:
    """Format a number with three decimals and a sign; a dash if it is missing."""
    return "-" if pd.isna(value) else f"{value:+.3f}"


def interval(row: pd.Series, low: str, high: str) -> str:
    """Format an interval as [low, high]."""
    return f"[{signed(row[low])}, {signed(row[high])}]"


def markdown(header: list[str], rows: list[list[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def one_table(path: Path, names: str | None) -> str:
    """Return a table of any campaign, with both ends of an interval in one column."""
    frame = pd.read_csv(path)
    chosen = columns(frame.loc[:, names.split(",")] if names else frame)
    return markdown([c.title for c in chosen], [list(row) for row in zip(*(c.cells for c in chosen), strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--table", help="one table of results/ instead of a deletion campaign's")
    parser.add_argument("--columns", help="columns of that table, separated by commas; default all")
    options = parser.parse_args()
    if options.table:
        print(one_table(options.run_dir / "results" / f"{options.table}.csv", options.columns))
        return
    run = open_run(options.run_dir)
    rows = [
        [
            r.method,
            r.group,
            signed(r.auc_del),
            interval(r, "ci_low", "ci_high"),
            interval(r, "ci_fixed_low", "ci_fixed_high"),
            r.n_queries,
            r.n_repeats,
            r.n_excluded,
        ]
        for _, r in run.summary().iterrows()
    ]
    print(
        markdown(
            [
                "method",
                "group",
                "AUC-DEL",
                "95% CI, queries of this kind",
                "95% CI, these queries",
                "queries",
                "repeats",
                "left out",
            ],
            rows,
        )
    )
    rows = [
        [
            r.method,
            r.baseline,
            r.group,
            signed(r["diff"]),
            interval(r, "ci_low", "ci_high"),
            f"{r.p:.3g}",
            f"{r.p_holm:.3g}",
        ]
        for _, r in run.contrasts().iterrows()
    ]
    print("\n" + markdown(["method", "against", "group", "difference", "95% CI", "p", "p (Holm)"], rows))
    curves = run.curves().pivot_table(index=["method", "group"], columns="k", values="delta", sort=False)
    rows = [[*index, *map(signed, row)] for index, row in zip(curves.index, curves.to_numpy(), strict=True)]
    print("\n" + markdown(["method", "group", *(f"k={k}" for k in curves.columns)], rows))
    pairing = pd.read_csv(run.run_dir.results / "pairing.csv")
    rows = [
        [r.method, r.group, f"{r.variance_paired:.2e}", f"{r.variance_unpaired:.2e}", f"{r.ratio:.2f}"]
        for _, r in pairing.iterrows()
    ]
    print("\n" + markdown(["method", "group", "variance, paired", "variance, unpaired", "ratio"], rows))


if __name__ == "__main__":
    main()
