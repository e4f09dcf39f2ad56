"""The base class of recipes: how a network is trained on an edited train set. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.hooks import refuse_misspelt
from tasks.observer import Observer, TrainingPart
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

KeepCheckpoint = Callable[[int, "nn.Module"], None]


@dataclass(frozen=True)
class Snapshot:
    """The progress of a training, complete enough to continue it to the same bits.

    `tensors` maps names to arrays (weights, optimiser state and what observers returned, in one namespace); `facts` are
    plain JSON values (step, position in the epoch, running sums). There is no RNG state, because every step seeds its
    own generator.
    """

    tensors: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class SnapshotStore(Protocol):
    """Where the snapshot of one training is stored; a new snapshot replaces the one before."""

    def save(self, snapshot: Snapshot) -> None: ...

    def load(self) -> Snapshot | None:
        """Return the last snapshot, or None if there is none or it is damaged."""
        ...

    def clear(self) -> None: ...


class Snapshots(Protocol):
    """Passed to a resumable recipe: the snapshot to continue from, and a method to call after each step."""

    def resume(self) -> Snapshot | None:
        """Return the snapshot to start from, or None."""
        ...

    def passed(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Report that everything of update `step` is done; `snapshot` is called only if a snapshot is due.

        Raises GivenBack if the training is to stop here.
        """
        ...


@dataclass(frozen=True)
class Training:
    """The arguments of one call of `Recipe.train`; the same training gives the same bits.

    The result depends on `edit`, `seed`, `numerics` and the weights `parent` (name -> array) that the network starts
    from (None: a fresh network). `keep(step, network)` is called after each update in `keep_steps`; step 0 stands for the
    weights before the first update. `observers` are called at every step. `snapshots` is where a resumable recipe continues
    from and stores its progress (None: nothing is stored).
    """

    edit: Edit
    seed: int
    numerics: Numerics
    keep_steps: Sequence[int] = ()
    keep: KeepCheckpoint | None = None
    observers: Sequence[Observer] = ()
    parent: Mapping[str, np.ndarray] | None = None
    snapshots: Snapshots | None = None


@dataclass
class Trained:
    """The result of a recipe: the network, metrics of the training, whether it diverged, and what observers returned.

    A stack of retrains (`train_each`) has no single network. It returns `outputs` instead: measured split -> float32
    [n_each, n_rows, n_outputs] in the order of the edit's ids, NaN for members that diverged.
    """

    network: nn.Module | None
    metrics: dict[str, float] = field(default_factory=dict)
    diverged: bool = False
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] | None = None


class Recipe(TrainingPart):
    """How a model is trained.

    The content of an example of weight zero must not change a single bit of the result. Such an example may have an
    effect only by keeping its slot in the batches (tasks.data.edits.Edit).

    A subclass must define the abstract methods. The other methods are hooks with defaults; a misspelt hook is refused
    when the class is defined.

    `fits` is the kind of task that the recipe is for (`text`, `word_vectors`, `gaussians`). `resumable`: `train` uses
    `training.snapshots`. `whole_batches`: the recipe cannot cut a batch into micro-batches. `needs_parent`: the recipe
    changes the weights `training.parent` and does not train a fresh network. `whole_stack`: the trainings of a stack
    (`train_each`) depend on each other, so a stack is never split.
    """

    fits: ClassVar[str] = "text"
    resumable: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = False
    needs_parent: ClassVar[bool] = False
    whole_stack: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Recipe, cls.model_fields)

    @abstractmethod
    def last_epoch(self) -> float:
        """Return the last epoch of a whole training, the largest that `checkpoint_step` accepts."""

    @abstractmethod
    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return the number of updates made by the end of `epoch` (1-based) on `n_train` examples.

        Raises ValueError past the last epoch.
        """

    @abstractmethod
    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return the learning rate of update `step` (1-based) on `n_train` examples. Raises ValueError past the last update."""

    @abstractmethod
    def train(self, task: Task, training: Training) -> Trained:
        """Train a network on the edited train set. Raises ValueError on a step of `keep_steps` that is never reached."""

    def train_each(self, task: Task, training: Training) -> Trained:
        """Train the stack of an edit of mode `each`, as many retrains as it has ids, and return their `outputs`.

        The outputs equal those of the same retrains made one at a time, unless `whole_stack` is true. `training` has no
        observers, parent, snapshots or steps to keep. If a recipe does not override this method, Refit makes each retrain
        separately.
        """
        raise NotImplementedError

    def with_files(self, base_dir: Path, where: str) -> Self:
        """Return this recipe with every file path in its options replaced by the content of the file. Raises InputError.

        Tasks of word vectors call this once.
        """
        return self

    def check(self, vocabulary: Mapping[str, int], where: str) -> None:
        """Refuse a vocabulary (word -> row) that does not fit the recipe; called by tasks of word vectors. Raises InputError."""
