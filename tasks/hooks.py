"""Hooks: the methods and attributes of a base class that subclasses may override. Misspelling one is an error."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from tasks.errors import MisspeltHookError

# The least similarity (difflib's ratio) at which a name counts as a misspelling. Two names of which one has an
# additional letter reach this similarity if the longer one has at least four letters. Two names of equal length that
# differ in one letter, or by two swapped neighbouring letters, reach it if they have at least seven letters.
CLOSE = 0.85


def refuse_misspelt(cls: type, base: type, options: Collection[str] = ()) -> None:
    """Raise MisspeltHookError if `cls` defines a public name that is nearly that of a hook of `base`.

    `options` are the names of the fields that a config sets. They are compared only with the attributes of `base`,
    because an option such as `solver` is no misspelling of the method `solve`. The exact name of a hook is always
    allowed.
    """
    hooks = {name for name in _public(base) if not hasattr(BaseModel, name)}
    attributes = [name for name in hooks if not callable(getattr(base, name, None))]
    defined = {*vars(cls), *vars(cls).get("__annotations__", {})}
    for name in sorted(name for name in defined if not name.startswith("_") and name not in hooks):
        near = get_close_matches(name, attributes if name in options else hooks, n=1, cutoff=CLOSE)
        if near and not hasattr(BaseModel, name):
            problem = f"defines {name!r}, which {base.__name__} does not have; it has the hook {near[0]!r}"
            raise MisspeltHookError(
                f"{cls.__module__}.{cls.__qualname__} {problem}; correct the name, or choose another"
            )


def overrides(part: object, hook: Any) -> bool:
    """Return whether the class of `part` overrides `hook`, a method or property of a base class.

    `overrides(recipe, Recipe.train_each)` is true for a recipe that can train a stack, which is many retrains trained
    together.
    """
    name: str = getattr(hook, "fget", hook).__name__  # a property has its name on its function
    return getattr(type(part), name) is not hook


def _public(base: type) -> set[str]:
    annotated = {name for cls in base.__mro__ for name in vars(cls).get("__annotations__", {})}
    return {name for name in {*dir(base), *annotated} if not name.startswith("_")}
