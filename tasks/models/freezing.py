"""Selects the parameters that are not trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_MOST_SHOWN = 5


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Return those of the parameter `names` that a pattern matches, by their own name or by that of a module above them.

    Raises ValueError if a pattern matches nothing, or if nothing is left to train.
    """
    names, frozen = list(names), set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not found:
            raise ValueError(f"{pattern!r} matches no parameter; {_near(pattern, names)}")
        frozen |= found
    if len(frozen) == len(names):
        raise ValueError(f"{list(patterns)!r} freezes every parameter; at least one must be trained")
    return frozen


def _near(pattern: str, names: Sequence[str]) -> str:
    """Suggest names close to a pattern that matches nothing, or list some of the modules."""
    modules = list(dict.fromkeys(part for name in names for part in _modules_above(name)))
    if close := get_close_matches(pattern, [*modules, *names], _MOST_SHOWN):
        return f"close to it: {', '.join(close)}"
    shown = ", ".join(modules[:_MOST_SHOWN]) + (f" ... ({len(modules)} modules)" if len(modules) > _MOST_SHOWN else "")
    return f"the modules are {shown}"


def _modules_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Stop training the parameters of `network` that `patterns` select. Raises ValueError as `frozen_names` does."""
    frozen = frozen_names([name for name, _ in network.named_parameters()], patterns)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
