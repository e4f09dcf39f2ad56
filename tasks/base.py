"""What a task, model, recipe, measurement and observer are. No torch at import: plan, list and --help stay fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.data.edits import Edit
from tasks.digests import digest, digest_arrays, digest_texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Batch = dict[str, "Tensor"]


class Component(BaseModel):
    """A named, versioned part that a config can choose; its fields are its options.

    Subclasses set `version` and bump it when their numbers change. Modules that hold components import torch inside methods only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str]
    version: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        """Name, version and options: what enters digests."""
        return {"name": self.name, "version": self.version, **self.model_dump(mode="json")}


@dataclass(frozen=True)
class Split:
    """A named part of the data.

    `ids` int64 [n] are stable ids (never positions), `labels` int64 [n] index `classes`; `texts` is for people and text methods.
    """

    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    features: np.ndarray | None = None  # tasks without text: float [n, ...]
    confounds: np.ndarray | None = None  # int64 [n], the spurious attribute of each example, index `confound_names`
    confound_names: tuple[str, ...] = ()
    given_ids: tuple[str, ...] | None = (
        None  # the ids as the data has them, where they are text and `ids` stand for them
    )

    def __len__(self) -> int:
        return len(self.ids)

    def content_digest(self) -> str:
        """Digest of ids, content, labels and class order, and of confounds where they are known."""
        content = digest_texts(self.texts) if self.texts is not None else digest_arrays(features=self.features)  # type: ignore[arg-type]
        parts: list[Any] = [digest_arrays(ids=self.ids, labels=self.labels), content, list(self.classes)]
        if self.confounds is not None:
            parts += [digest_arrays(confounds=self.confounds), list(self.confound_names)]
        return digest(parts)

    def shown_id(self, number: int | np.integer) -> str:
        """An id of this split as the user gave it. Raises KeyError when the split has no such id."""
        if self.given_ids is None:
            return str(int(number))
        rows = np.flatnonzero(self.ids == number)
        if not len(rows):
            raise KeyError(f"id {int(number)} is not in this split")
        return self.given_ids[int(rows[0])]

    def shown_ids(self) -> dict[int, str]:
        """Every id of this split -> that id as the user gave it; empty where the ids are whole numbers already."""
        return {} if self.given_ids is None else dict(zip(self.ids.tolist(), self.given_ids, strict=True))

    def rows_of(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Positions of `ids`: int64 [len(ids)]. Raises KeyError naming the first unknown id."""
        order = np.argsort(self.ids, kind="stable")
        wanted = np.asarray(ids, np.int64)
        rows = (
            order[np.searchsorted(self.ids, wanted, sorter=order).clip(max=len(self.ids) - 1)]
            if len(self.ids)
            else np.zeros(0, np.int64)
        )
        if len(rows) != len(wanted) or (self.ids[rows] != wanted).any():
            missing = wanted[self.ids[rows] != wanted] if len(rows) == len(wanted) else wanted
            raise KeyError(f"id {int(missing[0])} is not in this split")
        return rows


@dataclass(frozen=True)
class Numerics:
    """Everything about the machine and build that can change a bit of a result. No delta is ever taken across numerics.

    `environment`: (name, value) of the environment variables that are set and change bits, sorted by name; a mapping is
    taken too. Usually none is set.
    """

    device: str = "cpu"  # cpu | cuda
    device_model: str = ""
    dtype: str = "float32"
    threads: int = 1
    stack: int = 1
    micro_batch: int = 0  # 0: whole batches
    compile: bool = False
    torch: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", tuple(sorted(dict(self.environment).items())))

    def identity(self) -> dict[str, Any]:
        """The numerics as plain JSON values; `environment` only where a variable is set, so that ids of before stay."""
        found = {**self.__dict__, "environment": dict(self.environment)}
        return found if self.environment else {k: v for k, v in found.items() if k != "environment"}


class Observer(Protocol):
    """Looks at a model while it trains; what it returns is recorded in the outcome under `<name>/<key>@<step>`.

    A recipe that changes the weights between two updates asks again and says so: `<name>/<key>@<step>+<stage>`. What it
    returns is decided by `begin`, step and network alone: a resumed training asks a new observer from there on.
    """

    name: str

    def begin(self, n_steps: int) -> None:
        """Called once before training, with the number of the last step."""
        ...

    def at(self, step: int, network: nn.Module) -> Mapping[str, np.ndarray]:
        """Arrays to record at `step` (0 is before the first update); an empty mapping records nothing."""
        ...


KeepCheckpoint = Callable[[int, "nn.Module"], None]


@dataclass(frozen=True)
class Snapshot:
    """How far a training is: enough to go on to the same bits.

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
    """What a resumable recipe is given: the snapshot to go on from, and where to say that a step is done.

    A recipe with `resumable = True` takes `snapshots: Snapshots | None = None` in `train`.
    """

    def resume(self) -> Snapshot | None:
        """The snapshot to start from."""
        ...

    def passed(self, step: int, snapshot: Callable[[], Snapshot]) -> None:
        """Called after everything of update `step` is done; calls `snapshot` only when one is due. Raises GivenBack when the training is to stop here."""
        ...


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


class Recipe(Protocol):
    """How a model is trained (a Component).

    A recipe that can train a stack of removals at once also has `train_each(task, *, edit, seed, numerics) -> Trained`,
    for edits of mode `each`: equal to as many single trainings, unless `whole_stack` is true: then its trainings depend on each other
    (the leaked protocol of loo_leaked), and a stack is never cut.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def identity(self) -> dict[str, Any]: ...

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """The number of updates made by the end of `epoch` (1-based) on `n_train` examples. Raises ValueError past the last epoch."""
        ...

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """The learning rate of update `step` (1-based)."""
        ...

    def train(
        self,
        task: Task,
        *,
        edit: Edit,
        seed: int,
        numerics: Numerics,
        keep_steps: Sequence[int] = (),
        keep: KeepCheckpoint | None = None,
        observers: Sequence[Observer] = (),
        parent: Mapping[str, np.ndarray] | None = None,
    ) -> Trained:
        """Train a network on the edited train set: a fresh one, or one that starts from the weights `parent` (name -> array).

        Same arguments, same bits. `keep(step, network)` is called after each update in `keep_steps`.
        """
        ...


class Task(Protocol):
    """A prepared task: data read, model and recipe chosen. Picklable once `prepare` has run, so that it is shipped to workers once.

    What a task may have besides (influence methods and campaigns look for it by name):
    `query_losses(network, split, rows, labels) -> Tensor [n]`: the losses explained, where they are no -log p(label) of
    logits (a property of the whole model); `query_labels(split, rows, outputs) -> int64 [n]`: labels that a model's recorded
    outputs (measured split -> array) decide; `penalty(network) -> Tensor []`: what the train objective adds to the mean of the
    losses; `influence_parameters(split, rows) -> {parameter name: row numbers or None}`: the parameters, or rows of their
    first axis, on which a method takes its Hessian; `independent_rows`: names of parameters whose rows never meet in one
    second derivative; `rows_touching(name, rows) -> int64`: the train rows whose loss depends on those rows of a parameter;
    `row_hessians(network, name, rows) -> [n_rows, d, d]` and `row_derivatives(network, name, rows, vectors [q, n_rows, d],
    train_rows) -> [q, n_train_rows]`: closed forms for such rows, of the objective and of each example's loss;
    `splits_with_losses`, `splits_with_query_losses`: names of the splits whose rows `losses` and `query_losses` take, where
    those are not all.
    """

    model: Any
    recipe: Any
    splits: Mapping[str, Split]
    measured: Mapping[str, np.ndarray]  # split -> rows whose outputs every retrain records, int64

    def train_identity(self) -> dict[str, Any]:
        """The train digest's content: ids, joined text, labels, class order, tokeniser, preprocessing. No torch."""
        ...

    def model_identity(self) -> dict[str, Any]:
        """Digest of weights, config and tokeniser files, or options and version of a model that starts at random. No torch."""
        ...

    def record_identity(self) -> dict[str, Any]:
        """What is recorded: measured splits (ids, content, class order) and the output schema. No torch."""
        ...

    def prepare(self) -> None:
        """Tokenise (from the cache if there) and load base weights; idempotent."""
        ...

    def network(self, seed: int) -> nn.Module:
        """A fresh network; what is random in it is drawn from generators keyed (seed, 'init', ...)."""
        ...

    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Inputs and `labels` of `rows`. Rows where `blank` (bool [len(rows)]) is true carry neutral content and label 0:
        a removed example's text can then change no bit, not even through the padding length."""
        ...

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Outputs [n, n_outputs]; class logits for classifiers."""
        ...

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Train loss of every example [n]."""
        ...

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Outputs in evaluation mode, float32 [len(rows), n_outputs]."""
        ...


class TaskConfig(Protocol):
    """The config block of a task (a Component): `open` reads the data and returns the Task. No torch."""

    def open(
        self,
        base_dir: Path,
        cache_dir: Path | None = None,
        *,
        where: str = "config",
        key: str = "task",
        plugins: Sequence[str] = (),
    ) -> Task: ...


class Measurement(Protocol):
    """The scalar f(query; theta), more is better (a Component)."""

    label: ClassVar[str]  # gold | predicted: whose label it reads

    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """outputs [n, n_outputs] and labels int [n] -> float64 [n]."""
        ...

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The query loss -log p(label), per example [n]: what influence methods differentiate."""
        ...
