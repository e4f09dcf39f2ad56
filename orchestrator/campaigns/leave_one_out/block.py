"""The config block of leave-one-out validation: the arms, the points that are left out, and the comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.leave_one_out.plan import LeaveOneOutPlan, arm_label, group_key, level_text
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.scoring_work import ScoringGroup
from tasks.base import Numerics
from tasks.errors import InputError
from tasks.hooks import overrides
from tasks.recipe import Recipe
from tasks.seeds import generator
from tasks.suggestions import did_you_mean

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$", max_length=60)]


class ComparisonConfig(BaseModel):
    """One row of the table: a method's scores on the model of arm `scores`, compared with retrains of arm `truth`.

    `paper`: the share that the paper reports for this row, shown next to the measured one. `against`: the label of another row with the
    same truth; this row is contrasted with it, paired by unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    method: str
    label: Annotated[str | None, Field(alias="as")] = None
    scores: str = ""
    truth: str = ""
    paper: float | None = None
    against: str | None = None

    @property
    def name(self) -> str:
        """The label of this row in the table."""
        return self.label or self.method


class LeaveOneOutBlock(Campaign):
    """Retrain without each of `points` train points, and correlate the measured with the predicted influence.

    The predicted influence of point i on query q is score(q, i); the measured one is f(q; all) - f(q; without i). Both are positive if the
    point helps the query. They have the same unit if the method's scores are in units of the measurement (influence functions
    with measurement `loss`: nats).
    `arms`: variants of the task, label -> {dotted key of the task block: value}. `over`: one key and its values; every arm is trained with
    each value (for example data seeds), and intervals are over these units. Without `over` the units are the repeats. `stack`: the
    number of retrains that are trained at once if the recipe supports it (`train_each`); 1 trains them one by one. `threshold`: the share
    of queries in the table is that with r at or above this value.
    """

    name: ClassVar[str] = "leave_one_out"
    version: ClassVar[int] = 1
    judges_own_model: ClassVar[bool] = True
    plans_by_scores: ClassVar[bool] = False

    arms: dict[Name, dict[str, Any]] = Field({"task": {}}, min_length=1)
    over: dict[str, list[Any]] = Field({}, max_length=1)
    points: Annotated[int, Field(ge=3)] | None = None
    point_seed: int = Field(0, ge=0)
    stack: int = Field(256, ge=1)
    threshold: float = Field(0.8, gt=-1, lt=1)
    comparisons: tuple[ComparisonConfig, ...] = ()

    @model_validator(mode="after")
    def _units_differ(self) -> LeaveOneOutBlock:
        for values in self.over.values():
            texts = [level_text(value) for value in values]
            if not texts or len(set(texts)) != len(texts):
                raise ValueError(f"over: at least one value, each once: {texts}")
        return self

    def task_variants(self, task: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
        """Return `<arm>`, or `<arm>.<value>` with `over`, -> its changes of the task block."""
        [(key, values)] = self.over.items() or [("", [None])]
        found = {}
        for value in values:
            for name, changes in self.arms.items():
                both = changes | {key: value} if key else changes
                found[arm_label(name, level_text(value) if key else "")] = both
        return found

    @property
    def units(self) -> tuple[str, ...]:
        """The values of `over` as text; a single empty text without `over`."""
        return tuple(level_text(value) for values in self.over.values() for value in values) or ("",)

    def check(self, experiment: Experiment) -> None:
        """Raise InputError for comparisons with unknown methods or arms, and for more points than the train set has."""
        where = f"{experiment.config.where}: leave_one_out"
        if not experiment.scored:
            raise InputError(f"{experiment.config.where}: methods", "no method has scores to compare with retrains")
        for position, comparison in enumerate(self.comparisons):
            if comparison.method not in experiment.scored:
                allowed = f"{', '.join(experiment.scored)}{did_you_mean(comparison.method, experiment.scored)}"
                problem = f"{comparison.method!r} is not among the scored methods {allowed}"
                raise InputError(f"{where}.comparisons.{position}.method", problem)
            for side in ("scores", "truth"):
                if (chosen := getattr(comparison, side)) not in self.arms and (chosen or len(self.arms) > 1):
                    raise InputError(
                        f"{where}.comparisons.{position}.{side}",
                        f"{chosen!r} is not an arm; {', '.join(self.arms)}{did_you_mean(chosen, self.arms)}",
                    )
        rows = self.compared(experiment)
        if len({(row.name, row.scores, row.truth) for row in rows}) != len(rows):
            raise InputError(f"{where}.comparisons", "two rows have the same label, scores and truth; give one an `as`")
        for position, row in enumerate(rows):
            if row.against is not None and self.baseline(row, rows) is None:
                problem = f"no other row {row.against!r} has the truth {row.truth!r}"
                raise InputError(f"{where}.comparisons.{position}.against", problem)
        n_train = min(len(arm.train) for arm in experiment.arms.values())
        if self.points is not None and self.points > n_train:
            raise InputError(f"{where}.points", f"{self.points} is more than the {n_train} training examples")
        for position, row in enumerate(rows):
            if row.scores != row.truth and (problem := self._differs(experiment, row)):
                raise InputError(f"{where}.comparisons.{position}", problem)

    def _differs(self, experiment: Experiment, row: ComparisonConfig) -> str | None:
        """Return the reason why scores of one arm cannot be compared with retrains of the other point by point; None if they can."""
        if experiment.main.asked.where is not None:
            return f"queries.where lets the models of {row.scores} and {row.truth} choose different queries"
        for unit in self.units:
            one, other = (experiment.arms[arm_label(name, unit)] for name in (row.scores, row.truth))
            if not np.array_equal(np.sort(one.train.ids), np.sort(other.train.ids)):
                return f"{one.label} and {other.label} have different training examples"
            if not np.array_equal(one.measured_ids, other.measured_ids):
                return f"{one.label} and {other.label} have different measured points"
        return None

    def compared(self, experiment: Experiment) -> tuple[ComparisonConfig, ...]:
        """Return the rows of the table: those configured, or by default every method on every arm with retrains of the same arm."""
        only, first = next(iter(self.arms)), next(iter(experiment.scored), None)
        rows = self.comparisons or tuple(
            ComparisonConfig(method=method, scores=arm, truth=arm, against=None if method == first else first)
            for arm in self.arms
            for method in experiment.scored
        )
        return tuple(row.model_copy(update={"scores": row.scores or only, "truth": row.truth or only}) for row in rows)

    @staticmethod
    def baseline(row: ComparisonConfig, rows: Sequence[ComparisonConfig]) -> ComparisonConfig | None:
        """Return the row with which `row` is contrasted: one with that label and truth, preferably with the same `scores`."""
        found = [other for other in rows if other.name == row.against and other.truth == row.truth and other != row]
        return next((other for other in found if other.scores == row.scores), found[0] if found else None)

    def scoring_groups(self, experiment: Experiment, numerics: Numerics) -> list[ScoringGroup]:
        """Return the reference of every scored arm in every repeat, since leave-one-out explains this very model."""
        names = dict.fromkeys(comparison.scores for comparison in self.compared(experiment))
        return [
            ScoringGroup(group_key(label, r), label, (experiment.scoring_work(experiment.arms[label], numerics, seed),))
            for unit in self.units
            for label in (arm_label(name, unit) for name in names)
            for r, seed in enumerate(experiment.seeds)
        ]

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of cells, number of distinct retrains)."""
        cells = works = 0
        for arm in self.truths(experiment):
            n = len(self.points_of(arm))
            n_works = n if self.width_of(arm, n) == 1 else -(-n // self.width_of(arm, n))
            cells += n * len(experiment.seeds)
            works += (1 + n_works) * len(experiment.seeds)
        return cells, works

    def truths(self, experiment: Experiment) -> Iterator[Arm]:
        """Yield the arms whose retrains are the truth of some comparison, for every unit."""
        names = dict.fromkeys(comparison.truth for comparison in self.compared(experiment))
        for unit in self.units:
            for name in names:
                yield experiment.arms[arm_label(name, unit)]

    def points_of(self, arm: Arm) -> np.ndarray:
        """Return the ascending ids of the points that are left out of an arm."""
        ids = np.sort(arm.train.ids)
        if self.points is None or self.points >= len(ids):
            return ids
        return np.sort(generator(self.point_seed, "left out").permutation(ids)[: self.points])

    def width_of(self, arm: Arm, n: int) -> int:
        """Return the number of leave-one-out retrains in one spec; all n if the recipe trains them as a dependent stack (`whole_stack`)."""
        recipe = arm.task.recipe
        if not overrides(recipe, Recipe.train_each):
            return 1
        return n if recipe.whole_stack else min(self.stack, n)

    def asked(self, experiment: Experiment, plan: LeaveOneOutPlan) -> list[tuple[str, str]]:
        """Return the question and the design for the report."""
        [(key, values)] = self.over.items() or [("", [])]
        arms = {name: ", ".join(f"{k} {v}" for k, v in changes.items()) for name, changes in self.arms.items()}
        return [
            ("Question", "how every query changes when a training point is left out, and which method predicted it"),
            ("Arms", "; ".join(f"{name} ({changes})" if changes else name for name, changes in arms.items())),
            ("Units", f"{key}: {', '.join(map(level_text, values))}" if key else f"{len(experiment.seeds)} repeats"),
            ("Points left out", f"{len(plan.cells[0].point_ids)} per arm and unit, {plan.n_requested} in all"),
        ]
