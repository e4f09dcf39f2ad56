"""An opened config: data read, identities known, queries and seeds chosen. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from influence.base import Method, QueryBlock
from orchestrator.config import ConfigError, LoadedConfig
from orchestrator.records import RetrainSpec, Work
from tasks.base import Numerics, Split, Task
from tasks.data.edits import Edit
from tasks.digests import digest
from tasks.errors import InputError
from tasks.seeds import generator, purpose_seed, repeat_seed


@dataclass(frozen=True)
class ScoringWork:
    """One scoring model: its retrain with the steps whose weights are kept, and the learning rate at each."""

    work: Work
    learning_rates: Mapping[int, float]


class Experiment:
    """What a config asks for, resolved against its data: identities, seeds, queries, specs."""

    def __init__(self, config: LoadedConfig, cache_dir: Path | None):
        self.config, self.settings, self.campaign = config, config.settings, config.campaign
        self.task: Task = config.task.open(
            config.base_dir, cache_dir, where=config.where, plugins=config.settings.plugins
        )
        self._check()

    def _check(self) -> None:
        where, split = self.config.where, self.settings.queries.split
        if split not in self.task.measured:
            raise ConfigError(
                f"{where}: queries.split", f"{split!r} is not measured; task.measure lists {sorted(self.task.measured)}"
            )
        if hasattr(self.campaign, "counts"):
            self.campaign.counts(len(self.train), where)
        for step_source in self._checkpoint_epochs():
            try:
                self.task.recipe.checkpoint_step(len(self.train), step_source)
            except ValueError as error:
                raise ConfigError(f"{where}: scores.checkpoints", str(error)) from error
        self._check_queries()
        for position, method in enumerate(self.methods.values()):
            method.check(self.task, self.config.base_dir, f"{where}: methods[{position}]")
            if not method.needs and not self.needs_scoring_outputs:  # a file of scores: does it hold these queries?
                method.prepare(self.task, self.config.base_dir, self.queries(None))

    def _check_queries(self) -> None:
        """Refuse what no scoring model could make right: `where` only takes points away."""
        where = self.settings.queries.where
        if where is not None and where.label is not None:
            self._class_of(where.label)
        self._draw_queries(self._measured_rows())

    def _class_of(self, label: str) -> int:
        classes = self.task.splits[self.settings.queries.split].classes
        if label not in classes:
            problem = f"{label!r}; classes are {', '.join(classes)}"
            raise ConfigError(f"{self.config.where}: queries.where.label", problem)
        return classes.index(label)

    @property
    def train(self) -> Split:
        """The train split."""
        return self.task.splits["train"]

    @property
    def methods(self) -> Mapping[str, Method]:
        """Label -> method, in the config's order, controls included."""
        return self.config.methods

    @property
    def scored(self) -> dict[str, Method]:
        """Methods that have scores."""
        return {label: method for label, method in self.methods.items() if not method.is_control}

    @property
    def controls(self) -> dict[str, bool]:
        """Label -> whether the planner makes its sets itself."""
        return {label: method.is_control for label, method in self.methods.items()}

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """One seed a repeat."""
        repeats = self.settings.repeats
        return (
            repeats.seeds
            if repeats.seeds is not None
            else tuple(repeat_seed(repeats.base_seed, r) for r in range(repeats.count or 0))
        )

    @cached_property
    def scoring_seeds(self) -> tuple[int, ...]:
        """Seeds of the scoring models, apart from every repeat's."""
        taken, seeds, draw = set(self.seeds), [], 0
        while len(seeds) < self.settings.scores.models:
            seed = purpose_seed(self.settings.scores.seed, "scoring model", draw) % 2**32
            draw += 1
            if seed not in taken:
                taken.add(seed)
                seeds.append(seed)
        return tuple(seeds)

    @cached_property
    def train_digest(self) -> str:
        """Digest of everything the train set and its preprocessing are."""
        return digest(self.task.train_identity())

    @cached_property
    def model_identity(self) -> Any:
        """Identity of the model's weights and options."""
        return self.task.model_identity()

    @cached_property
    def recipe_identity(self) -> Any:
        """Name, version and hyperparameters of the recipe."""
        return self.task.recipe.identity()

    @cached_property
    def task_id(self) -> str:
        """Digest of what is recorded: the ledger's directory."""
        return digest(self.task.record_identity())

    @cached_property
    def run_hex(self) -> str:
        """16 hex digits of what is asked; compute, tracking, output and budgets stay out."""
        settings, base = self.settings, self.config.base_dir
        return digest(
            {
                "train": self.train_digest,
                "model": self.model_identity,
                "recipe": self.recipe_identity,
                "record": self.task_id,
                "queries": settings.queries.model_dump(mode="json"),
                "measurement": self.config.measurement.identity(),
                "scores": settings.scores.model_dump(mode="json"),
                "campaign": self.campaign.identity(),
                "seeds": list(self.seeds),
                "methods": {label: method.options_identity(base) for label, method in self.methods.items()},
                "order": list(self.methods),
            }
        )[:16]

    @property
    def run_name(self) -> str:
        """Name of the run directory."""
        return f"{self.settings.name}-{self.run_hex}"

    def spec(self, numerics: Numerics, edit: Edit, seed: int) -> RetrainSpec:
        """The identity of one retrain."""
        return RetrainSpec(
            self.train_digest, self.model_identity, self.recipe_identity, edit.identity(), seed, numerics.identity()
        )

    def _checkpoint_epochs(self) -> tuple[float, ...]:
        epochs = self.settings.scores.checkpoints
        return epochs if epochs is not None else (float(getattr(self.task.recipe, "epochs", 1)),)

    def scoring_works(self, numerics: Numerics) -> list[ScoringWork]:
        """The scoring models: references under seeds of their own, weights kept at `scores.checkpoints`."""
        n, recipe = len(self.train), self.task.recipe
        steps = sorted({recipe.checkpoint_step(n, epoch) for epoch in self._checkpoint_epochs()})
        rates = {step: recipe.learning_rate_at(n, step) for step in steps}
        return [
            ScoringWork(Work(self.spec(numerics, Edit(), seed), Edit(), tuple(steps)), rates)
            for seed in self.scoring_seeds
        ]

    def _measured_rows(self) -> np.ndarray:
        return self.task.measured[self.settings.queries.split]

    def queries(self, scoring_outputs: np.ndarray | None) -> QueryBlock:
        """The queries, with the labels whose loss is explained.

        `scoring_outputs` float32 [n_measured, n_outputs] are the first scoring model's on the queries' split; needed for `where` and for
        measurements of the predicted label. Raises InputError if too few points fit.
        """
        block, split = self.settings.queries, self.task.splits[self.settings.queries.split]
        rows = self._measured_rows()
        if block.where is not None:
            if scoring_outputs is None:
                raise ValueError("queries.where is judged by the scoring model's outputs")
            rows = rows[self._fits(scoring_outputs, split.labels[rows])]
        rows = self._draw_queries(rows)
        labels = split.labels[rows]
        if self.config.measurement.label == "predicted":
            if scoring_outputs is None:
                raise ValueError("a measurement of the predicted label is judged by the scoring model's outputs")
            labels = scoring_outputs[np.searchsorted(self._measured_rows(), rows)].argmax(axis=1)
        return QueryBlock(block.split, split.ids[rows], rows, labels.astype(np.int64))

    @property
    def needs_scoring_outputs(self) -> bool:
        """Whether the queries cannot be known before a scoring model is trained."""
        return self.settings.queries.where is not None or self.config.measurement.label == "predicted"

    def _fits(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        where = self.settings.queries.where
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

    def _draw_queries(self, rows: np.ndarray) -> np.ndarray:
        block, split = self.settings.queries, self.task.splits[self.settings.queries.split]
        key = f"{self.config.where}: queries"
        if block.ids is not None:
            try:
                chosen = split.rows_of(block.ids)
            except KeyError as error:
                raise InputError(f"{key}.ids", str(error.args[0])) from error
            outside = ~np.isin(chosen, rows)
            if outside.any():
                raise InputError(
                    f"{key}.ids",
                    f"{int(np.asarray(block.ids)[outside][0])} is not measured; raise the limit in task.measure",
                )
            return chosen
        order = generator(block.seed, "queries").permutation(len(rows))
        if block.per_class is not None:
            picked = [self._of_class(rows[order], c, block.per_class, key) for c in range(len(split.classes))]
            return np.sort(np.concatenate(picked))
        count = block.count if block.count is not None else len(rows)
        if count > len(rows) or not len(rows):
            raise InputError(
                f"{key}.count" if block.count else f"{key}.where",
                f"only {len(rows)} measured points fit, {block.count or 'at least one'} asked for",
            )
        return np.sort(rows[order[:count]])

    def _of_class(self, rows: np.ndarray, label: int, wanted: int, key: str) -> np.ndarray:
        split = self.task.splits[self.settings.queries.split]
        fitting = rows[split.labels[rows] == label]
        if len(fitting) < wanted:
            raise InputError(
                f"{key}.per_class",
                f"class {split.classes[label]!r} has {len(fitting)} measured points that fit, {wanted} asked for",
            )
        return fitting[:wanted]
