"""The plan of a recipe grid: its trials and their distinct retrains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.campaigns.plan import DistinctWorks
from orchestrator.campaigns.recipe_grid.selection import GridSetting
from orchestrator.experiment.experiment import Experiment
from orchestrator.records import Work
from tasks.base import Numerics
from tasks.data.edits import Edit

ROLES = ("train", "dev", "test")


@dataclass(frozen=True)
class Trial:
    """One setting in one repeat; `setting` and `work` index the plan's settings and works."""

    setting: int
    repeat: int
    work: int


@dataclass(frozen=True)
class RecipeGridPlan:
    """All trials of a recipe grid and their distinct works."""

    settings: tuple[GridSetting, ...]
    works: tuple[Work, ...]
    trials: tuple[Trial, ...]
    baseline: str

    is_final: ClassVar[bool] = True

    @property
    def n_requested(self) -> int:
        """The number of trials: settings x repeats."""
        return len(self.trials)

    def references(self) -> list[str]:
        """Return the spec ids of the baseline's trials."""
        ours = (trial.work for trial in self.trials if self.settings[trial.setting].arm == self.baseline)
        return [self.works[work].spec_id for work in dict.fromkeys(ours)]

    def columns(self) -> dict[str, list]:
        """Return the columns of plan.parquet in dispatch order: arm, setting, repeat, spec_id."""
        settings = [self.settings[trial.setting] for trial in self.trials]
        return {
            "arm": [setting.arm for setting in settings],
            "setting": [setting.label for setting in settings],
            "repeat": [trial.repeat for trial in self.trials],
            "spec_id": [self.works[trial.work].spec_id for trial in self.trials],
        }


def recipe_grid_plan(
    settings: tuple[GridSetting, ...], baseline: str, experiment: Experiment, numerics: Numerics
) -> RecipeGridPlan:
    """Plan every setting with every seed; the first seed of all settings comes first."""
    works = DistinctWorks()
    trials = tuple(
        Trial(s, r, works.add(experiment.arms[setting.label].work(numerics, Edit(), seed)))
        for r, seed in enumerate(experiment.seeds)
        for s, setting in enumerate(settings)
    )
    return RecipeGridPlan(settings, tuple(works.works), trials, baseline)
