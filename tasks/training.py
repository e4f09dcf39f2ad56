"""Functions and classes that several recipes use.

They set up the process so that equal trainings give equal bits, make the batches of an edited train set, compute weighted
gradients, keep checkpoints, call observers and offer snapshots.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tasks.base import Batch, Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError
from tasks.length_groups import batch_parts, check_length_groups
from tasks.memory import keep_freed_memory
from tasks.observer import Observer
from tasks.recipe import KeepCheckpoint, Recipe, Snapshots, Training
from tasks.resuming import Resumable, resume, take
from tasks.seeds import generator
from tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

DTYPES = ("float32", "float64")
LossesOf = Callable[["nn.Module", Batch, np.ndarray], "Tensor"]


def deterministic(numerics: Numerics) -> None:
    """Make this process return the same bits for the same arguments.

    This fixes the number of threads, and selects deterministic kernels and matrix products in full float32 precision.
    It also lets the process keep freed memory, which changes no bit (tasks.memory).

    Call it before the first CUDA operation, in the thread that trains. Raises ValueError on numerics that recipes do
    not support.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if numerics.dtype not in DTYPES:
        raise ValueError(f"dtype {numerics.dtype!r} is not supported; allowed: {', '.join(DTYPES)}")
    if numerics.compile:
        raise ValueError("compiled training is not supported; compile must be false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_freed_memory()
    torch.set_num_threads(numerics.threads)
    # The order in which numpy's products and decompositions sum depends on the number of threads of its BLAS library,
    # which is set separately: without this a Ray actor would use one thread and this process all cores.
    threadpool_limits(limits=numerics.threads, user_api="blas")
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) would also import the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.mkldnn.enabled = True  # pyright: ignore[reportAttributeAccessIssue]
    # Decayed Adam moments become denormal after some 850 updates, which makes updates 5 to 20 times slower. The flag is
    # per thread and inherited at thread start, so with a pool of threads the bits would depend on the history of the
    # process.
    torch.set_flush_denormal(numerics.threads == 1)


def check_micro_batch(recipe: Recipe | type[Recipe], micro_batch: int, where: str = "compute.micro_batch") -> None:
    """Raise InputError if `micro_batch` is set for a recipe that cannot split a batch (`whole_batches`). Uses no torch."""
    if micro_batch and recipe.whole_batches:
        raise InputError(where, f"{micro_batch}: recipe {recipe.name!r} cannot split its batches; allowed: 0")


def check_whole_batches(recipe: Recipe, numerics: Numerics) -> None:
    """Raise InputError if the numerics split batches and the recipe cannot (`whole_batches`). Uses no torch."""
    check_micro_batch(recipe, numerics.micro_batch)
    check_length_groups(recipe, None, numerics.length_group_cost)


