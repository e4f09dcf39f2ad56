"""The real scheduler over a fleet in virtual time: how busy the workers are, and what a retrain costs the driver.

utilisation = useful time / worker time. Useful time is the length of every retrain, once, from the attempt whose result
counted; it excludes what an attempt took beyond that (a slow machine), repeated, lost and crashed attempts, and
waiting. Worker time is the time from joining to leaving, of every worker, until the last one ends; it includes the
tail, when there are fewer retrains than workers. Two more figures are given: the utilisation until the last waiting
retrain was submitted, and that of whole machines from the moment they are requested, boot time included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from benchmarks.virtual_fleet import Fleet
from benchmarks.virtual_parts import Conditions, Faults
from orchestrator.records import RetrainSpec, Work
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.story_file import StoryFile
from tasks.base import Numerics
from tasks.data.edits import Edit

N_TRAIN, K, SEEDS = 120_000, 50, 10
MODEL = {"name": "text_cnn", "version": 1, "digest": "0" * 32, "embedding_dim": 128, "filters": 10, "widths": [3, 4, 5]}
RECIPE = {"name": "finetune", "version": 1, "epochs": 5, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3}
NUMERICS = Numerics("cuda", "NVIDIA A10G", torch="2.8.0").identity()


def works_of(n: int, seed: int) -> dict[str, Work]:
    """Return `n` removals of `K` examples under `SEEDS` seeds each, as a campaign plans them: all seeds share an edit."""
    generator = np.random.default_rng(seed)
    first = RetrainSpec("0" * 32, MODEL, RECIPE, Edit().identity(), 0, NUMERICS)
    works: dict[str, Work] = {}
    while len(works) < n:
        edit = Edit.removal(generator.choice(N_TRAIN, K, replace=False))
        for repeat in range(min(SEEDS, n - len(works))):
            spec = first.sibling(edit.identity(), repeat)
            works[spec.spec_id] = Work(spec, edit)
    return works


def simulate(conditions: Conditions) -> dict:
    """Simulate one campaign from the first request for a machine to Finish."""
    before = resident_bytes()
    works = works_of(conditions.retrains, conditions.seed)
    with_works = resident_bytes()
    scheduler = Scheduler(list(works))
    with_scheduler = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        story = StoryFile(Path(folder) / "story.jsonl")
        fleet, begun = Fleet(conditions, works, scheduler, story.append), time.process_time()
        fleet.run()
        fleet.counts["story bytes"] = story.path.stat().st_size
    return {
        "conditions": asdict(conditions),
        "utilisation": utilisation(fleet),
        "worker_hours": {kind: seconds / 3600 for kind, seconds in sorted(fleet.seconds.items())},
        "virtual_hours": fleet.now_s / 3600,
        "retrains_per_s": conditions.retrains / fleet.now_s,
        "counts": dict(fleet.counts),
        "failures": dict(scheduler.failures),
        "rows_per_part": conditions.retrains / fleet.counts["parts"],
        "driver_cpu_ms_per_retrain": driver_cost(fleet),
        "memory_mb": {
            "works": (with_works - before) / 1e6,
            "scheduler": (with_scheduler - with_works) / 1e6,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        },
        "simulation_cpu_s": time.process_time() - begun,
    }


def utilisation(fleet: Fleet) -> dict[str, float]:
    """Return useful time over worker time: to the end, before the tail, and over machines with their boot time."""
    tail, useful = fleet.at_tail, fleet.seconds["useful"]
    return {
        "whole": useful / fleet.seconds["provisioned"],
        "before_tail": tail["useful_s"] / tail["provisioned_s"],
        "of_machines_with_boot": useful / fleet.seconds["billed"],
        "tail_s": fleet.now_s - tail["at_s"],
    }


def driver_cost(fleet: Fleet) -> dict[str, float]:
    """Return CPU of Scheduler.handle (ticks included), of rows and parquet encoding, and of story.jsonl.

    Each is the median over chunks of 2% of the retrains.
    """
    scheduling, encoding, story = (1e3 * seconds for seconds in fleet.cpu.medians())
    return {"scheduling": scheduling, "encoding": encoding, "story": story, "all": scheduling + encoding + story}


def resident_bytes() -> int:
    """Return the present resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def apart(conditions: Conditions) -> dict:
    """Run `simulate` in a separate process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        result = pool.submit(simulate, conditions).result()
    print(summary(result), flush=True)
    return result


def summary(result: dict) -> str:
    """Summarise the result in one line for people."""
    conditions, share, cost = result["conditions"], result["utilisation"], result["driver_cpu_ms_per_retrain"]
    return (
        f"{'faults' if conditions['faults'] else 'quiet'}, median {conditions['median_s']:g} s: "
        f"utilisation {share['whole']:.4f} (before the tail {share['before_tail']:.4f}, machines {share['of_machines_with_boot']:.4f}), "
        f"{cost['scheduling']:.4f} + {cost['encoding']:.4f} + {cost['story']:.4f} ms, {result['rows_per_part']:.1f} rows per part, "
        f"{result['memory_mb']['peak']:.0f} MB"
    )


def sweep(base: Conditions) -> list[dict]:
    """Simulate ever shorter retrains until the driver is the limit, more preemptions, and few workers requested at a time."""
    small = replace(base, retrains=min(base.retrains, 100 * base.workers))
    shorter = [replace(small, median_s=median_s) for median_s in (1.0, 2.0, 10.0, 60.0)]
    harsher = [replace(small, faults=Faults(between_preemptions_s=s)) for s in (60.0, 20.0)]
    slower = [replace(small, pending_workers=16)]
    return [apart(conditions) for conditions in (*shorter, *harsher, *slower)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=Conditions.workers)
    parser.add_argument("--retrains", type=int, default=Conditions.retrains)
    parser.add_argument("--median-s", type=float, default=Conditions.median_s, help="median length of a retrain")
    parser.add_argument(
        "--sigma", type=float, default=Conditions.sigma, help="standard deviation of the logarithm of the length"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", choices=("none", "usual", "both"), default="both")
    parser.add_argument("--sweep", action="store_true", help="other lengths and fault rates too, with fewer retrains")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/simulate.json")
    options = parser.parse_args()
    base = Conditions(options.workers, options.retrains, options.median_s, options.sigma, options.seed)
    asked = {"none": [None], "usual": [Faults()], "both": [None, Faults()]}[options.faults]
    results = {"campaigns": [apart(replace(base, faults=faults)) for faults in asked]}
    if options.sweep:
        results["sweep"] = sweep(base)
    write_json(options.out, {**results, "machine": machine()})


if __name__ == "__main__":
    main()
