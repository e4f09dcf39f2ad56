"""The config block of a recipe grid: arms, their grids, the splits, and the rule for failed trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from orchestrator.campaigns.base import Campaign
from orchestrator.campaigns.plan import check_unique
from orchestrator.campaigns.recipe_grid.plan import ROLES, RecipeGridPlan, recipe_grid_plan
from orchestrator.campaigns.recipe_grid.selection import GridSetting, level_text
from orchestrator.experiment.arm import Arm
from orchestrator.experiment.experiment import Experiment
from tasks.base import Numerics
from tasks.digests import canonical_json
from tasks.errors import InputError
from tasks.suggestions import did_you_mean

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$", max_length=60)]
Grid = dict[str, list[Any]]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArmConfig(_Block):
    """One arm: `set`, its changes of the task block {dotted key: value}, and its own `grid`, which overrides the common one by key.

    `paper`: the test accuracy that the paper reports, shown next to the measured one; with `ablate`, {level as text: accuracy}.
    """

    name: Name
    set: dict[str, Any] = Field({})
    grid: Grid = Field({})
    paper: float | dict[str, float] | None = None

    @field_validator("paper")
    @classmethod
    def _fractions(cls, paper: float | dict[str, float] | None) -> float | dict[str, float] | None:
        figures = paper.values() if isinstance(paper, dict) else [0.0 if paper is None else paper]
        if wrong := [figure for figure in figures if not 0 <= figure <= 1]:
            raise ValueError(f"{wrong[0]:g} is not a fraction; an accuracy is between 0 and 1")
        return paper


class SplitsConfig(_Block):
    """The measured splits by role: `train` is fitted, `dev` selects settings, `test` is reported."""

    train: str = "train"
    dev: str = "dev"
    test: str = "test"

    @model_validator(mode="after")
    def _apart(self) -> SplitsConfig:
        check_unique([self.train, self.dev, self.test], "train, dev and test must be three splits")
        return self


class FailedConfig(_Block):
    """The rule for failed trials: a trial failed if it did not fit its train set.

    It failed if its train accuracy < `train_accuracy_below`; the default is chance for two balanced classes plus 5 points. Han &
    Tsvetkov 2021, section 6.3, footnote 12: a failed trial has the train accuracy of a random guess. Their published code leaves trials
    out by *dev* accuracy (below 0.51 on TextLen, 0.55 on MSGS), which uses the data that selects settings.
    """

    train_accuracy_below: Annotated[float, Field(ge=0, le=1)] = 0.55


class RecipeGridBlock(Campaign):
    """Train every setting of every arm with every seed; choose a setting per arm on dev; report it on test.

    A setting is a point of the arm's grid: `grid` holds for all arms, and an arm's own keys are added to it or replace keys of the same
    name. The chosen setting is the one with the highest mean dev accuracy over trials that did not fail, among settings with at least
    `min_trials` such trials. The key `ablate` is excluded from this selection: results are given for each of its values (levels). Every
    chosen setting is compared with that of the arm `baseline` (default: the first arm), paired by seed. The campaign removes no
    examples, so it has neither queries nor scores.
    """

    name: ClassVar[str] = "recipe_grid"
    version: ClassVar[int] = 1
    judges_own_model: ClassVar[bool] = True  # no model scores another
    asks_queries: ClassVar[bool] = False

    arms: Annotated[tuple[ArmConfig, ...], Field(min_length=1)]
    baseline: str | None = None
    grid: Grid = Field({})
    ablate: str | None = None
    splits: SplitsConfig = SplitsConfig()
    failed: FailedConfig = FailedConfig()
    min_trials: int = Field(3, ge=1)

    @field_validator("arms")
    @classmethod
    def _names_differ(cls, arms: tuple[ArmConfig, ...]) -> tuple[ArmConfig, ...]:
        check_unique([arm.name for arm in arms], f"names {', '.join(arm.name for arm in arms)}")
        return arms

    def identity(self) -> dict[str, Any]:
        """Return the identity as of any component, without the paper's numbers, which do not change what is trained."""
        found = super().identity()
        return found | {"arms": [{k: v for k, v in arm.items() if k != "paper"} for arm in found["arms"]]}

    def _check(self, where: str) -> None:
        """Raise InputError, which names the key in the file `where`, if keys of the block contradict each other."""
        where = f"{where}: {self.name}"
        if self.reference not in (names := [arm.name for arm in self.arms]):
            problem = f"{self.reference!r} is not an arm; {', '.join(names)}{did_you_mean(self.reference, names)}"
            raise InputError(f"{where}.baseline", problem)
        for position, arm in enumerate(self.arms):
            of_arm, grid = f"{where}.arms.{position}", self.grid_of(arm)
            of_grid = {key: f"{of_arm}.grid" if key in arm.grid else f"{where}.grid" for key in grid}
            _check_keys(arm.set, grid, f"{of_arm}.set", of_grid)
        self._check_ablate(where)

    def _check_ablate(self, where: str) -> None:
        having = [arm for arm in self.arms if self.ablate in self.grid_of(arm)]
        if self.ablate is not None and not having:
            raise InputError(f"{where}.ablate", f"{self.ablate!r} is in no arm's grid")
        if any(arm.name == self.reference for arm in having):
            problem = f"the baseline {self.reference!r} has {self.ablate!r} in its grid, but must have a single result"
            raise InputError(f"{where}.ablate", problem)
        for position, arm in enumerate(self.arms):
            levels = [level_text(v) for v in self.grid_of(arm).get(self.ablate or "", [])]
            if isinstance(arm.paper, dict) and (unknown := [text for text in arm.paper if text not in levels]):
                problem = f"{unknown[0]!r} is not a level; {', '.join(levels) or 'the arm has none'}"
                raise InputError(f"{where}.arms.{position}.paper", problem)

    @property
    def reference(self) -> str:
        """The name of the arm with which others are compared."""
        return self.baseline or self.arms[0].name

    def grid_of(self, arm: ArmConfig) -> Grid:
        """Return the common grid, with the arm's own keys added or replaced."""
        return self.grid | arm.grid

    @property
    def settings(self) -> tuple[GridSetting, ...]:
        """All settings, arm by arm, with the last key of a grid varying fastest; labelled `<arm>`, or `<arm>.<number>` if there are several."""
        return tuple(setting for arm in self.arms for setting in self._settings_of(arm))

    def _settings_of(self, arm: ArmConfig) -> Iterator[GridSetting]:
        grid = self.grid_of(arm)
        points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        for number, options in enumerate(points):
            label = arm.name if len(points) == 1 else f"{arm.name}.{number}"
            level = options.get(self.ablate or "")
            is_null = level is None and self.ablate in options
            yield GridSetting(arm.name, label, "null" if is_null else level, options)

    def task_variants(self, task: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
        """Return label of a setting -> its changes of the task block: the arm's `set`, then the point of its grid.

        Raises InputError if keys of the block contradict each other.
        """
        self._check(where)
        fixed = {arm.name: arm.set for arm in self.arms}
        return {
            setting.label: {k: v for k, v in fixed[setting.arm].items() if k not in setting.options}
            | dict(setting.options)
            for setting in self.settings
        }

    def paper(self, arm: str, level: Any) -> float:
        """Return the paper's number for an arm at a level; NaN if there is none."""
        [reported] = [one.paper for one in self.arms if one.name == arm]
        found = reported.get(level_text(level)) if isinstance(reported, dict) else reported
        return float("nan") if found is None else found

    def check(self, experiment: Experiment) -> None:
        """Raise InputError for arms that do not measure the three splits, measure only part of train, or have other classes than the baseline."""
        [first] = [setting.label for setting in self.settings if setting.arm == self.reference][:1]
        for setting in self.settings:
            where = f"{experiment.config.where} (arm {setting.label})"
            self._check_measured(experiment.arms[setting.label], where)
            self._check_classes(experiment.arms[setting.label], experiment.arms[first], where)

    def _check_measured(self, arm: Arm, where: str) -> None:
        task, names = arm.task, self.splits.model_dump()
        for role, name in names.items():
            if name not in task.measured:
                listed = f"{', '.join(sorted(task.measured))}{did_you_mean(name, task.measured)}"
                problem = f"{name!r} is not measured; task.measure lists {listed}"
                raise InputError(f"{where}: recipe_grid.splits.{role}", problem)
        n, n_measured = len(task.splits[self.splits.train]), len(np.unique(task.measured[self.splits.train]))
        if n_measured < n:
            problem = (
                f"measures {n_measured} of the {n} rows of {self.splits.train!r}; the rule for failed trials needs all"
            )
            raise InputError(f"{where}: task.measure", problem)

    def _check_classes(self, arm: Arm, baseline: Arm, where: str) -> None:
        for role in ROLES:
            name = getattr(self.splits, role)
            classes, wanted = arm.task.splits[name].classes, baseline.task.splits[name].classes
            if len(classes) < 2:
                raise InputError(
                    f"{where}: recipe_grid.splits.{role}", f"{name!r} has fewer than two classes, so it has no accuracy"
                )
            if classes != wanted:
                problem = f"classes {', '.join(classes)} of {name!r} are not the baseline's, {', '.join(wanted)}"
                raise InputError(f"{where}: recipe_grid.arms", problem)

    def bounds(self, experiment: Experiment, n_queries: int) -> tuple[int, int]:
        """Return (number of trials, number of distinct retrains); both are exact, since the plan does not depend on scores."""
        plan = recipe_grid_plan(self.settings, self.reference, experiment, Numerics())
        return plan.n_requested, len(plan.works)

    def asked(self, experiment: Experiment, plan: RecipeGridPlan) -> list[tuple[str, str]]:
        """Return the question and the design for the report."""
        seeds = experiment.seeds
        ablated = [("Ablated", f"{self.ablate}: results for each of its values")] if self.ablate else []
        return [
            (
                "Question",
                f"which recipe is more accurate on test than {self.reference}, each with the setting chosen on dev",
            ),
            ("Arms", "; ".join(self._arm_text(arm) for arm in self.arms)),
            *ablated,
            ("Seeds", f"{len(seeds)} ({', '.join(map(str, seeds))}), the same for every setting"),
            ("Selection", self.selection_rule),
            ("Failed trials", self.failed_rule),
        ]

    def _arm_text(self, arm: ArmConfig) -> str:
        grid = {key: f"{key} {_or(values)}" for key, values in self.grid_of(arm).items()}
        fixed = [f"{key} {level_text(value)}" for key, value in arm.set.items() if key not in grid]
        n = len(list(self._settings_of(arm)))
        count = [f"{n} settings"] if n > 1 else []
        parts = ", ".join([*count, *fixed, *grid.values()])
        return f"{arm.name} ({parts})" if parts else arm.name

    @property
    def selection_rule(self) -> str:
        """The selection rule in words."""
        return (
            f"the highest mean accuracy on {self.splits.dev} over trials that did not fail, among settings with at least "
            f"{self.min_trials} of them; {self.splits.test} is not looked at"
        )

    @property
    def failed_rule(self) -> str:
        """The rule for failed trials in words."""
        return (
            f"a trial failed if its accuracy on {self.splits.train} is below {self.failed.train_accuracy_below:g}; "
            "this rule was fixed beforehand and uses only the examples it was trained on"
        )


def _or(values: Sequence[Any]) -> str:
    return " or ".join(map(level_text, values))


def _check_keys(fixed: Mapping[str, Any], grid: Grid, of_set: str, of_grid: Mapping[str, str]) -> None:
    """Raise InputError for a grid key without values or with a value twice, and for a key that replaces the block of an earlier key.

    `of_set`, `of_grid` (by key): file and dotted key of the block that contains the keys.
    """
    for key, values in grid.items():
        distinct = {value if type(value) in (int, float) else canonical_json(value) for value in values}  # 1 is 1.0
        if not values or len(distinct) != len(values):
            shown = ", ".join(map(canonical_json, values))
            raise InputError(f"{of_grid[key]}.{key}", f"at least one value, each once: [{shown}]")
    in_order = [*(key for key in fixed if key not in grid), *grid]
    for position, key in enumerate(in_order):
        others = grid if key in grid else {}
        below = [other for other in (*in_order[:position], *others) if other.startswith(f"{key}.")]
        if below:
            problem = f"replaces the block that {below[0]!r} is in; give one of them"
            raise InputError(f"{of_grid.get(key, of_set)}.{key}", problem)
