"""The config block of a mislabels campaign: its options, the models that are trained, and the examples that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from influence.base import Method
from influence.checkpoint import QueryBlock
from influence.diagnostics.mislabel_clusters import Linkage
from influence.methods.self_influence import SelfInfluence
from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.mislabels.difficult import TRAIN, RepeatedOutputs
from orchestrator.campaigns.mislabels.truth import Truth
from orchestrator.campaigns.plan import CellTable, DistinctWorks, check_unique
from orchestrator.campaigns.scored import Scored
from orchestrator.config.blocks import QueriesConfig
from orchestrator.config.yaml_files import ConfigError
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup
from orchestrator.records import Outcome, Work
from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.errors import InputError

SELF = "self influence"  # label of the influence of every example on itself; the space keeps it apart from labels of methods
CHOSEN: dict[str, Any] = {"split": TRAIN, "where": {"correct": False}}


class MislabelsBlock(Campaign):
    """The `mislabels` block.

    The models of all repeats are trained on the whole train set. `difficult`: a training example is difficult if at least this share of
    them classifies it wrongly at the end of training. The difficult examples are the queries; the scoring models give the influence of
    each on each, by the one method of the config. `linkage`, `threshold`: how they are clustered by influence distance; `smallest`: the
    smallest cluster that is reported. `truth`: true labels, against which the rankings of suspects are judged; `k`: the numbers of
    suspects for which precision and recall are reported; `draws`: number of bootstrap samples for the intervals.
    """

    name: ClassVar[str] = "mislabels"
    version: ClassVar[int] = 1
    plans_by_scores: ClassVar[bool] = False
    fills: ClassVar[Mapping[str, Any]] = MappingProxyType({"queries": CHOSEN, "methods": [{"name": "tracin_we"}]})

    difficult: Annotated[float, Field(gt=0, le=1)] = 0.4
    linkage: Linkage = "average"
    threshold: Annotated[float, Field(gt=0, le=2)] = 0.8
    smallest: Annotated[int, Field(ge=2)] = 3
    truth: Truth | None = None
    k: tuple[Annotated[int, Field(ge=1)], ...] = ()
    draws: Annotated[int, Field(ge=100, le=100_000)] = 1000

    @field_validator("k")
    @classmethod
    def _each_once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        check_unique(values, "values")
        return tuple(sorted(values))

    def identity(self) -> dict[str, Any]:
        """Return name, version and options; a path of the truth is left out, as all paths are."""
        truth = {"column": self.truth.column} if self.truth else None
        return {**super().identity(), "truth": truth}

    def check(self, experiment: Experiment) -> None:
        """Raise InputError for options that do not fit the data."""
        where = experiment.config.where
        if experiment.settings.queries != QueriesConfig.model_validate(CHOSEN):
            problem = "mislabels chooses its queries itself, the difficult training examples; leave this block out"
            raise ConfigError(f"{where}: queries", problem)
        if experiment.config.measurement.label != "gold":
            problem = f"{experiment.config.measurement.name!r} is not about the given label; allowed: gold_probability or loss"
            raise ConfigError(f"{where}: measurement", problem)
        n_train, n_measured = len(experiment.train), len(experiment.task.measured[TRAIN])
        if n_measured != n_train:
            problem = f"records {n_measured} of {n_train} training examples; mislabels needs all: {{split: train}} without limit"
            raise ConfigError(f"{where}: task.measure", problem)
        self._check_method(experiment.methods, where)
        if self.k and self.truth is None:
            raise ConfigError(f"{where}: mislabels.k", "precision at k needs true labels; give mislabels.truth")
        if self.k and self.k[-1] > n_train:
            raise ConfigError(f"{where}: mislabels.k", f"{self.k[-1]} is above the {n_train} training examples")
        self._check_truth(experiment, where)

    def _check_method(self, methods: Mapping[str, Method], where: str) -> None:
        """Raise ConfigError unless there is exactly one method, and it is an inner product."""
        if len(methods) != 1:
            raise ConfigError(f"{where}: methods", f"{len(methods)} methods are given; mislabels takes exactly one")
        (method,) = methods.values()
        if not method.is_inner_product:
            problem = (
                f"the scores of {method.name!r} are no inner products, so they have no influence distance; "
                "allowed: tracin_we, tracin_we_topk, tracin, tracin_last, gradient_cosine"
            )
            raise ConfigError(f"{where}: methods[0]", problem)

    def _check_truth(self, experiment: Experiment, where: str) -> None:
        """Raise InputError if the true labels cannot be read, or if they are all the given labels."""
        if self.truth is None:
            return
        true = self.truth.labels(experiment.main, where)
        if (true == experiment.train.labels).all():
            problem = f"no true label in column {self.truth.column!r} differs from the given one, so there is nothing to retrieve"
            raise ConfigError(f"{where}: mislabels.truth.column", problem)

    # --- what is trained and scored ------------------------------------------------------------------------------

    def repeats(self, experiment: Experiment, numerics: Numerics) -> tuple[Work, ...]:
        """Return the repeated trainings on the whole train set, one per seed."""
        works = DistinctWorks()
        for seed in experiment.seeds:
            works.add(experiment.main.work(numerics, Edit(), seed))
        return tuple(works.works)

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """Return one group per scoring model, so that results can be compared between models; the repeats choose the queries."""
        models, judges = experiment.scoring_works(numerics), self.repeats(experiment, numerics)
        keys = [""] if len(models) == 1 else [f"m{i}" for i in range(len(models))]
        return [ScoringGroup(k, experiment.main.label, (one,), judges) for k, one in zip(keys, models, strict=True)]

    def also_scored(self, methods: Mapping[str, Method]) -> Mapping[str, Method]:
        """Return the influence of every training example on itself."""
        return {SELF: SelfInfluence(of=next(iter(methods.values())))}

    def chosen_queries(self, arm: Arm, outcomes: Sequence[Outcome]) -> QueryBlock:
        """Return the difficult examples with their given labels. Raises InputError if there are none."""
        repeated, where = RepeatedOutputs.of(outcomes, arm.train.labels), arm.where
        if not repeated.n_models:
            raise InputError(f"{where}: task.recipe", f"all {len(outcomes)} repeated trainings diverged or failed")
        rows = repeated.difficult(self.difficult)
        if not len(rows):
            most = float(repeated.wrong_frac.max())
            problem = (
                f"no training example is misclassified by a share of {self.difficult:g} of the {repeated.n_models} models; "
                f"the largest share is {most:g}"
            )
            raise InputError(f"{where}: mislabels.difficult", problem)
        return QueryBlock(TRAIN, arm.train.ids[rows], rows, arm.train.labels[rows])

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of cells, number of distinct retrains): one training per repeat."""
        return len(experiment.seeds), len(experiment.seeds)

    def planned(self, scored: Scored) -> CellTable:
        """Return the repeated trainings, which are already in the ledger when the scores are there."""
        works = self.repeats(scored.experiment, scored.numerics)
        numbers = list(range(len(works)))
        return CellTable(works, numbers, {"repeat": numbers}, numbers)

    def true_labels(self, experiment: Experiment) -> np.ndarray | None:
        """Return the true class of every train row; None without `truth`."""
        return self.truth.labels(experiment.main, experiment.config.where) if self.truth else None
