"""What a measurement is: the scalar that a campaign measures on a query. No torch at import."""

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

    `label`: the label that it reads, `gold` or `predicted` (by the scoring model). `of_classes`: it reads a probability for each
    class; otherwise one number a row.
    """

    label: ClassVar[str] = "gold"
    of_classes: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        refuse_misspelt(cls, Measurement, cls.model_fields)

    @abstractmethod
    def value(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Outputs [n, n_outputs] and labels int [n] -> float64 [n]. numpy only."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The query loss -log p(label), per example [n], in nats: what influence methods differentiate."""
