"""Reads the state of a training between two updates into a snapshot, and restores it bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.recipe import Snapshot

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Arrays = Mapping[str, np.ndarray]
_RUN, _OBSERVED = "run/", "observed/"


class Resumable(Protocol):
    """A training in progress, whose further course depends only on its arguments, its tensors and its facts."""

    @property
    def network(self) -> nn.Module: ...

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that updates change: weights, buffers, the optimiser's state."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return plain JSON values: updates made, running sums (JSON keeps every bit of a float), metrics so far."""
        ...

    def restore(self, tensors: Arrays, facts: Mapping[str, Any]) -> None:
        """Set the state to `tensors` and `facts` of another run of the same training."""
        ...


def take(run: Resumable, observed: Arrays) -> Snapshot:
    """Return a snapshot of `run` and of what observers returned.

    The arrays may share memory with the network, so they must be written before the next update.
    """
    tensors = {_RUN + name: tensor.detach().cpu().numpy() for name, tensor in run.tensors().items()}
    return Snapshot(tensors | {_OBSERVED + name: array for name, array in observed.items()}, run.facts())


def resume(run: Resumable, snapshot: Snapshot) -> dict[str, np.ndarray] | None:
    """Set a fresh run to the state of the snapshot and return the arrays of the observers.

    Returns None and changes nothing if the snapshot does not fit: a name is missing, or a shape or dtype differs.
    """
    tensors = dict(_under(_RUN, snapshot.tensors))
    fits = all(name in tensors and _alike(tensor, tensors[name]) for name, tensor in run.tensors().items())
    if not fits or run.facts().keys() != snapshot.facts.keys():
        return None
    run.restore(tensors, snapshot.facts)
    return dict(_under(_OBSERVED, snapshot.tensors))


def _under(prefix: str, tensors: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    return ((name.removeprefix(prefix), array) for name, array in tensors.items() if name.startswith(prefix))


def _alike(tensor: Tensor, array: np.ndarray) -> bool:
    return tuple(tensor.shape) == array.shape and str(tensor.dtype) == f"torch.{array.dtype}"


def module_tensors(modules: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers as `module.<name>`, tied ones once."""
    return {f"module.{name}": tensor for name, tensor in (*modules.named_parameters(), *modules.named_buffers())}


def training_tensors(modules: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the tensors of the modules and the optimiser's state, the latter as `optimizer.<number of the parameter>.<name>`.

    Learning rates are not included, because recipes set them before every update.
    """
    found = module_tensors(modules)
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{number}.{name}"] = tensor
    return found


def restore_training(tensors: Arrays, modules: nn.Module, optimizer: Optimizer) -> None:
    """Restore what `training_tensors` read, into the same modules and an optimiser that has not stepped yet."""
    copy_into(module_tensors(modules), tensors)
    parameters = _parameters(optimizer)
    for key, array in _under("optimizer.", tensors):
        number, _, name = key.partition(".")
        optimizer.state[parameters[int(number)]][name] = _beside(parameters[int(number)], array)


def copy_into(tensors: Mapping[str, Tensor], saved: Arrays) -> None:
    """Overwrite each tensor in place, so that views of it and the optimiser that holds it see the saved values."""
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.tensor(saved[name]))


def _beside(parameter: Tensor, array: np.ndarray) -> Tensor:
    """Return a tensor of the optimiser on the parameter's device and in its memory layout, which fused kernels require."""
    import torch

    tensor = torch.tensor(array, device=parameter.device)
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
