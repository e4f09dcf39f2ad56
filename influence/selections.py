"""Replaces patterns of names in identities by what they select, so that two spellings of one choice have one identity. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tasks.base import Component
from tasks.module_files import is_built_in
from tasks.task import Task


def with_selections(identity: dict[str, Any], part: Component, task: Task, base_dir: Path) -> dict[str, Any]:
    """Return `identity` of a part of a task, with the sorted names that its patterns select in place of the patterns.

    Keywords such as `all` stay, and so do patterns for a model that cannot list its parameters before it is built.
    """
    for option, kind in part.selects.items():
        patterns = getattr(part, option)
        names = None if isinstance(patterns, str) else _names(kind, task, base_dir)
        if names is not None:
            identity = {**identity, option: [name for name in names if _fits(name, patterns)]}
    return identity


def has_selections(part: Component) -> bool:
    """Return whether an option of a part is a list of patterns."""
    return any(not isinstance(getattr(part, option), str) for option in part.selects)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _names(kind: str, task: Task, base_dir: Path) -> list[str] | None:
    """Return the sorted names among which patterns choose; None if the model does not list them or may choose otherwise."""
    model = task.model
    parameters = model.parameter_names(base_dir) if is_built_in(type(model).__module__) else None
    if parameters is None:
        return None
    if kind == "trained":
        return sorted(set(parameters) - model.frozen(base_dir))
    owners = sorted({owner for name in parameters if (owner := name.rpartition(".")[0])})
    is_flat = not any(later.startswith(f"{one}.") for one in owners for later in owners)
    # if a module has both weights and submodules, a pattern may stand for all of them
    return owners if is_flat else None
