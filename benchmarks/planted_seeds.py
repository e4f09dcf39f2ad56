"""How often a false method looks right: the planted campaign under several base seeds, oracle and shuffled scores against random.

It counts the base seeds whose 95% interval of the contrast with `random` excludes zero, for queries of this kind.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from benchmarks.harness import ROOT, machine, refit, write_json

METHODS = (
    "[{name: scores_file, path: 'planted:oracle', axes: query_train, orientation: helpful_positive, as: oracle}, "
    "{name: scores_file, path: 'planted:shuffled-%d', axes: query_train, orientation: helpful_positive, as: shuffled_oracle}, {name: random}]"
)


def contrasts(config: Path, folder: Path, seed: int) -> dict:
    """Return difference and interval of both methods against random, under one base seed."""
    overrides = (
        f"output={folder / str(seed)}",
        f"repeats.base_seed={seed}",
        f"methods={METHODS % seed}",
        "tracking=null",
    )
    refit(
        "run", config, "--yes", "--address", "local", *(part for override in overrides for part in ("--set", override))
    )
    table = pd.read_csv(next((folder / str(seed)).glob("*/results/contrasts.csv")))
    rows = table[table.baseline == "random"].set_index("method")
    found: dict = {"base_seed": seed}
    for method in ("oracle", "shuffled_oracle"):
        row = rows.loc[method]
        found[method] = {
            "diff": row["diff"],
            "ci": [row.ci_low, row.ci_high],
            "excludes_zero": bool(row.ci_low > 0 or row.ci_high < 0),
        }
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/planted.yaml")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/planted_seeds.json")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    with tempfile.TemporaryDirectory(prefix="refit-planted-") as folder, ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(lambda seed: contrasts(options.config, Path(folder), seed), seeds))
    counts = {method: sum(f[method]["excludes_zero"] for f in found) for method in ("oracle", "shuffled_oracle")}
    write_json(
        options.out,
        {
            "config": options.config.name,
            "seeds": len(found),
            "excludes_zero": counts,
            "runs": found,
            "machine": machine(),
        },
    )
    print(counts)


if __name__ == "__main__":
    main()
