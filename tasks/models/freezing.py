"""Which parameters are not trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The parameter `names` that a pattern matches, itself or as the name of a module above it.

    Raises ValueError if a pattern matches nothing, or if nothing is left to train.
    """
    names, frozen = list(names), set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not found:
            shown = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in names))
            raise ValueError(f"{pattern!r} matches no parameter; there are {shown}")
        frozen |= found
    if len(frozen) == len(names):
        raise ValueError(f"{list(patterns)!r} freezes every parameter; at least one must be trained")
    return frozen


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Stop training the parameters of `network` that `patterns` name. Raises ValueError as `frozen_names` does."""
    frozen = frozen_names([name for name, _ in network.named_parameters()], patterns)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
