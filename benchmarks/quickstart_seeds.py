"""How often the demo gives a verdict: configs/quickstart.yaml under base seeds other than its own.

Every base seed is a campaign of its own, with other seeds for the references, the removals and the controls; queries, scoring model
and scores stay the same. A table row gives the contrasts of each method with the two controls.

Usage: python -m benchmarks.quickstart_seeds [--seeds N] [--first S] [--store DIR] [--out PATH]
The same command resumes a stopped benchmark if it is given the same store.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.harness import ROOT, machine, refit, write_json
from orchestrator.config.load import load_config

CONTROLS = ("random", "random_same_label")
COLUMNS = ("diff", "ci_low", "ci_high", "p", "p_holm")
LEVEL = 0.05


def run(config: Path, store: Path, seed: int) -> dict:
    """Run or resume the campaign under one base seed; return its contrasts with the controls."""
    output = store / str(seed)
    overrides = [f"output={output}", f"repeats.base_seed={seed}", "tracking=null"]
    refit("run", config, "--yes", *(part for override in overrides for part in ("--set", override)), timeout=3600)
    table = pd.read_csv(next(output.glob("*/results/contrasts.csv")))
    rows = table[table.baseline.isin(CONTROLS) & ~table.method.isin(CONTROLS)]
    contrasts = [
        {key: row[key] for key in ("method", "baseline", "group")} | {key: float(row[key]) for key in COLUMNS}
        for row in rows.to_dict("records")
    ]
    found = {"base_seed": seed, "contrasts": contrasts}
    print(seed, told_apart(found, "random"), told_apart(found, "random_same_label"), flush=True)
    return found


def told_apart(found: dict, control: str) -> list[str]:
    """Return the method and group of every contrast with `control` whose Holm p is below LEVEL."""
    rows = [row for row in found["contrasts"] if row["baseline"] == control and row["p_holm"] < LEVEL]
    return [f"{row['method']} {row['group']}" for row in rows]


def markdown(runs: list[dict], control: str) -> str:
    """Return the contrasts with one control: a row per base seed, difference and Holm p, in bold if p is below LEVEL."""
    keys = [(row["method"], row["group"]) for row in runs[0]["contrasts"] if row["baseline"] == control]
    lines = [
        "| base seed | " + " | ".join(f"{method}, {group}" for method, group in keys) + " |",
        "| --- |" + " --- |" * len(keys),
    ]
    counts = dict.fromkeys(keys, 0)
    for found in runs:
        rows = [row for row in found["contrasts"] if row["baseline"] == control]
        lines.append(f"| {found['base_seed']} | " + " | ".join(map(_cell, rows)) + " |")
        for row in rows:
            counts[row["method"], row["group"]] += row["p_holm"] < LEVEL
    lines.append("| told apart | " + " | ".join(f"{count} of {len(runs)}" for count in counts.values()) + " |")
    return "\n".join(lines)


def _cell(row: dict) -> str:
    text = f"{row['diff']:+.3f} (p {row['p_holm']:.2g})"
    return f"**{text}**" if row["p_holm"] < LEVEL else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "runs/quickstart-seeds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/quickstart_seeds.json")
    options = parser.parse_args()
    own = load_config(options.config).settings.repeats.base_seed
    seeds = [seed for seed in range(options.first, options.first + options.seeds + 1) if seed != own]
    runs = [run(options.config, options.store.resolve(), seed) for seed in seeds[: options.seeds]]
    summary = {control: sum(bool(told_apart(found, control)) for found in runs) for control in CONTROLS}
    write_json(
        options.out,
        {
            "config": options.config.name,
            "seeds": len(runs),
            "some_method_told_apart_from": summary,
            "runs": runs,
            "machine": machine(),
        },
    )
    for control in CONTROLS:
        print(f"Against {control}:\n\n{markdown(runs, control)}\n")
    print(summary)


if __name__ == "__main__":
    main()
