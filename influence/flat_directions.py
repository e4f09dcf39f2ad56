"""Symmetric systems in float64: by Cholesky with damping, by the pseudo-inverse without. Imports no torch.

Adding a constant to all logits does not change a softmax, so the Hessian of a softmax classifier has exact zero
eigenvalues, which rounding turns into small numbers of either sign. Gradients of such a model have no component along
those directions, so the pseudo-inverse gives the limit of the solutions as the damping vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# An eigenvalue counts as zero if its absolute value is at most RANK_TOLERANCE * d * eps * the largest absolute value in
# its block of d rows; eps = 2.2e-16. Linear algebra libraries use d * eps * largest for a matrix that is known to the
# last digit; the entries of a Hessian are sums over the train set and have a few more rounding errors.
RANK_TOLERANCE = 10.0
# A vector lies in the range if its component along zero eigenvalues is at most 1e-6 of its norm. The gradient of a
# query whose probability is nearly 1 is the difference of nearly equal numbers: below 1e-12 of the largest vector it is
# rounding error.
OUTSIDE, ROUNDING = 1e-6, 1e-12


@dataclass(frozen=True, eq=False)
class SolvedBlocks:
    """The solution of block systems with n blocks.

    `x` and the residual A x - v are both [q, n d]; the other fields are the norm of v's component along zero
    eigenvalues, [q], and the number of these eigenvalues.
    """

    x: Tensor
    left: Tensor
    outside: Tensor
    n_flat: int = 0


def solved_damped(blocks: Tensor, right: Tensor, damping: float) -> SolvedBlocks:
    """Return (A + damping I)^-1 v for blocks A [n, d, d] and `right` [n, d, q], by Cholesky.

    Raises InputError naming the required damping if a damped block is not positive definite.
    """
    import torch

    damped = blocks + damping * torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    factors, info = torch.linalg.cholesky_ex(damped)
    if bool((info != 0).any()):
        raise InputError("solver.damping", _not_definite(float(torch.linalg.eigvalsh(blocks).min()), damping))
    x = torch.cholesky_solve(right, factors)
    return SolvedBlocks(_by_vector(x), _by_vector(damped @ x - right), right.new_zeros(right.shape[-1]))


def solved_on_range(blocks: Tensor, right: Tensor, *, absolute: bool) -> SolvedBlocks:
    """Return A^+ v, or |A|^+ v with `absolute`, for blocks A [n, d, d] and `right` [n, d, q], by eigenvalues.

    A^+ is the pseudo-inverse. Raises InputError naming the required damping if an eigenvalue is negative and `absolute`
    is false.
    """
    import torch

    values, directions = torch.linalg.eigh(blocks)
    largest = values.abs().amax(-1, keepdim=True)
    flat = values.abs() <= RANK_TOLERANCE * values.shape[-1] * torch.finfo(values.dtype).eps * largest
    if not absolute and bool((values.where(~flat, torch.zeros_like(values)) < 0).any()):
        raise InputError("solver.damping", _not_definite(float(values.min()), 0.0))
    along = directions.mT @ right
    sizes = (values.abs() if absolute else values)[..., None]
    solved = torch.where(flat[..., None], torch.zeros_like(along), along / sizes)
    left = _by_vector(directions @ (sizes * solved - along))
    outside = torch.where(flat[..., None], along, torch.zeros_like(along)).square().sum((0, 1)).sqrt()
    return SolvedBlocks(_by_vector(directions @ solved), left, outside, int(flat.sum()))


def check_in_range(outside: Sequence[Tensor], vectors: Tensor, n_flat: int) -> None:
    """Refuse `vectors` [q, P] with a component along zero eigenvalues, of norm `outside` [q] in each parameter.

    Raises InputError, because such a vector has no solution without damping.
    """
    import torch

    if not len(vectors) or not outside:
        return
    sizes, norms = vectors.double().norm(dim=1), torch.stack(list(outside)).norm(dim=0)
    bad = norms > (OUTSIDE * sizes).clamp_min(ROUNDING * float(sizes.max()))
    if bool(bad.any()):
        share = float((norms / sizes)[bad].max())
        raise InputError(
            "solver.damping",
            f"0 has no solution: {n_flat} eigenvalues of the Hessian are zero, and the gradients of {int(bad.sum())} of "
            f"{len(vectors)} queries have a component along them (up to {share:.2g} of their norm; allowed: {OUTSIDE:g}); "
            "a damping above 0 is needed",
        )


def absolute(blocks: Tensor) -> Tensor:
    """Return |A| of symmetric blocks [n, d, d]: the same eigenvectors, absolute eigenvalues."""
    import torch

    values, vectors = torch.linalg.eigh(blocks)
    return vectors @ (values.abs()[..., None] * vectors.mT)


def _by_vector(columns: Tensor) -> Tensor:
    """Reshape [n, d, q] to [q, n d]."""
    return columns.permute(2, 0, 1).reshape(columns.shape[-1], -1)


def _not_definite(smallest: float, damping: float) -> str:
    problem = f"{damping:g} is too small: the smallest eigenvalue of the Hessian is {smallest:.3g}"
    return f"{problem}; a damping above {max(-smallest, 0):.3g} is needed"
