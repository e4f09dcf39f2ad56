"""How far a train example's confound decides on which examples it has influence: same-confound minus other-confound influence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, field_validator

from influence.layers import check_selection
from influence.methods.requirements import require_model
from tasks.errors import InputError
from tasks.model import Model
from tasks.observer import Observer, ObserverConfig
from tasks.seeds import generator
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn


class ConfoundInfluenceDifference(ObserverConfig):
    """Confound influence difference (CID) of probes drawn from the train set, along training.

    CID(q) = mean of I(i, q) over the examples i with q's label and confound - mean over those with q's label and
    another confound, where I is the cosine of the two loss gradients over the chosen `layers`, biases included, in
    evaluation mode. Positive: the model follows the confound. The probe itself is in neither group; the published code
    has it in the first, where its cosine of 1 adds up to 1 / n_same. The groups come from the data, whatever the edit:
    removed rows are included.

    `probes` is the number of rows drawn by `probe_seed`; `probe_ids` names them instead. `examples` is the largest
    number of train examples of each (label, confound) cell, one draw by `probe_seed`; by default all are used. `every`:
    measure also each time this number of updates has been made; the last step is always measured. `show` is the number
    of probes whose single influences are recorded at the last step. Han and Tsvetkov 2021, section 6.1, figures 1 and
    3.
    """

    name: ClassVar[str] = "confound_influence_difference"
    version: ClassVar[int] = 1
    selects: ClassVar[dict[str, str]] = {"layers": "layers"}

    probes: int = Field(40, ge=1)
    probe_seed: int = Field(0, ge=0)
    probe_ids: tuple[int, ...] | None = Field(None, min_length=1)
    examples: int | None = Field(None, ge=1)
    every: int = Field(0, ge=0)
    show: int = Field(3, ge=0)
    layers: str | tuple[str, ...] = "all"

    @field_validator("layers")
    @classmethod
    def _known(cls, layers: str | tuple[str, ...]) -> str | tuple[str, ...]:
        check_selection(layers)
        return layers

    @field_validator("probe_ids")
    @classmethod
    def _distinct(cls, ids: tuple[int, ...] | None) -> tuple[int, ...] | None:
        repeated = [i for i in ids or () if (ids or ()).count(i) > 1]
        if repeated:
            raise ValueError(f"id {repeated[0]} appears twice")
        return ids

    def check_task(self, task: Task, where: str) -> None:
        """Raise InputError with `where` (file and dotted key) if the task cannot be observed in this way. Uses no torch."""
        train = task.splits["train"]
        if train.confounds is None:
            raise InputError(where, f"needs a task whose examples have known confounds; {type(task).__name__} has none")
        if len(np.unique(_cells(task))) == len(np.unique(train.labels)):
            raise InputError(where, "every label has one confound only, so that there is none to compare with")
        require_model(task, Model.layer_modules, where, "needs a model that names its layers")
        if self.probe_ids is None and self.probes > len(train):
            raise InputError(f"{where}.probes", f"{self.probes} is more than the {len(train)} train examples")
        try:
            train.rows_of(self.probe_ids or ())
        except KeyError as error:
            raise InputError(f"{where}.probe_ids", f"{error.args[0]} (train)") from None

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Raise InputError for `layers` that this network does not have or whose per-example gradients cannot be computed."""
        from influence.capture import check_supported
        from influence.layers import Layers

        try:
            for name in Layers.of(task, network).choose(self.layers):
                check_supported(name, network.get_submodule(name))
        except InputError as error:
            raise InputError(f"{where}.layers", error.problem) from error

    def probe_rows(self, task: Task) -> np.ndarray:
        """Return the probes as rows of train, in the order drawn or named: int64 [n_probes]."""
        train = task.splits["train"]
        if self.probe_ids is not None:
            return train.rows_of(self.probe_ids)
        return generator(self.probe_seed, "cid_probes").permutation(len(train))[: self.probes]

    def example_rows(self, task: Task) -> np.ndarray:
        """Return the rows of train whose influence is measured, ascending: int64 [n_examples]."""
        cells, rows = _cells(task), []
        for cell in np.unique(cells):
            inside = np.flatnonzero(cells == cell)
            rows.append(generator(self.probe_seed, "cid_examples", int(cell)).permutation(inside)[: self.examples])
        return np.sort(np.concatenate(rows))

    def shown(self, task: Task) -> np.ndarray:
        """Return the probes whose single influences are recorded: positions among the probes, ascending, int64 [n_shown].

        They are the first `show` probes whose confound is the commonest of their label in train (as in the paper's
        figure 1), followed, if there are fewer, by the first other probes.
        """
        cells = _cells(task)
        values, counts = np.unique(cells, return_counts=True)
        n_of_cell, labels = dict(zip(values.tolist(), counts.tolist(), strict=True)), task.splits["train"].labels
        commonest = {y: max(n_of_cell[c] for c in np.unique(cells[labels == y]).tolist()) for y in np.unique(labels)}
        rows = self.probe_rows(task)
        minority = [n_of_cell[int(cells[row])] < commonest[labels[row]] for row in rows]
        return np.sort(np.argsort(minority, kind="stable")[: self.show])

    def start(self, task: Task, device: torch.device | str = "cpu") -> Observer:
        """Return the observer of one training of the task."""
        return ConfoundInfluenceObserver(self, task, device)


