"""The speed-up of a stack of leave-one-out retrains over as many trainings, and the difference of their outputs.

The paper's mixture of Gaussians (150 points, 228 parameters), both objectives, three protocols; CPU seconds of one
thread; medians of rounds that alternate. Also the published protocol with one leaked Adam: 22,500 fits one after the
other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest

SEED = 1
PROTOCOLS = {
    "2 Adam steps": {"steps": 2},
    "2 SGD steps, lr 0.1": {"steps": 2, "optimizer": "sgd", "learning_rate": 0.1},
    "300 Adam steps": {"steps": 300},
    "300 Adam steps, float64": {"steps": 300, "dtype": "float64"},
}


def opened(recipe: dict):
    """Return the paper's task under a recipe."""
    options = {"name": "gaussians", "model": {"name": "dec"}, "recipe": recipe}
    return parse_named(TASKS, options, "benchmark", "task").open(OpenRequest(Path()))


def as_stack(task) -> dict[str, np.ndarray]:
    """Return outputs of all leave-one-out retrains, measured split -> [150, n_rows, 3]."""
    edit = Edit.each_left_out(task.splits["train"].ids)
    return task.recipe.train_each(task, Training(edit=edit, seed=SEED, numerics=Numerics())).outputs


def one_by_one(task) -> dict[str, np.ndarray]:
    """Return the same outputs from as many single trainings."""
    found: dict[str, list[np.ndarray]] = {split: [] for split in task.measured}
    for train_id in task.splits["train"].ids:
        edit = Edit.removal([train_id])
        trained = task.recipe.train(task, Training(edit=edit, seed=SEED, numerics=Numerics()))
        for split, rows in task.measured.items():
            found[split].append(task.outputs(trained.network, split, rows))
    return {split: np.stack(parts) for split, parts in found.items()}


def timed(work: Callable[[], dict[str, np.ndarray]]) -> tuple[float, dict[str, np.ndarray]]:
    """Return CPU seconds of this process, which runs one thread, and the result; other load on the machine changes them less."""
    begun = time.process_time()
    outputs = work()
    return time.process_time() - begun, outputs


def compare(task, rounds: int) -> dict:
    """Return median seconds of both methods, and the largest difference of their outputs in nats."""
    seconds: dict[str, list[float]] = {"stack": [], "singles": []}
    differences = []
    as_stack(task)  # the first call also imports and allocates
    for _ in range(rounds):
        (stack_s, stacked), (singles_s, singles) = timed(lambda: as_stack(task)), timed(lambda: one_by_one(task))
        seconds["stack"].append(stack_s)
        seconds["singles"].append(singles_s)
        differences.append(max(float(abs(stacked[split] - singles[split]).max()) for split in stacked))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [singles / stack for stack, singles in zip(seconds["stack"], seconds["singles"], strict=True)]
    return {
        "stack_s": medians["stack"],
        "singles_s": medians["singles"],
        "speedup": statistics.median(ratios),
        "speedups": ratios,
        "largest_difference": max(differences),
    }


def leaked(rounds: int) -> dict:
    """Return median seconds of the published protocol."""
    task = opened({"name": "loo_leaked", "objective": "nll"})
    n_fits = len(task.splits["train"]) ** 2
    return {"fits": n_fits, "seconds": statistics.median(timed(lambda: as_stack(task))[0] for _ in range(rounds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/stacked_loo.json")
    options = parser.parse_args()
    found = []
    for name, protocol in PROTOCOLS.items():
        rounds = options.rounds if protocol["steps"] < 300 else max(3, options.rounds // 2)
        for objective in ("dec", "nll"):
            task = opened({"name": "dec", "objective": objective, **protocol})
            found.append({"protocol": name, "objective": objective, "rounds": rounds, **compare(task, rounds)})
            print(found[-1], flush=True)
    result = {
        "retrains": 150,
        "clock": "CPU seconds, one thread",
        "protocols": found,
        "leaked_adam": leaked(3),
        "machine": machine(),
    }
    print(result["leaked_adam"])
    write_json(options.out, result)


if __name__ == "__main__":
    main()
