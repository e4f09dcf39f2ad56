"""Which trainings a recipe grid asks for, and what it refuses before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.campaigns.recipe_grid.campaign import RecipeGrid
from orchestrator.campaigns.recipe_grid.plan import recipe_grid_plan
from orchestrator.config.yaml_files import changed_task
from orchestrator.experiment.experiment import Experiment
from tasks.base import Numerics
from tasks.components import parse_component
from tasks.errors import InputError
from tests.orchestrator.msgs_grid import MSGS_GRID, SEEDS, msgs_grid
from tests.orchestrator.tiny_campaign import pipeline_of

PAPER = {
    "arms": [
        {"name": "finetuning", "paper": 0.76},
        {
            "name": "influence",
            "set": {"recipe": {"name": "influence_tuning", "epochs": 3}},
            "grid": {"recipe.access_rate": [0.05, 1.0]},
            "paper": {"0.05": 0.7, "1.0": 0.8},
        },
        {"name": "no_spurious", "set": {"data.prefix": False}, "grid": {"recipe.learning_rate": [1.0e-4]}},
    ],
    "grid": {"recipe.learning_rate": [1.0e-5, 3.0e-5], "recipe.epochs": [10]},
    "ablate": "recipe.access_rate",
}


def campaign_of(**changes: Any) -> RecipeGrid:
    return parse_component(RecipeGrid, PAPER | changes, "config.yaml", "recipe_grid")


def experiment_of(folder: Path, **changes: Any) -> Experiment:
    return pipeline_of(msgs_grid(folder, **changes)).experiment


# --- settings ------------------------------------------------------------------------------------------------------


def test_an_arm_has_a_setting_for_every_point_of_its_grid():
    variants = campaign_of().task_variants({}, "config.yaml")
    assert list(variants) == ["finetuning.0", "finetuning.1", *(f"influence.{n}" for n in range(4)), "no_spurious"]
    assert variants["finetuning.1"] == {"recipe.learning_rate": 3e-5, "recipe.epochs": 10}
    points = [(v["recipe.learning_rate"], v["recipe.access_rate"]) for k, v in variants.items() if "influence" in k]
    assert points == [(1e-5, 0.05), (1e-5, 1.0), (3e-5, 0.05), (3e-5, 1.0)]


def test_an_arms_own_grid_replaces_values_of_the_same_key_only():
    assert campaign_of().task_variants({}, "config.yaml")["no_spurious"] == {
        "data.prefix": False,
        "recipe.learning_rate": 1e-4,
        "recipe.epochs": 10,
    }


def test_a_block_that_an_arm_sets_is_in_place_before_the_grid_changes_it():
    changes = campaign_of().task_variants({}, "config.yaml")["influence.0"]
    block = changed_task({"recipe": {"name": "finetune", "momentum": 0.9}, "data": {}}, changes, "config.yaml")
    assert block["recipe"] == {"name": "influence_tuning", "epochs": 10, "learning_rate": 1e-5, "access_rate": 0.05}


def test_the_grid_has_the_last_word_on_a_key_that_the_arm_sets_too():
    arm = {"name": "a", "set": {"recipe.epochs": 1, "recipe": {"name": "finetune"}}}
    changes = campaign_of(arms=[arm], ablate=None).task_variants({}, "config.yaml")["a.0"]
    assert changed_task({}, changes, "config.yaml")["recipe"]["epochs"] == 10


def test_only_arms_that_have_the_ablated_key_have_levels():
    levels = {setting.label: setting.level for setting in campaign_of().settings}
    assert [levels[f"influence.{n}"] for n in range(4)] == [0.05, 1.0, 0.05, 1.0]
    assert {levels["finetuning.0"], levels["no_spurious"]} == {None}


def test_figures_of_the_paper_are_of_an_arm_or_of_its_levels():
    campaign = campaign_of()
    assert [campaign.paper("influence", level) for level in (0.05, 1.0)] == [0.7, 0.8]
    assert campaign.paper("finetuning", None) == 0.76
    assert campaign.paper("no_spurious", None) != campaign.paper("no_spurious", None)  # NaN


# --- trials --------------------------------------------------------------------------------------------------------


def test_the_first_seed_of_all_settings_comes_first(tmp_path):
    experiment = experiment_of(tmp_path)
    plan = recipe_grid_plan(experiment.campaign.settings, experiment.campaign.reference, experiment, Numerics())
    labels = list(experiment.arms)
    assert labels == ["finetuning.0", "finetuning.1", *(f"long.{n}" for n in range(4)), "untrained"]
    assert [(work.spec.seed, work.arm) for work in plan.works] == [(s, label) for s in SEEDS for label in labels]
    assert (plan.n_requested, len(plan.works)) == experiment.campaign.bounds(experiment, 0) == (21, 21)
    columns = plan.columns()
    assert list(columns) == ["arm", "setting", "repeat", "spec_id"]
    assert columns["spec_id"] == [work.spec_id for work in plan.works]
    assert columns["arm"][:3] == ["finetuning", "finetuning", "long"]
    references = [s for s, arm in zip(columns["spec_id"], columns["arm"], strict=True) if arm == "finetuning"]
    assert plan.references() == references


def test_arms_that_train_the_same_share_their_trials(tmp_path):
    arms = [{"name": "a"}, {"name": "b", "set": {"recipe.epochs": 4}}]
    experiment = experiment_of(tmp_path, recipe_grid__arms=arms)
    plan = recipe_grid_plan(experiment.campaign.settings, experiment.campaign.reference, experiment, Numerics())
    assert (plan.n_requested, len(plan.works)) == experiment.campaign.bounds(experiment, 0) == (12, 6)
    assert {work.arm for work in plan.works} == {"a.0", "a.1"}


def test_what_is_asked_names_arms_seeds_and_both_rules(tmp_path):
    experiment = experiment_of(tmp_path)
    asked = dict(experiment.campaign.asked(experiment, None))
    assert (
        "long (4 settings, recipe.epochs 5, recipe.learning_rate 0.02 or 0.05, recipe.batch_size 8 or 12)"
        in asked["Arms"]
    )
    assert "2021, 2022, 2023" in asked["Seeds"]
    assert "dev" in asked["Selection"]
    assert "train is below 0.7" in asked["Failed trials"]


# --- refusals ------------------------------------------------------------------------------------------------------

ARM = {"name": "a"}
OF_THE_BLOCK = {
    "an unknown baseline": ({"baseline": "vanilla"}, "recipe_grid.baseline: 'vanilla' is not an arm"),
    "two arms of one name": ({"arms": [ARM, ARM]}, "each may occur only once"),
    "no arm": ({"arms": []}, "recipe_grid.arms"),
    "a name with a dot": ({"arms": [{"name": "a.0"}]}, "recipe_grid.arms.0.name"),
    "a grid key without values": ({"grid": {"recipe.epochs": []}}, "recipe.epochs: at least one value"),
    "a value twice": ({"grid": {"recipe.epochs": [1, 2, 1]}}, "recipe.epochs: at least one value, each once"),
    "a value twice in an arm's own grid": (
        {"arms": [ARM | {"grid": {"recipe.name": ["x", "x"]}}], "ablate": None},
        "recipe_grid.arms.0.grid.recipe.name",
    ),
    "a key below another": (
        {"grid": {"recipe": [{}], "recipe.epochs": [1]}},
        "recipe_grid.grid.recipe: replaces the block that 'recipe.epochs' is in",
    ),
    "an ablated key that is in no grid": ({"ablate": "recipe.momentum"}, "'recipe.momentum' is in no arm's grid"),
    "an ablated key of the baseline": ({"ablate": "recipe.epochs"}, "the baseline 'finetuning'"),
    "a figure of no level": ({"arms": [ARM | {"paper": {"0.1": 0.5}}], "ablate": None}, "'0.1' is not a level"),
    "one split in two parts": ({"splits": {"test": "dev"}}, "recipe_grid.splits"),
    "a threshold that is no share": ({"failed": {"train_accuracy_below": 55}}, "failed.train_accuracy_below: 55"),
    "no trial enough": ({"min_trials": 0}, "min_trials: 0"),
}


@pytest.mark.parametrize("case", OF_THE_BLOCK)
def test_a_block_that_makes_no_sense_is_refused(case):
    changes, names = OF_THE_BLOCK[case]
    with pytest.raises(InputError) as refused:
        campaign_of(**changes).task_variants({}, "config.yaml")
    assert str(refused.value).startswith("config.yaml: recipe_grid")
    assert names in str(refused.value)
    assert "\n" not in str(refused.value)


OF_THE_DATA = {
    "dev not measured": ({"task__measure": [{"split": "train"}, {"split": "test"}]}, "splits.dev: 'dev'"),
    "train not measured in full": (
        {"task__measure": [{"split": "train", "limit": 47}, {"split": "dev"}, {"split": "test"}]},
        "task.measure: measures 47 of the 48 rows of 'train'",
    ),
    "a grid key that fits no arm": ({"recipe_grid__grid": {"recipe.momentun": [0.1]}}, "task.recipe.momentun"),
    "a split that is not there": ({"recipe_grid__splits": {"test": "hans"}}, "splits.test: 'hans'"),
}


@pytest.mark.parametrize("case", OF_THE_DATA)
def test_what_does_not_fit_the_data_is_refused(case, tmp_path):
    changes, names = OF_THE_DATA[case]
    with pytest.raises(InputError) as refused:
        experiment_of(tmp_path, **changes)
    assert str(refused.value).startswith(str(tmp_path / "config.yaml"))
    assert names in str(refused.value)


def test_an_arm_with_other_classes_than_the_baseline_is_refused(tmp_path):
    for name in ("train", "dev", "test"):
        rows = [f"w{i} word,{'yes' if i % 2 else 'no'},{'up' if i % 2 else 'down'}" for i in range(8)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label,other", *rows]) + "\n")
    data = {
        name: {"path": f"{name}.csv", "format": "csv", "text": "text", "label": "label"}
        for name in ("train", "dev", "test")
    }
    task = MSGS_GRID["task"] | {"name": "text_classification", "data": data, "measure": [{"split": s} for s in data]}
    changes = {f"data.{name}.label": "other" for name in data}
    arms = [{"name": "a"}, {"name": "b", "set": changes}]
    with pytest.raises(InputError, match=r"\(arm b.0\): recipe_grid.arms: classes down, up of 'train' are not"):
        experiment_of(tmp_path, task=task, recipe_grid__arms=arms, observe=[])
