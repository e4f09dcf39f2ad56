"""Options become components, or one line that says what is wrong with them."""

from typing import ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tasks.base import Component
from tasks.components import parse_component, parse_named
from tasks.errors import InputError
from tasks.registry import MODELS, Entry, Registry


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(default=1, ge=1)
    columns: str | list[str] = "a"


class Outer(Component):
    name: ClassVar[str] = "outer"
    rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    mode: Literal["mask", "drop"] = "mask"
    inner: Inner = Inner()
    many: dict[str, Inner] = Field(default_factory=dict)
    listed: list[Inner] = Field(default_factory=list)
    needed: int


@pytest.mark.parametrize(
    ("options", "place", "says"),
    [
        ({"needed": 1, "rat": 2}, "c.yaml: task.rat", ["unknown key 'rat'", "rate", "inner", "needed"]),
        ({}, "c.yaml: task.needed", ["missing"]),
        ({"needed": "3"}, "c.yaml: task.needed", ["'3'", "integer"]),
        ({"needed": True}, "c.yaml: task.needed", ["True", "integer"]),
        ({"needed": 1, "rate": -2}, "c.yaml: task.rate", ["-2", "greater than 0"]),
        ({"needed": 1, "rate": float("inf")}, "c.yaml: task.rate", ["inf", "finite"]),
        ({"needed": 1, "mode": "erase"}, "c.yaml: task.mode", ["'erase'", "'mask' or 'drop'"]),
        ({"needed": 1, "inner": {"size": 0}}, "c.yaml: task.inner.size", ["0", "greater than or equal to 1"]),
        ({"needed": 1, "inner": {"sise": 0}}, "c.yaml: task.inner.sise", ["unknown key", "columns, size"]),
        ({"needed": 1, "many": {"x": {"sise": 0}}}, "c.yaml: task.many.x.sise", ["unknown key", "columns, size"]),
        ({"needed": 1, "listed": [{}, {"sise": 0}]}, "c.yaml: task.listed.1.sise", ["unknown key", "columns, size"]),
        ({"needed": 1, "inner": {"columns": 3}}, "c.yaml: task.inner.columns", ["3"]),
        ({"needed": 1, "inner": {"columns": ["a", 3]}}, "c.yaml: task.inner.columns", ["3"]),
        ({"needed": 1, "inner": None}, "c.yaml: task.inner", ["None"]),
        ([1], "c.yaml: task", ["[1]"]),
        ({"needed": {1, 2}}, "c.yaml: task", ["set"]),
    ],
)
def test_bad_option_is_named_with_its_file_key_and_value(options, place, says):
    with pytest.raises(InputError) as caught:
        parse_component(Outer, options, "c.yaml", "task")
    assert caught.value.where.startswith(place)
    assert all(text in caught.value.problem for text in says), caught.value
    assert "\n" not in str(caught.value)


def test_top_level_has_no_leading_dot():
    with pytest.raises(InputError, match=r"^c\.yaml: mode: "):
        parse_component(Outer, {"needed": 1, "mode": 2}, "c.yaml")


def test_good_options_become_a_component():
    found = parse_component(Outer, {"needed": 2, "rate": 1, "inner": {"columns": ["a", "b"]}}, "c.yaml", "task")
    assert (found.needed, found.rate, found.inner.columns) == (2, 1.0, ["a", "b"])


KIND = Registry("things", {"outer": Entry(f"{__name__}:Outer", "a thing")})


@pytest.mark.parametrize(
    ("options", "place", "says"),
    [
        ("outer", "c.yaml: x", "mapping"),
        ({"needed": 1}, "c.yaml: x.name", "missing; allowed: outer"),
        ({"name": 3}, "c.yaml: x.name", "3 is not a name"),
        ({"name": "inner"}, "c.yaml: x.name", "unknown thing 'inner'; allowed: outer"),
        ({"name": "os:system"}, "c.yaml: x.name", "not listed under plugins"),
        ({"name": "outer", "needed": 1.5}, "c.yaml: x.needed", "1.5"),
    ],
)
def test_bad_named_component(options, place, says):
    with pytest.raises(InputError) as caught:
        parse_named(KIND, options, "c.yaml", "x")
    assert caught.value.where == place
    assert says in caught.value.problem


def test_named_component_from_plugins():
    assert parse_named(KIND, {"name": "outer", "needed": 1}, "c.yaml", "x").needed == 1
    assert parse_named(KIND, {"name": f"{__name__}:Outer", "needed": 1}, "c.yaml", "x", [__name__]).needed == 1


def test_registered_models_name_their_own_wrong_options():
    with pytest.raises(InputError, match=r"c\.yaml: task\.model\.filters: 0: "):
        parse_named(MODELS, {"name": "text_cnn", "filters": 0}, "c.yaml", "task.model")
