"""Solvers of (H + damping I) x = v for many v at once: exact, conjugate gradients, LiSSA. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from influence.flat_directions import SolvedBlocks, absolute, check_in_range, solved_damped, solved_on_range
from influence.solver_options import IterativeOptions, SolverOptions, listed
from tasks.errors import InputError
from tasks.seeds import generator
from tasks.suggestions import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from influence.curvature import Curvature

COLUMNS_AT_ONCE = 2**14  # an update of that many columns stays in the processor's cache
GROWTH = 10.0  # a LiSSA run may exceed by this factor the norm that no stable run exceeds


@dataclass(frozen=True, eq=False)
class Solution:
    """x [q, P], which vectors `diverged` (bool [q]; x is zero there, and no solution), and diagnostics.

    `diagnostics` are plain JSON values; lists among them have one entry per vector.
    """

    x: Tensor
    diverged: np.ndarray
    diagnostics: dict[str, Any] = field(default_factory=dict)


class Exact(SolverOptions):
    """The dense Hessian + `damping` I, formed and solved in float64; if rows are independent, one block per row.

    With damping the system is solved by Cholesky, and InputError is raised if the damped Hessian is not positive
    definite. At damping 0 it is solved by eigenvalues: those that are zero up to rounding are left out, so that x is
    the pseudo-inverse of H times v (see influence/flat_directions.py for the tolerances); InputError is raised if H has
    negative eigenvalues, or if v has a component in the left-out directions. `max_parameters` is the largest size of a
    matrix that is formed (P, or the numbers in one row); InputError above it. `indefinite: absolute` solves with |H| +
    damping I instead, where |H| has the absolute values of the eigenvalues of H (Dauphin et al. 2014): far from a
    minimum, where H has negative curvature, a direction then counts by how strongly the loss bends along it. At a
    minimum both agree.
    """

    version: ClassVar[int] = 2  # version 1 formed the Hessian in the dtype of the network, and had no pseudo-inverse
    float64: ClassVar[bool] = True

    name: Literal["exact"] = "exact"
    damping: float = Field(default=0.0, ge=0)
    max_parameters: int = Field(default=5000, ge=1)
    indefinite: Literal["refuse", "absolute"] = "refuse"

    def solve(self, curvature: Curvature, vectors: Tensor) -> Solution:
        """Return x = (H + damping I)^-1 v for `vectors` [q, P]."""
        self.check_size(curvature)
        if curvature.independent:
            blocks, parts = curvature.blocks(), vectors.double().split(curvature.selection.sizes, 1)
            solved = [self._of_blocks(block, part) for block, part in zip(blocks, parts, strict=True)]
        else:
            solved = [self._of_blocks(curvature.dense()[None], vectors.double())]
        check_in_range([part.outside for part in solved], vectors, sum(part.n_flat for part in solved))
        x, residuals = _joined(solved, vectors)
        shape = {"blocks": sum(len(b) for b in blocks)} if curvature.independent else {}
        diagnostics = {
            "solver": self.name,
            "effective_damping": self.damping,
            "indefinite": self.indefinite,
            **shape,
            "zero_eigenvalues": sum(part.n_flat for part in solved),
            "residual": listed(residuals),
        }
        return Solution(x, np.zeros(len(x), bool), diagnostics)

    def check_size(self, curvature: Curvature) -> None:
        """Raise InputError if the Hessian is larger than `max_parameters` allows."""
        pieces, n_parameters = curvature.selection.pieces, len(curvature.theta)
        size = max(math.prod(p.shape[1:]) for p in pieces) if curvature.independent else n_parameters
        if size > self.max_parameters:
            problem = f"{size} parameters are more than max_parameters {self.max_parameters}"
            raise InputError("solver", f"{problem}; choose fewer parameters, or the solver cg or lissa")

    def _of_blocks(self, blocks: Tensor, vectors: Tensor) -> SolvedBlocks:
        """Return the solution for blocks [n, d, d] and vectors [q, n d]."""
        n, width, _ = blocks.shape
        right = vectors.view(len(vectors), n, width).permute(1, 2, 0)
        if not bool(blocks.isfinite().all()):
            raise InputError("solver", "the Hessian is not finite")
        if self.damping == 0:
            return solved_on_range(blocks, right, absolute=self.indefinite == "absolute")
        return solved_damped(absolute(blocks) if self.indefinite == "absolute" else blocks, right, self.damping)


class ConjugateGradients(IterativeOptions):
    """Conjugate gradients on H + `damping` I from x = 0, all vectors at once, until |r| <= `tolerance` |v|.

    A vector that meets a direction of negative curvature has diverged: the damped Hessian is then not positive
    definite, and a larger damping is needed. One that does not converge in `max_iterations` keeps its x, and
    `converged` in the diagnostics is false.
    """

    name: Literal["cg"] = "cg"
    damping: float = Field(default=0.01, ge=0)
    tolerance: float = Field(default=1e-4, gt=0, lt=1)
    max_iterations: int = Field(default=500, ge=1)

    def solve(self, curvature: Curvature, vectors: Tensor) -> Solution:
        """Return x ~ (H + damping I)^-1 v for `vectors` [q, P]."""
        import torch

        begun = curvature.n_batch_products
        x, negative, iterations, active = self._iterate(curvature, vectors)
        x = x.where(~negative[:, None], torch.zeros_like(x))
        residuals, told = self._checked(curvature, x, vectors, self.damping, begun)
        # by rounding, the recurrence's own residual drifts from the true one, hence the factor
        largest = max(2 * self.tolerance, 100 * torch.finfo(x.dtype).eps)
        converged = ~negative & (~active if residuals is None else residuals <= largest)
        diagnostics = {"solver": self.name, "effective_damping": self.damping, "iterations": iterations.tolist()}
        diagnostics |= {
            **told,
            "converged": converged.tolist(),
            "negative_curvature": negative.tolist(),
        }
        return Solution(x, negative.cpu().numpy(), diagnostics)

    def _iterate(self, curvature: Curvature, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x [q, P], which vectors met negative curvature (bool [q]), iterations (int [q]), and which are unfinished (bool [q]).

        Finished vectors stay unchanged.
        """
        import torch

        x, r, p = torch.zeros_like(vectors), vectors.clone(), vectors.clone()
        rr = (r * r).sum(1)
        goal = self.tolerance**2 * rr
        active, negative = rr > 0, torch.zeros_like(rr, dtype=torch.bool)
        iterations = torch.zeros_like(rr, dtype=torch.int64)
        for _ in range(self.max_iterations):
            at = active.nonzero().flatten()
            if not len(at):
                break
            product = curvature.products(p[at]) + self.damping * p[at]
            along = (p[at] * product).sum(1)
            bad = ~(along > 0)
            negative[at[bad]], active[at[bad]] = True, False
            at, product, along = at[~bad], product[~bad], along[~bad]
            step = (rr[at] / along)[:, None]
            x[at], r[at] = x[at] + step * p[at], r[at] - step * product
            before, rr[at] = rr[at], (r[at] * r[at]).sum(1)
            p[at] = r[at] + (rr[at] / before)[:, None] * p[at]
            iterations[at] += 1
            active[at] = rr[at] > goal[at]
        return x, negative, iterations, active


