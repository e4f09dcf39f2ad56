"""Some parameters of a network, or rows of them, as one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from influence.checkpoint import QueryBlock
from tasks.errors import InputError
from tasks.suggestions import did_you_mean, listed
from tasks.task import Task

Chosen = Mapping[str, np.ndarray | None]  # parameter name -> rows of its first axis, int64, or None for all of it


@dataclass(frozen=True, eq=False)
class Piece:
    """A parameter in the flat vector: its rows int64 [n_rows] (None: all) and the shape of its chosen part."""

    name: str
    rows: Tensor | None
    shape: torch.Size


class Selection:
    """Chosen parameters of a network, concatenated to one vector [P] in the order of the network.

    Rows of a parameter are in the order given. Raises ValueError if the network does not have the chosen parameters.
    """

    def __init__(self, network: nn.Module, chosen: Chosen):
        self.network, parameters = network, dict(network.named_parameters())
        unknown = [name for name in chosen if name not in parameters]
        if unknown or not chosen:
            raise ValueError(f"parameters {unknown} are not in the network" if unknown else "no parameter is chosen")
        self.pieces = [_piece(name, parameters[name], chosen[name]) for name in parameters if name in chosen]
        self.sizes = [piece.shape.numel() for piece in self.pieces]
        self.values = self.flatten(parameters).detach()

    def __len__(self) -> int:
        return sum(self.sizes)

    def flatten(self, named: Mapping[str, Tensor]) -> Tensor:
        """Concatenate the chosen parts of a tensor per parameter (values, gradients): [P]."""
        parts = [named[p.name] if p.rows is None else named[p.name].index_select(0, p.rows) for p in self.pieces]
        return torch.cat([part.reshape(-1) for part in parts])

    def parameters(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the parameters of the network with the chosen ones taken from `theta` [P]; differentiable in `theta`."""
        fixed = dict(self.network.named_parameters())
        parts = zip(self.pieces, theta.split(self.sizes), strict=True)
        return {piece.name: _substituted(fixed[piece.name].detach(), piece, part) for piece, part in parts}

    def evaluate(self, function: Callable[[Any], Tensor], theta: Tensor) -> Tensor:
        """Return the value of `function` at the network whose chosen parameters are taken from `theta` [P]."""
        named = {f"network.{name}": value for name, value in self.parameters(theta).items()}
        return torch.func.functional_call(_Bound(self.network, function), named, ())


class _Bound(nn.Module):
    """A function of a network as a module, since torch substitutes parameters in modules only."""

    def __init__(self, network: nn.Module, function: Callable[[Any], Tensor]):
        super().__init__()
        self.network, self.function = network, function

    def forward(self) -> Tensor:
        return self.function(self.network)


def choose_parameters(
    task: Task, network: nn.Module, selection: str | Sequence[str], queries: QueryBlock | None
) -> dict[str, np.ndarray | None]:
    """Return the parameters on which the Hessian is taken: parameter name -> rows, or None for all of it.

    `all` selects what the task chooses for these queries (`influence_parameters`), else every trained parameter; a list
    selects trained parameters whose name matches a pattern. The embedding row of the padding token is never trained and
    is left out. `queries` is None if the task does not choose by queries. Raises InputError for a pattern that matches
    nothing.
    """
    if selection == "all" and queries is not None and (chosen := _of_task(task, queries)) is not None:
        return chosen
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if selection != "all":
        for pattern in selection:
            if not any(fnmatchcase(name, pattern) for name in trained):
                there = f"{listed(trained)}{did_you_mean(pattern, trained)}"
                raise InputError("parameters", f"{pattern!r} matches no trained parameter; there are {there}")
        trained = [name for name in trained if any(fnmatchcase(name, pattern) for pattern in selection)]
    padding = {
        f"{name}.weight" if name else "weight": (module.num_embeddings, module.padding_idx)
        for name, module in network.named_modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    }
    return {
        name: np.delete(np.arange(padding[name][0]), padding[name][1]) if name in padding else None for name in trained
    }


def _of_task(task: Task, queries: QueryBlock) -> dict[str, np.ndarray | None] | None:
    """Return what the task chooses for these queries, or None if the task leaves the choice open."""
    found = task.influence_parameters(queries.split, queries.rows)
    if found is None:
        return None
    chosen = dict(found)
    if set(chosen) <= task.independent_rows:
        return chosen  # independent rows: those of other queries change no score of this query
    for row in queries.rows:
        alone = task.influence_parameters(queries.split, np.array([row])) or {}
        if alone.keys() != chosen.keys() or not all(np.array_equal(alone[n], chosen[n]) for n in chosen):  # type: ignore[arg-type]
            problem = "the task chooses other parameters for other queries, and their rows are not independent"
            raise InputError(
                "parameters", f"{problem}; score such queries in separate campaigns or give a list of names"
            )
    return chosen


def _piece(name: str, parameter: Tensor, rows: np.ndarray | None) -> Piece:
    if rows is None:
        return Piece(name, None, parameter.shape)
    rows = np.asarray(rows, np.int64)
    if len(np.unique(rows)) < len(rows) or ((rows < 0) | (rows >= len(parameter))).any():
        raise ValueError(f"rows of {name} repeat or are outside 0..{len(parameter) - 1}")
    return Piece(name, torch.tensor(rows, device=parameter.device), torch.Size([len(rows), *parameter.shape[1:]]))


def _substituted(fixed: Tensor, piece: Piece, part: Tensor) -> Tensor:
    part = part.view(piece.shape)
    return part if piece.rows is None else fixed.index_copy(0, piece.rows, part)
