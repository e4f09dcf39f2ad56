"""The base class of measurements: a measurement is the scalar that a campaign measures on a query. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tasks.base import Component
from tasks.hooks import refuse_misspelt

if TYPE_CHECKING:
    from torch import Tensor


class Measurement(Component):
    """The scalar f(query; theta), where more is better.

    `title` names it in sentences. `label` names the label that it reads: `gold`, `predicted` by the scoring model, or `reference`, the label that the
    reference of the same seed predicts. `of_classes` is true if it reads class logits; otherwise it reads one number per row.
    """

    title: ClassVar[str] = "the measurement"
    label: ClassVar[str] = "gold"
    of_classes: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Measurement, cls.model_fields)

    @abstractmethod
    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the measurement of outputs [n, n_outputs] under labels int [n]: float64 [n]. Uses numpy only."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the query loss -log p(label) per example [n], in nats, which influence methods differentiate."""
