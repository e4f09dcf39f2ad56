"""What a recipe is: how a network is trained on an edited train set. No torch at import."""

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
    """How far a training is: enough to continue it to the same bits.

    `tensors`: name -> array (weights, optimiser state, what observers saw, all in one namespace); `facts`: plain JSON values
    (step, position in the epoch, running sums). There is no RNG state: every step seeds its own generator.
    """

    tensors: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class SnapshotStore(Protocol):
    """Where the snapshot of one training lies; the last one replaces those before."""

    def save(self, snapshot: Snapshot) -> None: ...

    def load(self) -> Snapshot | None:
        """The last snapshot, or None if there is none or it is damaged."""
        ...

    def clear(self) -> None: ...


class Snapshots(Protocol):
    """What a resumable recipe is given: the snapshot to continue from, and where to report that a step is done."""

    def resume(self) -> Snapshot | None:
        """The snapshot to start from."""
        ...

    def passed(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Called after everything of update `step` is done; calls `snapshot` only when one is due. Raises GivenBack when the training is to stop here."""
        ...


@dataclass(frozen=True)
class Training:
    """What one call of `Recipe.train` is asked for; the same training gives the same bits.

    `edit`, `seed` and `numerics` decide the result, and so do the weights `parent` (name -> array) that the network starts from
    (None: a fresh one). `keep(step, network)` is called after each update in `keep_steps`. `observers` look at every step.
    `snapshots`: where a resumable recipe continues from and stores its progress (None: nothing is stored).
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
    """What a recipe returns: the network, metrics of the training, whether it diverged, and what observers saw.

    A stack of retrains (`train_each`) has no single network: it returns `outputs` instead, measured split -> float32
    [n_each, n_rows, n_outputs] in the order of the edit's ids, NaN for members that diverged.
    """

    network: nn.Module | None
    metrics: dict[str, float] = field(default_factory=dict)
    diverged: bool = False
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] | None = None


class Recipe(TrainingPart):
    """How a model is trained. An example of weight zero must change no bit but through its slot.

    A subclass must define the abstract methods. The others are hooks with defaults, and a misspelt one is refused when the class is
    made.

    `fits`: the kind of task that the recipe is for (`text`, `word_vectors`, `gaussians`). `resumable`: `train` uses
    `training.snapshots`. `whole_batches`: it cannot cut a batch into micro-batches. `needs_parent`: it changes the weights
    `training.parent`, and trains nothing of its own. `whole_stack`: the trainings of a stack (`train_each`) depend on each other, so
    that a stack is never cut.
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
        """The last epoch of a whole training, which `checkpoint_step` takes."""

    @abstractmethod
    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """The number of updates made by the end of `epoch` (1-based) on `n_train` examples. Raises ValueError past the last epoch."""

    @abstractmethod
    def learning_rate_at(self, n_train: int, step: int) -> float:
        """The learning rate of update `step` (1-based) on `n_train` examples. Raises ValueError past the last update."""

    @abstractmethod
    def train(self, task: Task, training: Training) -> Trained:
        """Train a network on the edited train set. Raises ValueError on a step of `keep_steps` that is never reached."""

    def train_each(self, task: Task, training: Training) -> Trained:
        """Train the stack of an edit of mode `each`, as many retrains as it has ids, and return their `outputs`.

        Equal to as many single trainings, unless `whole_stack`. `training` has no observers, parent, snapshots or steps to keep.
        A recipe that does not override it is trained one removal at a time.
        """
        raise NotImplementedError

    def with_files(self, base_dir: Path, where: str) -> Self:
        """This recipe with the content of the files it names in their place; called once, by tasks of word vectors. Raises InputError."""
        return self

    def check(self, vocabulary: Mapping[str, int], where: str) -> None:
        """Refuse a vocabulary (word -> row) that the recipe does not fit; called by tasks of word vectors. Raises InputError."""
