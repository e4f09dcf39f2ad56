"""A real task that trains in milliseconds: logistic regression on Gaussian features. It can be pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestrator.records import RetrainSpec, Work
from orchestrator.runtime.backend import WorkerContext
from tasks.base import Numerics, Split
from tasks.data.edits import Edit
from tasks.recipe import KeepCheckpoint, Recipe, Trained, Training
from tasks.seeds import generator, torch_generator
from tasks.task import Task


class TinyRecipe(Recipe):
    """Stochastic gradient descent, one example per step."""

    name: ClassVar[str] = "tiny"

    epochs: int = 2
    learning_rate: float = 0.1

    def last_epoch(self) -> float:
        return self.epochs

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        return round(n_train * epoch)

    def learning_rate_at(self, n_train: int, step: int) -> float:
        return self.learning_rate

    def train(self, task: Task, training: Training) -> Trained:
        import torch

        seed, keep, keep_steps = training.seed, training.keep, training.keep_steps
        network = task.network(seed)
        weights = training.edit.weights_of(task.splits["train"].ids)
        optimizer = torch.optim.SGD(network.parameters(), lr=self.learning_rate)
        order = np.concatenate([generator(seed, "order", e).permutation(len(weights)) for e in range(self.epochs)])
        total = 0.0
        for step, row in enumerate(order, 1):
            loss = task.losses(network, task.batch("train", np.array([row])))[0] * float(weights[row])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            if keep and step in keep_steps:
                keep(step, network)
        return Trained(network, {"train_loss": total / len(order)}, diverged=not np.isfinite(total))


@dataclass
class TinyTask(Task):
    """Two Gaussian classes in three dimensions; outputs on all of test are recorded."""

    n_train: int = 12
    n_test: int = 5
    recipe: TinyRecipe = field(default_factory=TinyRecipe)
    model: str = "logistic"
    splits: Mapping[str, Split] = field(init=False)
    measured: Mapping[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.splits = {"train": self._split("train", self.n_train), "test": self._split("test", self.n_test)}
        self.measured = {"test": np.arange(self.n_test)}

    def _split(self, name: str, n: int) -> Split:
        labels = np.arange(n) % 2
        features = generator(0, name).normal(size=(n, 3)) + labels[:, None]
        return Split(np.arange(n) + 100, labels, ("no", "yes"), features=features.astype(np.float32))

    def train_identity(self) -> dict[str, Any]:
        return {"train": self.splits["train"].content_digest()}

    def model_identity(self) -> dict[str, Any]:
        return {"name": self.model}

    def record_identity(self) -> dict[str, Any]:
        return {"test": self.splits["test"].content_digest()}

    def network(self, seed: int) -> Any:
        import torch

        network = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(generator=torch_generator(seed, "init"))
        return network

    def batch(self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: Any = "cpu") -> Any:
        import torch

        data = self.splits[split]
        assert data.features is not None
        return {"x": torch.from_numpy(data.features[rows]), "labels": torch.from_numpy(data.labels[rows])}

    def logits(self, network: Any, batch: Any) -> Any:
        return network(batch["x"])

    def losses(self, network: Any, batch: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(self.logits(network, batch), batch["labels"], reduction="none")

    def outputs(self, network: Any, split: str, rows: np.ndarray, *, device: Any = "cpu") -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.logits(network, self.batch(split, rows, device=device)).numpy()


class CheckpointFolder:
    """A checkpoint sink: one npz of parameters per spec and step."""

    def __init__(self, folder: Path):
        self.folder = folder

    def keeper(self, spec_id: str) -> KeepCheckpoint:
        def keep(step: int, network: Any) -> None:
            state = {name: value.numpy() for name, value in network.state_dict().items()}
            np.savez(self.folder / f"{spec_id}-{step}.npz", **state)

        return keep


def tiny_work(seed: int = 0, removed: Sequence[int] = (), keep_steps: tuple[int, ...] = ()) -> Work:
    """Return one retrain of a TinyTask."""
    edit = Edit.removal(removed)
    return Work(RetrainSpec("tiny", "logistic", "tiny", edit.identity(), seed, {}), edit, keep_steps)


def tiny_works(n: int) -> dict[str, Work]:
    """Return n different retrains by spec id, in dispatch order."""
    works = [tiny_work(seed, removed) for seed in range(n) for removed in ((), (100,), (101, 102))]
    return {work.spec_id: work for work in works[:n]}


def make_context(**options: Any) -> WorkerContext:
    """Return a worker context of a TinyTask on the CPU."""
    return WorkerContext(TinyTask(), Numerics(), **options)