class LiSSA(IterativeOptions):
    """The recursion h <- v + (1 - `damping`) h - H_batch h / `scale` from h = v, `depth` times; then x = h / scale.

    The fixed point is (H + damping scale I)^-1 v, so the effective damping is damping * scale. The result is the mean
    of `repeats` runs. H_batch = Hessian of `batch_size` train rows, either shuffled anew each epoch by (`seed`, repeat,
    epoch), or in the order `given`, from the first row on. `rescale: false` leaves out the last division, as the code
    published with Silva et al. 2022 does. The recursion diverges if an eigenvalue of H + damping scale I is below zero
    or above 2 scale. A vector counts as diverged if h is not finite or far longer than in any stable run, or if |(H +
    damping scale I) x - v| > `max_residual` |v|: at 1, x = 0 is as good. Agarwal et al. 2017; Koh and Liang 2017,
    section 3.
    """

    name: Literal["lissa"] = "lissa"
    damping: float = Field(default=0.01, ge=0, lt=1)
    scale: float = Field(default=25.0, gt=0)
    depth: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    repeats: int = Field(default=1, ge=1)
    order: Literal["random", "given"] = "random"
    rescale: bool = True
    max_residual: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _distinct_repeats(self) -> LiSSA:
        if self.order == "given" and self.repeats > 1:
            raise ValueError(f"{self.repeats} repeats in the order given are all the same; repeats must be 1")
        return self

    def solve(self, curvature: Curvature, vectors: Tensor) -> Solution:
        """Return x ~ (H + damping scale I)^-1 v for `vectors` [q, P]."""
        import torch

        begun = curvature.n_batch_products
        runs = [self._run(curvature, vectors, repeat) for repeat in range(self.repeats)]
        x = torch.stack([h for h, _ in runs]).mean(0) / self.scale
        grown = torch.stack([grown for _, grown in runs]).any(0)
        residuals, told = self._checked(curvature, x, vectors, self.damping * self.scale, begun)
        diverged = grown if residuals is None else grown | ~(residuals <= self.max_residual)
        x = x.where(~diverged[:, None], torch.zeros_like(x)) * (1 if self.rescale else self.scale)
        diagnostics = {"solver": self.name, "effective_damping": self.damping * self.scale, "iterations": self.depth}
        diagnostics |= {"rescaled": self.rescale, **told}
        return Solution(x, diverged.cpu().numpy(), diagnostics)

    def _run(self, curvature: Curvature, vectors: Tensor, repeat: int) -> tuple[Tensor, Tensor]:
        """Return h [q, P] and which of them grew too long, bool [q].

        If no factor I - H / scale - damping I has a norm above 1, then |h| <= (steps + 1) |v|.
        """
        import torch

        h, product, sizes = vectors.clone(), torch.empty_like(vectors), vectors.norm(dim=1)
        grown = torch.zeros_like(sizes, dtype=torch.bool)
        for step, rows in enumerate(self._batches(curvature.ids, repeat), start=1):
            curvature.products(h, rows, (repeat, step), out=product)
            for at in range(0, h.shape[1], COLUMNS_AT_ONCE):
                part = slice(at, at + COLUMNS_AT_ONCE)
                moved = h[:, part].mul_(1 - self.damping).add_(vectors[:, part])
                moved.sub_(product[:, part].div_(self.scale))
            grown |= ~(h.norm(dim=1) <= GROWTH * (step + 1) * sizes)
            if bool(grown.any()):
                h = h.where(~grown[:, None], torch.zeros_like(h))
            if bool(grown.all()):
                break
        return h, grown

    def _batches(self, ids: np.ndarray, repeat: int) -> Iterator[np.ndarray]:
        """Yield the train rows of each step; random ones are drawn by id, so that the order of the train set does not matter."""
        by_id, step, epoch = np.argsort(ids), 0, 0
        while step < self.depth:
            shuffled = by_id[generator(self.seed, "lissa", repeat, epoch).permutation(len(ids))]
            order = shuffled if self.order == "random" else np.arange(len(ids))
            for start in range(0, min(len(ids), (self.depth - step) * self.batch_size), self.batch_size):
                yield order[start : start + self.batch_size]
                step += 1
            epoch += 1


def _known_keys(options: Any) -> Any:
    """Refuse an option of another solver, which the message of pydantic's union would list as allowed."""
    solvers = {"exact": Exact, "cg": ConjugateGradients, "lissa": LiSSA}
    cls = solvers.get(str(options.get("name"))) if isinstance(options, dict) else None
    unknown = sorted(set(options) - set(cls.model_fields)) if cls else []
    if cls and unknown:
        allowed = ", ".join(sorted(cls.model_fields))
        raise ValueError(
            f"unknown key {unknown[0]!r} of the solver {options['name']}; allowed: {allowed}{did_you_mean(unknown[0], cls.model_fields)}"
        )
    return options


Solver = Annotated[Exact | ConjugateGradients | LiSSA, Field(discriminator="name"), BeforeValidator(_known_keys)]


def _joined(solved: Sequence[SolvedBlocks], vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return solutions [q, P] in the dtype of `vectors`, and |residual| / |v| [q]."""
    import torch

    x, left = torch.cat([part.x for part in solved], 1), torch.cat([part.left for part in solved], 1)
    sizes = vectors.double().norm(dim=1)
    return x.to(vectors.dtype), torch.where(sizes > 0, left.norm(dim=1) / sizes, torch.zeros_like(sizes))
