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
    """Return the name of an arm in errors: the config file, and the arm's label if it changes the task."""
    return f"{config.where} (arm {label})" if config.arms[label] else config.where


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Add the config file to an InputError of the body that names only a dotted key of the task block."""
    try:
        yield
    except InputError as error:
        if not error.where.startswith("task."):
            raise
        raise InputError(f"{where}: {error.where}", error.problem) from error


class Arm:
    """One variant of the task. Most campaigns have one arm, with the label "". Identities are computed once."""

    def __init__(self, label: str, task: Task, config: LoadedConfig, part: Any = None):
        """`part`: the parsed task block that opened the task, by default that of the config."""
        self.label, self.task, self.config = label, task, config
        self.where = where_of(label, config)
        self.part = config.task if part is None else part
        # One spec per numerics and parent, from which siblings with another edit or seed are made faster.
        self._families: dict[tuple, RetrainSpec] = {}

    @property
    def train(self) -> Split:
        """The train split."""
        return self.task.splits["train"]

    @cached_property
    def train_digest(self) -> str:
        """Digest of the train set and its preprocessing."""
        made_by = (self.task, self.part, self.task.encoding)
        with placed(self.where):
            return digest(with_sources(self.task.train_identity(), *made_by))

    @cached_property
    def model_identity(self) -> Any:
        """The identity of the model's weights and options."""
        with placed(self.where):
            return with_sources(self.task.model_identity(), self.task.model)

    @cached_property
    def recipe_identity(self) -> Any:
        """The name, version and hyperparameters of the recipe."""
        return self._identity_of(self.task.recipe)

    def _identity_of(self, part: Any) -> dict[str, Any]:
        return with_sources(with_selections(part.identity(), part, self.task, self.config.base_dir), part)

    def method_identity(self, method: Method) -> dict[str, Any]:
        """Return name, version and options of a method on this arm's model, and its source if it is a plugin's."""
        options = {**method.options_identity(self.config.base_dir), **method.identity_on(self.task)}
        return with_sources(with_selections(options, method, self.task, self.config.base_dir), method)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The task record, which describes what every retrain records: the measured splits and the observers."""
        observers = {observer.name: self._identity_of(observer) for observer in self.config.observers}
        recorded = with_sources(self.task.record_identity(), self.task, *(self.task.properties or ()))
        return {**recorded, **({"observers": observers} if observers else {})}

    @cached_property
    def task_id(self) -> str:
        """Digest of the task record (`record`); it is the name of the ledger's directory."""
        return digest(self.record)

    def spec(self, numerics: Numerics, edit: Edit, seed: int, parent: Any = None) -> RetrainSpec:
        """Return the spec of one retrain; `parent` is {spec_id, step} of the checkpoint that it starts from."""
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
        """Return one retrain of this arm: its spec, its edit, and the steps whose weights are kept."""
        return Work(self.spec(numerics, edit, seed, parent), edit, keep_steps, self.label)

    @property
    def parts(self) -> tuple[Any, ...]:
        """All components of this arm that may come from a plugin."""
        task = self.task
        more = (task.encoding, *(task.properties or ()), *self.config.observers)
        return (task, self.part, task.model, task.recipe, *more)

    # --- queries -------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> QueriesConfig:
        """The block `queries`. Raises ValueError in a campaign that has none."""
        if self.config.settings.queries is None:
            raise ValueError(f"the campaign {self.config.settings.campaign} asks no queries")
        return self.config.settings.queries

    @property
    def query_split(self) -> Split:
        """The split that the queries are drawn from."""
        return self.task.splits[self.asked.split]

    @property
    def measured_rows(self) -> np.ndarray:
        """The rows of the queries' split whose outputs every retrain records."""
        return self.task.measured[self.asked.split]

    @property
    def measured_ids(self) -> np.ndarray:
        """The ids of the measured rows."""
        return self.query_split.ids[self.measured_rows]

    @property
    def needs_outputs(self) -> bool:
        """Whether the queries or their labels depend on the outputs of a trained model."""
        if self.config.settings.queries is None:
            return False
        judged = self.asked.where is not None or self.config.measurement.label != "gold"
        return judged or overrides(self.task, Task.query_labels)

    def check_queries(self) -> None:
        """Check the queries without a model: enough points must exist before `where` removes some. Raises InputError."""
        where, split = self.config.where, self.asked.split
        if split not in self.task.measured:
            raise ConfigError(
                f"{where}: queries.split",
                f"split {split!r} is not measured; task.measure lists {sorted(self.task.measured)}"
                f"{did_you_mean(split, self.task.measured)}",
            )
        self._check_measurement(split)
        judged = self.asked.where
        if judged is not None and judged.label is not None:
            self._class_of(judged.label)
        self._draw(self.measured_rows)

    def _check_measurement(self, split: str) -> None:
        """Raise ConfigError if the measurement does not fit the number of classes of the split.

        A measurement that reads class logits needs several classes, because the probability of a single class is always 1.
        A measurement that reads one number per row needs a split without several classes.
        """
        n_classes, measurement = len(self.task.splits[split].classes), self.config.measurement
        of_classes = measurement.of_classes
        where = f"{self.config.where}: measurement"
        if of_classes and n_classes == 1:
            raise ConfigError(
                where, f"{measurement.name!r} needs classes, and split {split!r} has none; allowed: output"
            )
        if not of_classes and n_classes > 1:
            raise ConfigError(
                where, f"{measurement.name!r} needs one number per row, and split {split!r} has {n_classes} classes"
            )

    def queries(self, outputs: Outputs | None) -> QueryBlock:
        """Return the queries, with the labels whose loss is explained.

        `outputs`: the recorded outputs of the model that evaluates `where` or predicts the labels; required if
        `needs_outputs`. Raises InputError if too few points fulfil the conditions.
        """
        if self.needs_outputs and outputs is None:
            raise ValueError("these queries depend on a model's recorded outputs, and none are given")
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
        if outputs is not None and self.config.measurement.label != "gold":
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
            wanted = block.count if isinstance(block.count, int) else "at least one"
            raise InputError(
                f"{key}.count" if block.count else f"{key}.where",
                f"only {len(rows)} measured points fit; the config asks for {wanted}",
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
        """Return the integer ids of the ids in the config. Raises InputError that names an id which the split lacks."""
        split, name = self.query_split, self.asked.split
        if split.given_ids is None:
            numbers = [one for one in ids if isinstance(one, int)]
            if len(numbers) < len(ids):
                text = next(one for one in ids if isinstance(one, str))
                raise InputError(key, f"{shown(text)} is text, and the ids of split {name!r} are integers")
            return numbers
        number_of = dict(zip(split.given_ids, split.ids.tolist(), strict=True))
        missing = next((str(one) for one in ids if str(one) not in number_of), None)
        if missing is not None:
            raise InputError(
                key, f"{shown(missing)} is not an id of split {name!r}{did_you_mean(missing, split.given_ids)}"
            )
        twice = next((one for one, n in Counter(map(str, ids)).items() if n > 1), None)
        if twice is not None:
            problem = f"{shown(twice)} is given twice; the ids of split {name!r} are text, so 7 and '7' are the same id"
            raise InputError(key, problem)
        return [number_of[str(one)] for one in ids]

    def _of_class(self, rows: np.ndarray, label: int, wanted: int, key: str) -> np.ndarray:
        split = self.query_split
        fitting = rows[split.labels[rows] == label]
        if len(fitting) < wanted:
            raise InputError(
                f"{key}.per_class",
                f"class {split.classes[label]!r} has {len(fitting)} measured points that fit, and {wanted} are needed",
            )
        return fitting[:wanted]
