"""Compares a campaign that is killed several times at random moments and then finished with an undisturbed run of the same campaign.

It passes if all tables are byte-identical and at most the retrains in flight at each kill were repeated.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import ROOT, kill, ledger_rows, machine, parts, refit, start, tables, wait_until, write_json


def killed_run(config: Path, output: Path, kills: int, workers: int, rng: random.Random, log: Path) -> list[dict]:
    """Start the campaign and kill it, `kills` times, then run it to the end; return what was in the ledger at each kill."""
    history = []
    for number in range(kills):
        before = len(parts(output))
        process = start(
            "run",
            config,
            "--yes",
            "--set",
            f"output={output}",
            "--set",
            f"compute.workers={workers}",
            "--set",
            "tracking=null",
            log=log,
        )
        alive = wait_until(lambda before=before: len(parts(output)) > before, 300, process)
        if alive and process.poll() is None:
            time.sleep(rng.uniform(0.0, 12.0))
        killed = process.poll() is None
        if killed:
            kill(process.pid)
        process.wait()
        history.append(
            {
                "kill": number + 1,
                "killed": killed,
                "finished_then": len({row["spec_id"] for row in ledger_rows(output)}),
            }
        )
        print(history[-1], flush=True)
    return history


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs/quickstart.yaml")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refit-faults-") as folder:
        outcome = compare(options, Path(folder))
    if options.out:
        write_json(options.out, outcome)
    print(outcome)
    return 0 if outcome["identical_tables"] and outcome["repeated"] <= outcome["repeated_at_most"] else 1


def compare(options: argparse.Namespace, folder: Path) -> dict:
    """Run the campaign with and without kills, and compare the two."""
    faulted, quiet = folder / "faulted", folder / "quiet"
    history = killed_run(
        options.config, faulted, options.kills, options.workers, random.Random(options.seed), folder / "log"
    )
    common = ("--yes", "--set", f"compute.workers={options.workers}", "--set", "tracking=null")
    refit("run", options.config, *common, "--set", f"output={faulted}", timeout=1800)
    refit("run", options.config, *common, "--set", f"output={quiet}", timeout=1800)
    rows = ledger_rows(faulted)
    distinct = {row["spec_id"] for row in rows}
    started = sum(row["attempts"] for row in rows)
    one, other = tables(faulted), tables(quiet)
    kills = sum(entry["killed"] for entry in history)
    return {
        "config": options.config.name,
        "kills": kills,
        "workers": options.workers,
        "history": history,
        "tables": sorted(one),
        "identical_tables": one == other,
        "retrains": len(distinct),
        "rows_in_ledger": len(rows),
        "attempts_in_ledger": started,
        "repeated": len(rows) - len(distinct),
        "repeated_at_most": kills * options.workers,
        "machine": machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
