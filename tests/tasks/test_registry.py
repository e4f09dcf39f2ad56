import pytest

from influence.registry import METHODS, OBSERVERS
from orchestrator.registry import CAMPAIGNS
from tasks.registry import MEASUREMENTS, MODELS, PROPERTIES, RECIPES, TASKS, Entry, Registry

ONE = {"one": Entry("tasks.planted:Planted", "a task")}


def test_a_higher_room_adds_its_parts():
    registry = Registry("tasks", ONE)
    registry.extend({"two": Entry("tasks.gaussians:Gaussians", "another")})
    assert list(registry.entries()) == ["one", "two"]
    assert registry.load("two", "test").__name__ == "Gaussians"


def test_a_name_that_is_there_is_refused_and_nothing_is_added():
    registry = Registry("tasks", ONE)
    with pytest.raises(ValueError, match="tasks one exist already"):
        registry.extend({"two": Entry("x:Y", "another"), **ONE})
    assert list(registry.entries()) == ["one"]


ALL = [CAMPAIGNS, MEASUREMENTS, METHODS, MODELS, OBSERVERS, PROPERTIES, RECIPES, TASKS]


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_every_part_is_where_its_line_says_under_its_own_name(registry):
    for name in registry.entries():
        assert registry.load(name, "test").name == name


def test_recipes_of_the_influence_room_are_listed_once_it_is_imported():
    assert {"influence_tuning", "embedding_tuning"} <= RECIPES.entries().keys()
