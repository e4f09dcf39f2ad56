"""Options that solvers share, and the check of their solutions. Imports no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

    from influence.curvature import Curvature


class SolverOptions(BaseModel):
    """The options that all solvers share.

    `version` is raised when the numbers of a solver change. `float64`: derivatives are taken with the weights of the
    network in float64; otherwise in the dtype of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1
    float64: ClassVar[bool] = False

    def identity(self) -> dict[str, Any]:
        """Return what enters score ids: the options, and the version if it is not 1."""
        options = self.model_dump(mode="json")
        return options if self.version == 1 else {**options, "version": self.version}


class IterativeOptions(SolverOptions):
    """What the iterative solvers share: the check of the solutions, and the count of products.

    `check_residual`: after the last step, |(H + damping I) x - v| is computed on the whole train set, which costs one
    product per vector and batch of train rows. Without it the diagnostics hold no residual, and a vector counts as
    diverged or converged by what the steps themselves show.
    """

    check_residual: bool = True

    def identity(self) -> dict[str, Any]:
        """Return what enters score ids; `check_residual` only if it is off, so that older score ids stay."""
        options = super().identity()
        return {key: value for key, value in options.items() if key != "check_residual" or not value}

    def _checked(
        self, curvature: Curvature, x: Tensor, vectors: Tensor, damping: float, begun: int
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Return the residuals [q], None if unchecked, and their diagnostics; `begun` is `n_batch_products` before solving."""
        solved = curvature.n_batch_products
        residuals = curvature.residuals(x, vectors, damping) if self.check_residual else None
        counts = {"solver": solved - begun, "check": curvature.n_batch_products - solved}
        values = [None] * len(vectors) if residuals is None else listed(residuals)
        return residuals, {"residual": values, "batch_products": counts}


def listed(values: Tensor) -> list[float | None]:
    """Return plain JSON values, with null for a value that is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
