"""The interfaces of observers, which look at a model while it trains. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tasks.base import Component
from tasks.hooks import refuse_misspelt
from tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn


class Observer(Protocol):
    """Looks at a model while it trains; what it returns is recorded in the outcome under `<name>/<key>@<step>`.

    If a recipe changes the weights between two updates, it calls `at` again, and the result is recorded under
    `<name>/<key>@<step>+<stage>`. The result depends on `begin`, the step and the network alone, because a resumed
    training continues with a new observer.
    """

    name: str

    def begin(self, n_steps: int) -> None:
        """Start a training; called once, with the number of the last step."""
        ...

    def at(self, step: int, network: nn.Module) -> Mapping[str, np.ndarray]:
        """Return the arrays to record at `step` (0 is before the first update); an empty mapping records nothing."""
        ...


class TrainingPart(Component):
    """Shared by recipes and observers: checks that refuse a task or network to which they do not apply."""

    def check_task(self, task: Task, where: str) -> None:
        """Refuse a task; called for every arm before anything is trained, without torch. Raises InputError(where, problem)."""

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Refuse what can be checked only on a built network, such as names of layers. Raises InputError(where, problem).

        The driver calls this with a fresh network of the prepared task before any worker starts.
        """


class ObserverConfig(TrainingPart):
    """The config block of an observer.

    Its name, version and options determine what is recorded, and so are part of the task id.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, ObserverConfig, cls.model_fields)

    @abstractmethod
    def start(self, task: Task, device: torch.device | str = "cpu") -> Observer:
        """Return the observer of one training of the task; called anew for every retrain."""
