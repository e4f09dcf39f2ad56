"""Turns options from a config into Components, or raises an error that names the file, dotted key, value and what is allowed."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.errors import InputError
from tasks.registry import Registry
from tasks.suggestions import did_you_mean
from tasks.task import OpenRequest

Model = TypeVar("Model", bound=BaseModel)


def parse_component(cls: type[Model], options: Any, where: object, key: str = "", also: Sequence[str] = ()) -> Model:
    """Parse `options` (plain YAML values) strictly as a `cls`: no string becomes a number, no unknown key is skipped.

    `where` is the file and `key` the dotted key of `options` in it. `also` lists keys that are allowed in addition to
    those of `cls` because other code parses them; the message names them as well. Raises InputError for the first thing
    that is wrong. An unknown key is reported before a missing one, because it is often the missing one misspelt.
    """
    try:
        text = json.dumps(options)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            place(where, key), f"only text, numbers, true, false, null, lists and mappings are allowed; {error}"
        ) from error
    try:
        return cls.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _input_error(cls, options, where, key, error, also) from error


def parse_named(registry: Registry, options: Any, where: object, key: str, plugins: Sequence[str] = ()) -> Any:
    """Return the Component that `{name: ..., **options}` describes. Raises InputError on an unknown name or option."""
    if not isinstance(options, Mapping):
        raise InputError(place(where, key), f"{_shown(options)} is not a mapping with a name and options")
    name = options.get("name")
    if not isinstance(name, str):
        problem = "is missing" if "name" not in options else f"{_shown(name)} is not a name"
        raise InputError(place(where, f"{key}.name"), f"{problem}; allowed: {', '.join(sorted(registry.entries()))}")
    cls = registry.load(name, place(where, f"{key}.name"), plugins)
    return parse_component(cls, {option: value for option, value in options.items() if option != "name"}, where, key)


def parse_fitting(registry: Registry, options: Any, kind: str, request: OpenRequest) -> Any:
    """Parse the block of a task's model or recipe as `parse_named` does, and check that it is made for tasks of this kind.

    `request.key` is the dotted key of that block. Raises InputError, also if the model or recipe has another kind in `fits`.
    """
    part = parse_named(registry, options, request.where, request.key, request.plugins)
    if part.fits != kind:
        name = place(request.where, f"{request.key}.name")
        raise InputError(name, f"{options['name']!r} fits tasks of {part.fits}, not {kind}")
    return part


def place(where: object, key: str) -> str:
    """Return `<file>: <dotted key>`, the form in which an InputError names a place."""
    return f"{where}: {key}" if key else str(where)


def _input_error(
    cls: type[BaseModel], options: Any, where: object, key: str, error: ValidationError, also: Sequence[str]
) -> InputError:
    found = error.errors(include_url=False)
    unknown = [one for one in found if one["type"] == "extra_forbidden"]
    first = unknown[0] if unknown and found[0]["type"] == "missing" else found[0]
    path = _path_in(options, first["loc"], missing=first["type"] == "missing")
    dotted = ".".join([part for part in (key, *(str(step) for step in path)) if part])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = sorted({*_allowed_keys(cls, path[:-1]), *(also if len(path) == 1 else ())})
        suggestion = did_you_mean(str(path[-1]), allowed)
        problem = f"unknown key {_shown(str(path[-1]))}; allowed: {', '.join(allowed)}{suggestion}"
    elif first["type"] == "missing":
        problem = f"is missing; allowed keys here: {', '.join(_allowed_keys(cls, path[:-1]))}"
    else:
        problem = f"{_shown(_value_at(options, path))}: {message}"
    return InputError(place(where, dotted), problem)


def _path_in(options: Any, location: Sequence[int | str], missing: bool) -> list[int | str]:
    """Return the part of pydantic's location that is a path into `options`; the names of union members are left out."""
    path: list[int | str] = []
    here = options
    for position, step in enumerate(location):
        if _holds(here, step):
            here = here[step]
            path.append(step)
        elif missing and position == len(location) - 1:
            path.append(step)
    return path


def _holds(value: Any, step: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def _value_at(options: Any, path: Sequence[Any]) -> Any:
    value: Any = options
    for step in path:
        value = value[step]
    return value


def _allowed_keys(cls: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the keys that are allowed at `path` below `cls`."""
    models: list[Any] = [cls]
    for step in path:
        having = [model.model_fields[name] for model in models if (name := _field_called(model, step))]
        # If no field is called `step`, then `step` is an index or key in a list or mapping, and `models` stays as it is: it
        # already holds the classes of the entries, since _models_in looks inside annotations such as list[Entry].
        models = [found for field in having for found in _models_in(field.annotation)] if having else models
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def _field_called(model: type[BaseModel], step: int | str) -> str | None:
    return next((name for name, field in model.model_fields.items() if step in (name, field.alias)), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
