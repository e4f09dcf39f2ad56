"""An arm of a campaign: one variant of the task, with its identities, queries and specs. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.selections import with_selections
from orchestrator.config.blocks import QueriesConfig
from orchestrator.config.schema import LoadedConfig
from orchestrator.config.yaml_files import ConfigError
from orchestrator.records import RetrainSpec, Work
from tasks.base import Numerics, Split
from tasks.data.edits import Edit
from tasks.data.wording import shown
from tasks.digests import digest
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.seeds import generator
from tasks.sources import with_sources
from tasks.suggestions import did_you_mean
from tasks.task import Task

Outputs = Mapping[str, np.ndarray]  # measured split -> recorded outputs


def where_of(label: str, config: LoadedConfig) -> str:
    """How errors name an arm: the config file, and the label of an arm that changes the task."""
    return f"{config.where} (arm {label})" if config.arms[label] else config.where


@contextmanager
def placed(where: str) -> Iterator[None]:
    """What a task refuses by a dotted key of its block alone is refused with the config file before it."""
    try:
        yield
    except InputError as error:
        if not error.where.startswith("task."):
            raise
        raise InputError(f"{where}: {error.where}", error.problem) from error


class Arm:
    """A task as one arm trains it; most campaigns have one arm, called "". Identities are computed once."""

    def __init__(self, label: str, task: Task, config: LoadedConfig, part: Any = None):
        """`part`: the block of the config that opened the task; by default the config's own."""
        self.label, self.task, self.config = label, task, config
        self.where = where_of(label, config)
        self.part = config.task if part is None else part
        self._families: dict[
            tuple, RetrainSpec
        ] = {}  # one spec of each numerics and parent: its siblings share their text

    @property
    def train(self) -> Split:
        """The train split."""
        return self.task.splits["train"]

    @cached_property
    def train_digest(self) -> str:
        """Digest of everything the train set and its preprocessing are."""
        made_by = (self.task, self.part, self.task.encoding)
        with placed(self.where):
            return digest(with_sources(self.task.train_identity(), *made_by))

    @cached_property
    def model_identity(self) -> Any:
        """Identity of the model's weights and options."""
        with placed(self.where):
            return with_sources(self.task.model_identity(), self.task.model)

    @cached_property
    def recipe_identity(self) -> Any:
        """Name, version and hyperparameters of the recipe."""
        return self._identity_of(self.task.recipe)

    def _identity_of(self, part: Any) -> dict[str, Any]:
        return with_sources(with_selections(part.identity(), part, self.task, self.config.base_dir), part)

    def method_identity(self, method: Method) -> dict[str, Any]:
        """Name, version and options of a method on this arm's model, and its source if it is not built in."""
        options = method.options_identity(self.config.base_dir)
        return with_sources(with_selections(options, method, self.task, self.config.base_dir), method)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is recorded: the measured splits, and what observers see where there are any."""
        observers = {observer.name: self._identity_of(observer) for observer in self.config.observers}
        recorded = with_sources(self.task.record_identity(), self.task, *(self.task.properties or ()))
        return {**recorded, **({"observers": observers} if observers else {})}

    @cached_property
    def task_id(self) -> str:
        """Digest of what is recorded: the ledger's directory."""
        return digest(self.record)

    def spec(self, numerics: Numerics, edit: Edit, seed: int, parent: Any = None) -> RetrainSpec:
        """The identity of one retrain; `parent` is {spec_id, step} of the checkpoint it starts from."""
        family = (numerics, *(parent or {}).values())
        if family not in self._families:
            self._families[family] = RetrainSpec(
                self.train_digest,
                self.model_identity,
                self.recipe_identity,
                edit.identity(),
                seed,
                numerics.identity(),
                parent,
            )
        return self._families[family].sibling(edit.identity(), seed)

    def work(
        self, numerics: Numerics, edit: Edit, seed: int, *, keep_steps: tuple[int, ...] = (), parent: Any = None
    ) -> Work:
        """One retrain of this arm."""
        return Work(self.spec(numerics, edit, seed, parent), edit, keep_steps, self.label)

    @property
    def parts(self) -> tuple[Any, ...]:
        """Everything of this arm that a plugin may have made."""
        task = self.task
        more = (task.encoding, *(task.properties or ()), *self.config.observers)
        return (task, self.part, task.model, task.recipe, *more)

    # --- queries -------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> QueriesConfig:
        """The block `queries`. Raises ValueError in a campaign that has none."""
        if self.config.settings.queries is None:
            raise ValueError(f"{self.config.settings.campaign} asks no queries")
        return self.config.settings.queries

    @property
    def query_split(self) -> Split:
        """The split that the queries are drawn from."""
        return self.task.splits[self.asked.split]

    @property
    def measured_rows(self) -> np.ndarray:
        """Rows of the queries' split whose outputs every retrain records."""
        return self.task.measured[self.asked.split]

    @property
    def measured_ids(self) -> np.ndarray:
        """Ids of those rows."""
        return self.query_split.ids[self.measured_rows]

    @property
    def needs_outputs(self) -> bool:
        """Whether the queries or their labels cannot be known before a model is trained."""
        if self.config.settings.queries is None:
            return False
        judged = self.asked.where is not None or self.config.measurement.label == "predicted"
        return judged or overrides(self.task, Task.query_labels)

    def check_queries(self) -> None:
        """Refuse what no model could make right: `where` only takes points away. Raises InputError."""
        where, split = self.config.where, self.asked.split
        if split not in self.task.measured:
            raise ConfigError(
                f"{where}: queries.split",
                f"{split!r} is not measured; task.measure lists {sorted(self.task.measured)}"
                f"{did_you_mean(split, self.task.measured)}",
            )
        self._check_measurement(split)
        judged = self.asked.where
        if judged is not None and judged.label is not None:
            self._class_of(judged.label)
        self._draw(self.measured_rows)

    def _check_measurement(self, split: str) -> None:
        """Refuse to measure a class where there is one only: its probability is 1 whatever happens; and the other way round."""
        n_classes, measurement = len(self.task.splits[split].classes), self.config.measurement
        of_classes = measurement.of_classes
        where = f"{self.config.where}: measurement"
        if of_classes and n_classes == 1:
            raise ConfigError(
                where, f"{measurement.name!r} needs classes and split {split!r} has none; allowed: output"
            )
        if not of_classes and n_classes > 1:
            raise ConfigError(
                where, f"{measurement.name!r} is for one number a row, and split {split!r} has {n_classes} classes"
            )

    def queries(self, outputs: Outputs | None) -> QueryBlock:
        """The queries, with the labels whose loss is explained.

        `outputs` are those recorded of the model that judges; needed where `needs_outputs`. Raises InputError if too
        few points fit.
        """
        if self.needs_outputs and outputs is None:
            raise ValueError("these queries are judged by a model's recorded outputs")
        block, split = self.asked, self.query_split
        rows = self.measured_rows
        if block.where is not None and outputs is not None:
            rows = rows[self._fits(outputs[block.split], split.labels[rows])]
        rows = self._draw(rows)
        return QueryBlock(block.split, split.ids[rows], rows, self._labels(rows, outputs).astype(np.int64))

    def _labels(self, rows: np.ndarray, outputs: Outputs | None) -> np.ndarray:
        split = self.asked.split
        if outputs is not None and overrides(self.task, Task.query_labels):
            return self.task.query_labels(split, rows, outputs)
        if outputs is not None and self.config.measurement.label == "predicted":
            return outputs[split][np.searchsorted(self.measured_rows, rows)].argmax(axis=1)
        return self.query_split.labels[rows]

    def _class_of(self, label: str) -> int:
        classes = self.query_split.classes
        if label not in classes:
            problem = f"{label!r}; classes are {', '.join(classes)}{did_you_mean(label, classes)}"
            raise ConfigError(f"{self.config.where}: queries.where.label", problem)
        return classes.index(label)

    def _fits(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        where = self.asked.where
        assert where is not None
        from tasks.measurements import GoldProbability

        fits = np.ones(len(labels), bool)
        if where.correct is not None:
            fits &= (outputs.argmax(axis=1) == labels) == where.correct
        if where.probability is not None:
            p = GoldProbability().value(outputs, labels)
            fits &= (p >= where.probability[0]) & (p <= where.probability[1])
        if where.label is not None:
            fits &= labels == self._class_of(where.label)
        return fits

    def _draw(self, rows: np.ndarray) -> np.ndarray:
        block, split = self.asked, self.query_split
        key = f"{self.config.where}: queries"
        if block.ids is not None:
            return self._named(block.ids, rows, f"{key}.ids")
        order = generator(block.seed, "queries").permutation(len(rows))
        if block.per_class is not None:
            picked = [self._of_class(rows[order], c, block.per_class, key) for c in range(len(split.classes))]
            return np.sort(np.concatenate(picked))
        count = block.count if isinstance(block.count, int) else len(rows)
        if count > len(rows) or not len(rows):
            raise InputError(
                f"{key}.count" if block.count else f"{key}.where",
                f"only {len(rows)} measured points fit, {block.count if isinstance(block.count, int) else 'at least one'} asked for",
            )
        return np.sort(rows[order[:count]])

    def _named(self, ids: tuple[int | str, ...], rows: np.ndarray, key: str) -> np.ndarray:
        try:
            chosen = self.query_split.rows_of(self._numbers(ids, key))
        except KeyError as error:
            raise InputError(key, str(error.args[0])) from error
        outside = ~np.isin(chosen, rows)
        if outside.any():
            name = shown(ids[int(np.argmax(outside))])
            raise InputError(key, f"{name} is not measured; raise the limit in task.measure")
        return chosen

    def _numbers(self, ids: tuple[int | str, ...], key: str) -> list[int]:
        """The numbers of the queries' ids as the config gives them. Raises InputError naming one that the split does not have."""
        split, name = self.query_split, self.asked.split
        if split.given_ids is None:
            numbers = [one for one in ids if isinstance(one, int)]
            if len(numbers) < len(ids):
                text = next(one for one in ids if isinstance(one, str))
                raise InputError(key, f"{shown(text)} is text, and the ids of split {name!r} are whole numbers")
            return numbers
        number_of = dict(zip(split.given_ids, split.ids.tolist(), strict=True))
        missing = next((str(one) for one in ids if str(one) not in number_of), None)
        if missing is not None:
            raise InputError(
                key, f"{shown(missing)} is no id of split {name!r}{did_you_mean(missing, split.given_ids)}"
            )
        twice = next((one for one, n in Counter(map(str, ids)).items() if n > 1), None)
        if twice is not None:
            problem = f"{shown(twice)} is there twice; the ids of split {name!r} are text, so a number and its text are the same id"
            raise InputError(key, problem)
        return [number_of[str(one)] for one in ids]

    def _of_class(self, rows: np.ndarray, label: int, wanted: int, key: str) -> np.ndarray:
        split = self.query_split
        fitting = rows[split.labels[rows] == label]
        if len(fitting) < wanted:
            raise InputError(
                f"{key}.per_class",
                f"class {split.classes[label]!r} has {len(fitting)} measured points that fit, {wanted} asked for",
            )
        return fitting[:wanted]