def n_batches(n_examples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch; the last may be smaller."""
    return -(-n_examples // batch_size)


@dataclass(frozen=True)
class EditedTrainSet:
    """The train set after an edit (see tasks.data.edits.Edit).

    `kept`: whether a row has a slot, that is a place in one batch of every epoch. `weights`: the weight of every row in the
    loss, float32 [n_train]. A row of weight zero may keep its slot.
    """

    kept: np.ndarray  # bool [n_train]
    weights: np.ndarray

    @staticmethod
    def of(task: Task, edit: Edit) -> EditedTrainSet:
        """Return the train set of an edit.

        In mode `mask` every row keeps its slot; in the modes `drop` and `select` only rows of weight != 0 keep theirs.
        Raises ValueError in mode `each`: such an edit stands for a stack of several retrains, each with its own train set. Raises
        ValueError if the edit replaces words and the task is not the one in which they are replaced (Task.with_replaced).
        """
        if edit.replaced != task.replaced:
            raise ValueError("the edit replaces words, and this recipe trains on the texts as they are")
        if edit.mode == "each":
            raise ValueError("an edit of mode 'each' has several train sets; recipes train it in train_each")
        weights = edit.weights_of(task.splits["train"].ids)
        kept = weights != 0 if edit.mode in ("drop", "select") else np.ones(len(weights), bool)
        return EditedTrainSet(kept, weights)

    @property
    def n_slots(self) -> int:
        """The number of examples per epoch, including removed ones that keep their slot."""
        return int(self.kept.sum())

    def batches(self, seed: int, epoch: int, batch_size: int) -> Iterator[np.ndarray]:
        """Yield the row arrays of one epoch: the permutation of the full train set keyed (seed, 'order', epoch).

        Rows without a slot are left out of it.
        """
        order = generator(seed, "order", epoch).permutation(len(self.kept))
        order = order[self.kept[order]]
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]


def weighted_backward(
    task: Task,
    network: nn.Module,
    rows: np.ndarray,
    weights: np.ndarray,
    numerics: Numerics,
    losses_of: LossesOf | None = None,
) -> float:
    """Add the gradient of sum(w l) / max(sum w, 1) over `rows` to the parameters and return sum(w l).

    `weights` float32 [len(rows)]. Rows of weight zero are blanked, so that their content changes no bit. Micro-batches
    and length groups share the denominator of the whole batch. `losses_of(network, batch, rows)` returns the losses if
    they are not the task's.
    """
    import torch

    denominator, total = max(float(weights.sum(dtype=np.float64)), 1.0), 0.0
    for at in batch_parts(task, "train", rows, weights == 0, numerics.micro_batch):
        part, weight = rows[at], weights[at]
        batch = task.batch("train", part, blank=weight == 0, device=numerics.device)
        losses = task.losses(network, batch) if losses_of is None else losses_of(network, batch, part)
        loss = (losses * torch.as_tensor(weight, device=losses.device, dtype=losses.dtype)).sum()
        (loss / denominator).backward()
        total += loss.item()
    return total


def start_from(network: nn.Module, parent: Mapping[str, np.ndarray] | None) -> nn.Module:
    """Load the weights `parent` (name -> array) into the network and return it; None leaves it unchanged.

    Raises ValueError if the weights do not fit.
    """
    import torch

    if parent is None:
        return network
    state = network.state_dict()
    wrong = [name for name, array in parent.items() if name not in state or state[name].shape != array.shape]
    missing = [name for name in state if name not in parent]
    if wrong or missing:
        raise ValueError(f"the parent's weights do not fit the network: wrong {wrong}, missing {missing}")
    network.load_state_dict({name: torch.tensor(array) for name, array in parent.items()})
    return network


def is_finite(network: nn.Module) -> bool:
    """Return whether all parameters are finite."""
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


@dataclass
class Watch:
    """Keeps checkpoints, calls observers and offers snapshots after each step of a training."""

    keep_steps: frozenset[int]
    keep: KeepCheckpoint | None
    observers: Sequence[Observer]
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    snapshots: Snapshots | None = None
    run: Resumable | None = None

    @staticmethod
    def of(training: Training, n_steps: int) -> Watch:
        """Return the watch of a training of `n_steps` updates. Raises ValueError on steps to keep that it never reaches."""
        outside = [step for step in training.keep_steps if not 0 <= step <= n_steps]
        if outside:
            raise ValueError(f"keep_steps {outside} are outside 0..{n_steps}")
        for observer in training.observers:
            observer.begin(n_steps)
        return Watch(frozenset(training.keep_steps), training.keep, training.observers, snapshots=training.snapshots)

    def begin(self, run: Resumable) -> None:
        """Restore `run` from its snapshot; without one, handle step 0, which is before the first update (`passed`)."""
        self.run = run
        snapshot = self.snapshots.resume() if self.snapshots is not None else None
        seen = None if snapshot is None else resume(run, snapshot)
        if seen is None:
            self.passed(0, run.network)
        else:
            self.observed.update(seen)

    def passed(self, step: int, network: nn.Module, stage: str = "") -> None:
        """Handle the end of a step: keep checkpoints, call the observers, offer a snapshot.

        Recipes call it at step 0 (before the first update) and as the last action of every update. If a step has several
        stages (see `observe`), `stage` is the last one. Raises GivenBack if the training is to stop here.
        """
        if self.keep is not None and step in self.keep_steps:
            self.keep(step, network)
        self.observe(step, network, stage)
        if step and self.snapshots is not None and self.run is not None:
            self.snapshots.passed(step, partial(take, self.run, self.observed))

    def observe(self, step: int, network: nn.Module, stage: str = "") -> None:
        """Call the observers.

        `stage` is "" directly after the update of this step. If the recipe has changed the weights again since then,
        `stage` names that change, for example a round of influence tuning.
        """
        suffix = f"+{stage}" if stage else ""
        for observer in self.observers:
            for key, array in observer.at(step, network).items():
                self.observed[f"{observer.name}/{key}@{step}{suffix}"] = np.asarray(array)
