"""Planning a million cells: CPU time by stage and peak memory, in a process of its own.

Ten methods, two groups, five k, a thousand queries and ten repeats; two methods agree and one is the control `random`,
so that about 800,000 of the 1,000,000 cells are distinct retrains. Scores are drawn at random; ranking them is part of
the plan.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.harness import ROOT, machine, write_json
from influence.controls import permutation_order
from influence.ranking import ranked
from orchestrator.api import load_config, open_pipeline
from orchestrator.campaigns.deletion.campaign import fixed_plan
from orchestrator.campaigns.deletion.grid import DeletionGrid
from orchestrator.campaigns.plan import Plan, waves
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.tables import write_plan
from tasks.seeds import generator, repeat_seed

Result = TypeVar("Result")
N_METHODS, GROUPS, KS, REPEATS = 10, ("proponents", "opponents"), (10, 20, 30, 40, 50), 10


class Stages:
    """CPU seconds of this process by stage, and its peak memory after each."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}

    def run(self, name: str, stage: Callable[[], Result]) -> Result:
        """Run and time one stage."""
        begun = time.process_time()
        result = stage()
        self.cpu_s[name] = time.process_time() - begun
        self.peak_mb[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        return result


def planned(n_queries: int, n_train: int, folder: Path) -> Plan:
    """Return the plan of a campaign on the planted task's specs."""
    pipeline = open_pipeline(load_config(ROOT / "configs/planted.yaml", [f"output={folder}"]), address="local")
    experiment, numerics = pipeline.experiment, pipeline.numerics
    train_ids = np.arange(n_train)
    twins = {f"method_{N_METHODS - 2}": "method_0"}  # equal scores give equal sets, which are trained once

    def ranking(label: str, query: int, group: str) -> np.ndarray:
        scores = generator(0, twins.get(label, label), query).normal(size=n_train).astype(np.float32)
        return ranked(scores, train_ids, group)  # type: ignore[arg-type]

    grid = DeletionGrid(
        methods={f"method_{i}": False for i in range(N_METHODS - 1)} | {"random": True},
        groups=GROUPS,
        ks=KS,
        query_ids=range(n_queries),
        draw_keys=np.zeros(n_queries, np.int64),
        seeds=[repeat_seed(2021, repeat) for repeat in range(REPEATS)],
        ranking=ranking,
        draw=lambda _, __, group, seed: permutation_order(train_ids, seed, group),  # type: ignore[arg-type]
        spec=lambda edit, seed: experiment.spec(numerics, edit, seed),
        mode="mask",
    )
    return fixed_plan(grid)


def measure(n_queries: int, n_train: int) -> dict:
    """Measure the plan, ids, columns, plan.parquet, and the work of the retrain stage before its first submit."""
    stages = Stages()
    with tempfile.TemporaryDirectory(prefix="refit-bench-") as folder:
        plan = stages.run("plan", lambda: planned(n_queries, n_train, Path(folder)))
        stages.run("spec ids", lambda: [work.spec_id for work in plan.works])
        columns = stages.run("columns", plan.columns)
        path = Path(folder) / "plan.parquet"
        stages.run("write", lambda: write_plan(path, columns))
        size = path.stat().st_size
    planning_s, peak_mb = sum(stages.cpu_s.values()), stages.peak_mb["write"]
    stages.run("waves", lambda: waves(plan.works))
    stages.run("scheduler", lambda: Scheduler([work.spec_id for work in plan.works]))
    return {
        "cells": plan.n_requested,
        "distinct": len(plan.works),
        "n_train": n_train,
        "planning_cpu_s": planning_s,
        "planning_peak_mb": peak_mb,
        "cpu_s": stages.cpu_s,
        "peak_mb": stages.peak_mb,
        "plan_parquet_mb": size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/planning.json")
    options = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(measure, options.queries, options.train).result()
    print(
        f"{result['cells']} cells, {result['distinct']} distinct: {result['planning_cpu_s']:.1f} s CPU, {result['planning_peak_mb']:.0f} MB"
    )
    write_json(options.out, {**result, "machine": machine()})


if __name__ == "__main__":
    main()
