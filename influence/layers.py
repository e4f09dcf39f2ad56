"""The layers of a network in forward order, and how a method's `layers` option chooses among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tasks.errors import InputError
from tasks.suggestions import did_you_mean, listed
from tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
KEYWORDS = ("all", *ORDINALS, "last")


@dataclass(frozen=True)
class Layers:
    """The layers of a network.

    `groups` maps each layer to the names of its modules that have weights, in forward order; `frozen` holds the modules
    that are not trained. The word embedding is a layer of its own and the first; the module onto the logits is a layer
    of its own and the last.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()

    @staticmethod
    def of(task: Task, network: nn.Module) -> Layers:
        """Return the layers of a fresh network of the task."""
        model = task.model
        first, last = (
            [] if name is None else [name] for name in (model.embedding_module(network), model.last_module(network))
        )
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in first}
        taken = {*first, *last}
        for name in model.layer_modules(network):
            inside = tuple(leaf for leaf in _with_weights(network, name) if leaf not in taken)
            if inside:
                groups[name] = inside
                taken.update(inside)
        groups |= {name: (name,) for name in last}
        leaves = [leaf for inside in groups.values() for leaf in inside]
        return Layers(groups, frozenset(leaf for leaf in leaves if not _is_trained(network, leaf)))

    def task_for(self, task: Task, names: Iterable[str]) -> Task:
        """Return the task whose forward passes compute the modules `names`: with the whole network if one of them is frozen."""
        return task.with_whole_network() if self.frozen.intersection(names) else task

    def choose(self, selection: str | Sequence[str]) -> list[str]:
        """Return the names of the chosen modules: `all` that are trained, one layer by ordinal, or those that match a pattern.

        A pattern is compared with names of layers and of modules. The order is that of the network, not that of the
        patterns. Raises InputError for a layer that does not exist.
        """
        names = list(self.groups)
        if selection == "all":
            chosen = [leaf for name in names for leaf in self.groups[name] if leaf not in self.frozen]
        elif isinstance(selection, str):
            position = len(names) - 1 if selection == "last" else ORDINALS.index(selection)
            if not 0 <= position < len(names):
                raise InputError("layers", f"{selection!r}: the model has {len(names)} layers: {listed(names)}")
            chosen = list(self.groups[names[position]])
        else:
            fitting = {leaf for pattern in selection for leaf in self._fitting(pattern)}
            chosen = [leaf for name in names for leaf in self.groups[name] if leaf in fitting]
        if not chosen:
            raise InputError("layers", f"{selection!r} chooses no layer; the model has {listed(names)}")
        return chosen

    def _fitting(self, pattern: str) -> list[str]:
        leaves = [
            leaf
            for name, inside in self.groups.items()
            for leaf in inside
            if fnmatchcase(name, pattern) or fnmatchcase(leaf, pattern)
        ]
        if not leaves:
            there = f"{listed(self.groups)}{did_you_mean(pattern, self.groups)}"
            raise InputError("layers", f"{pattern!r} matches no layer; the model has {there}")
        return leaves


def check_selection(selection: str | Sequence[str]) -> None:
    """Raise ValueError if a `layers` option is neither a keyword nor a list of patterns."""
    if isinstance(selection, str) and selection not in KEYWORDS:
        raise ValueError(
            f"{selection!r} is not one of {', '.join(KEYWORDS)}, nor a list of name patterns{did_you_mean(selection, KEYWORDS)}"
        )
    if not selection:
        raise ValueError("an empty list chooses no layer")


def _with_weights(network: nn.Module, name: str) -> Iterator[str]:
    for leaf, module in network.get_submodule(name).named_modules(prefix=name):
        if any(parameter is not None for parameter in module._parameters.values()):
            yield leaf


def _is_trained(network: nn.Module, name: str) -> bool:
    return any(parameter.requires_grad for parameter in network.get_submodule(name).parameters(recurse=False))
