"""Hessian-vector products per second of LiSSA, Refit against pyDVL 0.10.0, on the convolutional text classifier.

Random texts of 5,000 words, 16 queries, batches of 64 rows padded to 32 tokens, on the weights of convolutions and
linear layer (the embedding is constant) and on all weights. Both sides get the same weights and rows, and start from a
process of their own in alternating rounds. Before that the products of both sides are compared with two calls of
torch.autograd.grad. A second is a second of processor time of the whole process (two threads that sleep while they
wait), and a product is one batch Hessian times one vector; query gradients count as time and not as products. Refit's
residual check is off, because pyDVL has none. `load` is the load average of the machine before a round.

pyDVL needs an environment of its own: pip install torch==2.13.0 "pydvl[influence]==0.10.0".
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.curvature_case import (
    BATCH_SIZE,
    DEPTH,
    N_QUERIES,
    SCALE,
    THREADS,
    PlainCNN,
    chosen,
    double_backward,
    load,
    processor_seconds,
    state_of,
)
from benchmarks.harness import ROOT, machine, write_json
from influence.checkpoint import Checkpoint, QueryBlock
from influence.curvature import Curvature
from influence.gradients import loaded
from influence.inverse_hessian import in_float64, solve_queries
from influence.methods.influence_function import InfluenceFunction
from influence.parameters import Selection
from influence.solvers import LiSSA
from tasks.components import parse_named
from tasks.registry import TASKS
from tasks.task import OpenRequest, Task

N_TRAIN, N_WORDS, LENGTH, EMBEDDING_DIM, N_CLASSES = 2000, 5000, 32, 64, 4
KINDS = ("conv_and_linear", "all")


def opened(folder: Path) -> Task:
    """Write random texts to `folder`, if there are none, and return the prepared task."""
    rng, columns = np.random.default_rng(0), {"format": "csv", "text": ["text"], "label": "label"}
    sizes = {"train": N_TRAIN, "test": N_QUERIES}
    for split, n in sizes.items():
        with (folder / f"{split}.csv").open("w") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(n):
                n_words = LENGTH - 2 if row % 8 == 0 else rng.integers(LENGTH // 2, LENGTH - 1)
                words = " ".join(f"w{word}" for word in rng.integers(0, N_WORDS, n_words))
                writer.writerow([words, f"c{rng.integers(0, N_CLASSES)}"])
    options = {
        "name": "text_classification",
        "data": {split: {"path": str(folder / f"{split}.csv"), **columns} for split in sizes},
        "model": {"name": "text_cnn", "embedding_dim": EMBEDDING_DIM},
        "recipe": {"name": "finetune", "epochs": 1, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3},
        "measure": [{"split": "test"}],
    }
    task = parse_named(TASKS, options, "benchmark", "task").open(OpenRequest(Path()))
    task.prepare()
    return task


def weights(task: Task) -> Checkpoint:
    """Return the initial weights of seed 0."""
    state = {name: value.detach().numpy() for name, value in task.network(0).named_parameters()}
    return Checkpoint("benchmark", 1, 1.0, 1.0, state)


def write_case(task: Task, path: Path, everything: bool) -> None:
    """Write weights, token ids, labels and vectors for the side of pyDVL."""
    state, arrays = weights(task).state, {}
    for name, split in (("train", "train"), ("query", "test")):
        batch = task.batch(split, np.arange(len(task.splits[split])))
        arrays |= {f"{name}_ids": batch["input_ids"].numpy(), f"{name}_labels": batch["labels"].numpy()}
        if not torch.equal(batch["attention_mask"], batch["input_ids"] != 0):
            raise AssertionError("token 0 is not the padding")
    size = sum(state[name].size for name in chosen(list(state), everything))
    arrays["vectors"] = np.random.default_rng(1).standard_normal((N_QUERIES, size), np.float32)
    np.savez(path, **arrays, **{f"state/{name}": value for name, value in state.items()})


def refit_side(task: Task, everything: bool) -> dict[str, Any]:
    """Return the seconds of one solve for all queries, and of one for a single query."""
    torch.set_num_threads(THREADS)
    split = task.splits["test"]

    def solve(steps: int, n: int = N_QUERIES) -> None:
        solver = LiSSA(damping=0.0, scale=SCALE, depth=steps, batch_size=BATCH_SIZE, check_residual=False)
        method = InfluenceFunction(parameters="all" if everything else ("conv*", "linear*"), solver=solver)
        rows = np.arange(n)
        queries = QueryBlock("test", split.ids[rows], rows, split.labels[rows])
        solve_queries(method.solve_options(), task, [(weights(task), 1.0)], queries)

    solve(2)
    seconds = processor_seconds(lambda: solve(DEPTH))
    return {
        **seconds,
        "hvps": N_QUERIES * DEPTH,
        "one_query_cpu_s": processor_seconds(lambda: solve(DEPTH, 1))["cpu_s"],
    }


def largest_differences(
    task: Task, case: dict[str, np.ndarray], theirs: np.ndarray, everything: bool
) -> dict[str, float]:
    """Return the largest difference of each side from double backward in float64, relative to the largest product."""
    names = chosen([name for name, _ in task.network(0).named_parameters()], everything)
    vectors, rows = torch.from_numpy(case["vectors"]), np.arange(BATCH_SIZE)
    ids, labels = torch.from_numpy(case["train_ids"][rows]), torch.from_numpy(case["train_labels"][rows])
    plain = PlainCNN(state_of(case)).double().eval()
    expected = double_backward(plain, names, ids, labels, vectors.double())
    found = {"pydvl_float32": torch.from_numpy(theirs)}
    for name, made, network in (
        ("refit_float32", task, task.network(0)),
        ("refit_float64", in_float64(task), task.network(0).double()),
    ):
        selection = Selection(loaded(network, weights(task)), dict.fromkeys(names))
        found[name] = Curvature(made, selection).products(vectors.to(selection.values), rows)
    largest = expected.abs().max()
    differences = {name: float((value.double() - expected).abs().max() / largest) for name, value in found.items()}
    if differences["refit_float64"] > 1e-10 or max(differences.values()) > 1e-5:
        raise AssertionError(f"products differ from double backward: {differences}")
    return differences


def measured(task: Task, folder: Path, python: str, rounds: int, everything: bool) -> dict[str, Any]:
    """Return the seconds of both sides in alternating rounds, and the ratio of their medians."""
    kind, case, out = "all" if everything else "conv_and_linear", folder / "case.npz", folder / "out.json"
    write_case(task, case, everything)
    flag = ["--everything"] if everything else []
    pydvl = [python, "-W", "ignore", str(ROOT / "benchmarks" / "curvature_pydvl.py"), str(case), str(out)]
    commands = {
        "pydvl": [*pydvl, *flag],
        "refit": [sys.executable, "-m", "benchmarks.curvature", "--side", str(folder), "--out", str(out), *flag],
    }
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    found: dict[str, list[dict[str, Any]]] = {"pydvl": [], "refit": []}
    for _ in range(rounds):
        for side, command in commands.items():
            before = os.getloadavg()[0]
            subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.DEVNULL)
            found[side].append({**json.loads(out.read_text()), "load": before})
            print(kind, side, found[side][-1], flush=True)
    speeds = {side: float(np.median([r["hvps"] / r["cpu_s"] for r in all_])) for side, all_ in found.items()}
    ratio = float(np.median([r["cpu_s"] / r["one_query_cpu_s"] for r in found["refit"]]))
    with np.load(out.with_suffix(".npz")) as products:
        differences = largest_differences(task, load(case), products["products"], everything)
    return {
        "hvps_per_cpu_s": speeds,
        "ratio": speeds["refit"] / speeds["pydvl"],
        "sixteen_queries_over_one": ratio,
        "differences_from_double_backward": differences,
        "rounds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pydvl-python", default=sys.executable, help="the python of pyDVL's environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "curvature.json")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--everything", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        arguments.out.write_text(json.dumps(refit_side(opened(arguments.side), arguments.everything)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = opened(folder)
        sizes = {"train": N_TRAIN, "words": N_WORDS, "length": LENGTH, "embedding_dim": EMBEDDING_DIM}
        found: dict[str, Any] = {
            "machine": machine(),
            "case": {**sizes, "queries": N_QUERIES, "depth": DEPTH, "batch_size": BATCH_SIZE, "threads": THREADS},
        }
        for kind in KINDS if arguments.only is None else (arguments.only,):
            found[kind] = measured(task, folder, arguments.pydvl_python, arguments.rounds, kind == "all")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
