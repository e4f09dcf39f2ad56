"""A plugin with a misspelt hook, a forgotten method or the wrong base class ends in one line and exit code 2."""

from __future__ import annotations

from typing import ClassVar

import pytest

from influence.methods.influence_function import InfluenceFunction
from orchestrator.cli import main
from tasks.errors import MisspeltHookError
from tasks.recipe import Recipe
from tasks.recipes.finetune import Finetune
from tasks.task import Task
from tests.orchestrator.tiny_campaign import CONFIG, write_config

TASK = """
from tasks.planted import Planted
from tasks.task import Task
from tasks.text_task import TextTask

class Weighted(TextTask):
    def row_hessian(self, network, name, rows): ...

class Own(Planted):
    name = "own"
"""
RECIPE = """
from typing import ClassVar
from tasks.recipes.finetune import Finetune

class Own(Finetune):
    name = "own"

    def check_tasks(self, task, where): ...
"""
FLAG = """
from typing import ClassVar
from tasks.recipes.finetune import Finetune

class Own(Finetune):
    name = "own"
    resumeable: ClassVar[bool] = False
"""
METHOD = """
from influence.base import Method

class Own(Method):
    name = "own"

    def explained_split(self, task): ...
    def score(self, queries, train, prepared): ...
"""
MODEL = """
from tasks.models.text_cnn import TextCNN

class Own(TextCNN):
    name = "own"

    def last_modules(self, network): ...
"""
OBSERVER = """
from tasks.observer import ObserverConfig

class Own(ObserverConfig):
    name = "own"

    def start(self, task, device="cpu"): ...
    def check_networks(self, task, network, where): ...
"""
MEASUREMENT = """
from typing import ClassVar
from tasks.measurements import GoldProbability

class Own(GoldProbability):
    name = "own"
    of_class: ClassVar[bool] = False
"""
# kind -> the keys of the config that name the part, and how
PLACES = {
    "task": ("task", {**CONFIG["task"], "name": "{}"}),
    "recipe": ("task.recipe", {"name": "{}"}),
    "model": ("task.model", {"name": "{}"}),
    "method": ("methods", [{"name": "{}", "as": "own"}]),
    "observer": ("observe", [{"name": "{}"}]),
    "measurement": ("measurement", {"name": "{}"}),
}


def refused(kind, source, tmp_path, plugin, capsys) -> str:
    """The one line that `refit plan` ends in, with exit code 2, for a part of this kind."""
    module = plugin(f"hooks_of_{tmp_path.name}", source)
    key, block = PLACES[kind]
    part = f"{module}:Own"
    filled = [{**one, "name": part} for one in block] if isinstance(block, list) else {**block, "name": part}
    path = write_config(tmp_path, {key: filled, "plugins": [module]})
    assert main(["plan", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{path}: {key}" in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("kind", "source", "name", "meant"),
    [
        ("task", TASK, "Weighted defines 'row_hessian', which Task does not have", "row_hessians"),
        ("recipe", RECIPE, "Own defines 'check_tasks', which Recipe does not have", "check_task"),
        ("recipe", FLAG, "Own defines 'resumeable', which Recipe does not have", "resumable"),
        ("model", MODEL, "Own defines 'last_modules', which Model does not have", "last_module"),
        ("method", METHOD, "Own defines 'explained_split', which Method does not have", "explained_splits"),
        ("observer", OBSERVER, "Own defines 'check_networks', which ObserverConfig does not have", "check_network"),
        ("measurement", MEASUREMENT, "Own defines 'of_class', which Measurement does not have", "of_classes"),
    ],
    ids=["task", "recipe", "flag of a recipe", "model", "method", "observer", "measurement"],
)
def test_a_misspelt_hook_is_named_with_the_one_that_was_meant(kind, source, name, meant, tmp_path, plugin, capsys):
    line = refused(kind, source, tmp_path, plugin, capsys)
    assert name in line
    assert f"it has the hook {meant!r}" in line


PLAIN = """
from tasks.base import Component

class Own(Component):
    name = "own"
"""


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("task", "tasks.task.TaskConfig"),
        ("recipe", "tasks.recipe.Recipe"),
        ("model", "tasks.model.Model"),
        ("method", "influence.base.Method"),
        ("observer", "tasks.observer.ObserverConfig"),
        ("measurement", "tasks.measurement.Measurement"),
    ],
)
def test_a_part_that_does_not_derive_from_its_base_is_refused(kind, base, tmp_path, plugin, capsys):
    line = refused(kind, PLAIN, tmp_path, plugin, capsys)
    assert line.endswith(f"{kind}: it does not derive from {base}")


def test_a_task_object_that_does_not_derive_from_its_base_is_refused(tmp_path, plugin, capsys):
    source = """
from tasks.planted import Planted

class Loose:
    pass

class Own(Planted):
    name = "own"

    def open(self, request):
        return Loose()
"""
    line = refused("task", source, tmp_path, plugin, capsys)
    assert line.endswith("opens a Loose, which does not derive from tasks.task.Task")


def test_a_recipe_without_a_method_that_every_recipe_has_is_refused(tmp_path, plugin, capsys):
    source = """
from tasks.recipe import Recipe

class Own(Recipe):
    name = "own"

    def train(self, task, training): ...
    def learning_rate_at(self, n_train, step): ...
"""
    line = refused("recipe", source, tmp_path, plugin, capsys)
    assert line.endswith("does not define checkpoint_step, last_epoch, which tasks.recipe.Recipe requires")


def test_options_and_names_that_are_not_close_to_a_hook_are_free():
    class Free(Finetune):
        name: ClassVar[str] = "free"
        steps: int = 3  # no hook, whatever it is like
        checks: int = 1  # nearly `check`, which is a method: an option is never meant for one

        def weights(self) -> int:
            return self.steps

    assert Free().weights() == 3
    assert {"solver"} <= InfluenceFunction.model_fields.keys(), "nearly `solve`"
    with pytest.raises(MisspeltHookError, match="'resumables'"):

        class Option(Finetune):
            name: ClassVar[str] = "option"
            resumables: bool = True


def test_a_hook_may_be_defined_anew_by_any_subclass():
    assert issubclass(Finetune, Recipe)

    class Own(Task):
        def penalty(self, network):
            return None

    assert Own.penalty is not Task.penalty
