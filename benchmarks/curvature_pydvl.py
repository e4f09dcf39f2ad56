"""The side of pyDVL in benchmarks/curvature.py; it runs in an environment of its own, with pyDVL, torch and numpy."""

from __future__ import annotations

import argparse
import json
import logging
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from curvature_case import BATCH_SIZE, DEPTH, SCALE, THREADS, PlainCNN, chosen, load, processor_seconds, state_of
from pydvl.influence.torch import LissaInfluence
from pydvl.influence.torch.batch_operation import HessianBatchOperation, TorchBatch
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--everything", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)  # the recursion is meant to take all of its steps
    case = load(arguments.case)
    network = PlainCNN(state_of(case)).eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen([name], arguments.everything))
    ids, labels, asked, asked_labels = (
        torch.from_numpy(case[name]) for name in ("train_ids", "train_labels", "query_ids", "query_labels")
    )
    loss = torch.nn.functional.cross_entropy
    products = HessianBatchOperation(network, loss).apply(
        TorchBatch(ids[:BATCH_SIZE], labels[:BATCH_SIZE]), torch.from_numpy(case["vectors"])
    )
    loader = DataLoader(TensorDataset(ids, labels), batch_size=BATCH_SIZE)

    def solve(depth: int) -> torch.Tensor:
        lissa = LissaInfluence(network, loss, maxiter=depth, scale=SCALE, rtol=1e-30)
        return lissa.fit(loader).influence_factors(asked, asked_labels)

    solve(2)
    seconds = processor_seconds(lambda: solve(DEPTH))
    np.savez(arguments.out.with_suffix(".npz"), products=products.numpy())
    versions = {name: metadata.version(name) for name in ("pydvl", "torch", "numpy")}
    arguments.out.write_text(json.dumps({**seconds, "hvps": len(asked) * DEPTH, "versions": versions}))


if __name__ == "__main__":
    main()