class ConfoundInfluenceObserver:
    """Measures the influences of one training at the steps that its options name.

    It records `moments` float32 [n_probes, 6]: n_same, mean_same, sd_same (ddof 1), n_other, mean_other, sd_other. The
    mean of an empty group and the sd of fewer than two examples are NaN. At the last step it also records `influences`
    and `same` float32 [n_shown, n_examples]: the cosines, and 1 if the example has the probe's confound, else 0; both
    are NaN if its label differs or if it is the probe itself. It leaves modes, flags, gradients and random streams of
    the network unchanged.
    """

    def __init__(self, options: ConfoundInfluenceDifference, task: Task, device: torch.device | str = "cpu"):
        self.name, self.options, self.task, self.device = options.name, options, task, device
        self.probes, self.examples = options.probe_rows(task), options.example_rows(task)
        self.n_steps = 0

    def begin(self, n_steps: int) -> None:
        """Set the number of the last step; called before training."""
        self.n_steps = n_steps

    def at(self, step: int, network: nn.Module) -> Mapping[str, np.ndarray]:
        """Return the arrays of this step; none unless it is the last one or a positive multiple of `every`."""
        last, every = step == self.n_steps, self.options.every
        if not last and not (every and step and step % every == 0):
            return {}
        influences, same = self.influences(network), self._same()
        found = {"moments": moments(influences, same)}
        if last:
            shown = self.options.shown(self.task)
            found |= {"influences": influences[shown], "same": same[shown]}
        return {key: array.astype(np.float32) for key, array in found.items()}

    def influences(self, network: nn.Module) -> np.ndarray:
        """Return cosines with examples of the probe's label, NaN for all others and the probe: float64 [n_probes, n_examples]."""
        from influence.diagnostics.train_cosines import train_cosines

        labels, found = self.task.splits["train"].labels, np.full((len(self.probes), len(self.examples)), np.nan)
        for label in np.unique(labels[self.probes]):
            ours, theirs = (np.flatnonzero(labels[rows] == label) for rows in (self.probes, self.examples))
            theirs = theirs[self._by_length(self.examples[theirs])]
            found[np.ix_(ours, theirs)] = train_cosines(
                self.task, network, self.probes[ours], self.examples[theirs], self.options.layers, self.device
            )
        found[np.equal.outer(self.probes, self.examples)] = np.nan
        return found

    def _by_length(self, rows: np.ndarray) -> np.ndarray:
        """Return an order of `rows` in which batches need little padding."""
        texts = self.task.splits["train"].texts
        return np.argsort([len(texts[row]) for row in rows], kind="stable") if texts else np.arange(len(rows))

    def _same(self) -> np.ndarray:
        """Return 1 if the example has the probe's confound, 0 if it has another, NaN if they are not compared."""
        train = self.task.splits["train"]
        assert train.confounds is not None
        same = np.equal.outer(train.confounds[self.probes], train.confounds[self.examples]).astype(np.float64)
        same[np.not_equal.outer(train.labels[self.probes], train.labels[self.examples])] = np.nan
        same[np.equal.outer(self.probes, self.examples)] = np.nan
        return same


def moments(influences: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return count, mean and standard deviation (ddof 1) of each probe's two groups: float64 [n_probes, 6].

    influences [n_probes, n_examples]; same: 1, 0, or NaN for neither.
    """
    return np.concatenate([_moments(influences, same == group) for group in (1, 0)], axis=1)


def _moments(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    n = inside.sum(1).astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0: the mean of an empty group, or the sd of a single example
        mean = np.where(inside, values, 0.0).sum(1) / n
        squares = np.where(inside, values - mean[:, None], 0.0) ** 2
        sd = np.sqrt(squares.sum(1) / np.where(n > 1, n - 1, np.nan))
    return np.stack([n, mean, sd], axis=1)


def _cells(task: Task) -> np.ndarray:
    """Return a number for the (label, confound) of each train example: int64 [n_train]. Raises InputError without confounds."""
    train = task.splits["train"]
    if train.confounds is None:
        raise InputError("observe", f"needs a task with known confounds; {type(task).__name__} has none")
    return train.labels * (int(train.confounds.max(initial=0)) + 1) + train.confounds
