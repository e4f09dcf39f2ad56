"""What an observer is: it looks at a model while it trains. No torch at import."""

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

    A recipe that changes the weights between two updates asks again and says so: `<name>/<key>@<step>+<stage>`. What it
    returns is decided by `begin`, step and network alone: a resumed training asks a new observer from there on.
    """

    name: str

    def begin(self, n_steps: int) -> None:
        """Called once before training, with the number of the last step."""
        ...

    def at(self, step: int, network: nn.Module) -> Mapping[str, np.ndarray]:
        """Arrays to record at `step` (0 is before the first update); an empty mapping records nothing."""
        ...


class TrainingPart(Component):
    """What recipes and observers share: they can refuse a task, or a network, that they cannot do anything with."""

    def check_task(self, task: Task, where: str) -> None:
        """Refuse a task; called for every arm before anything is trained, without torch. Raises InputError(where, problem)."""

    def check_network(self, task: Task, network: nn.Module, where: str) -> None:
        """Refuse what only a built network can tell, such as names of layers. Raises InputError(where, problem).

        Called in the driver with a fresh network of the prepared task, before any worker starts.
        """


class ObserverConfig(TrainingPart):
    """The config block of an observer. Its name, version and options are part of what is recorded, so of the task id."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, ObserverConfig, cls.model_fields)

    @abstractmethod
    def start(self, task: Task, device: torch.device | str = "cpu") -> Observer:
        """The observer of one training of the task; called anew for every retrain."""
