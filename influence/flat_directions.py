"""Symmetric systems in float64: by Cholesky with damping, by the pseudo-inverse without. No torch at import.

Adding a constant to all logits changes no softmax, so the Hessian of a softmax classifier has exact zero eigenvalues,
which rounding turns into small numbers of either sign. Gradients of such a model have no part along those directions:
the pseudo-inverse gives the solution that the limit of vanishing damping gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# An eigenvalue counts as zero when its size is at most RANK_TOLERANCE * d * eps * the largest size in its block of d
# rows; eps = 2.2e-16. Tools of linear algebra take d * eps * largest for a matrix that is known to the last digit;
# the entries of a Hessian are sums over the train set and carry a few roundings more.
RANK_TOLERANCE = 10.0
# A vector lies in the range when its part along zero eigenvalues is at most 1e-6 of it. The gradient of a query whose
# probability is nearly 1 is the difference of nearly equal numbers: below 1e-12 of the largest vector it is rounding.
OUTSIDE, ROUNDING = 1e-6, 1e-12


@dataclass(frozen=True, eq=False)
class SolvedBlocks:
    """x and what is left over, A x - v, both [q, n d] for n blocks; |part of v along zero eigenvalues| [q] and how many there are."""

    x: Tensor
    left: Tensor
    outside: Tensor
    n_flat: int = 0


def solved_damped(blocks: Tensor, right: Tensor, damping: float) -> SolvedBlocks:
    """(A + damping I)^-1 v for blocks A [n, d, d] and `right` [n, d, q], by Cholesky.

    Raises InputError naming the damping that is needed when a damped block is not positive definite.
    """
    import torch

    damped = blocks + damping * torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    factors, info = torch.linalg.cholesky_ex(damped)
    if bool((info != 0).any()):
        raise InputError("solver.damping", _not_definite(float(torch.linalg.eigvalsh(blocks).min()), damping))
    x = torch.cholesky_solve(right, factors)
    return SolvedBlocks(_by_vector(x), _by_vector(damped @ x - right), right.new_zeros(right.shape[-1]))


def solved_on_range(blocks: Tensor, right: Tensor, *, absolute: bool) -> SolvedBlocks:
    """A^+ v, or |A|^+ v with `absolute`, for blocks A [n, d, d] and `right` [n, d, q]: pseudo-inverses by eigenvalues.

    Raises InputError naming the damping that is needed when an eigenvalue is negative and `absolute` is false.
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
    """Refuse `vectors` [q, P] with a part along zero eigenvalues, of norms `outside` [q] in each parameter.

    Raises InputError: without damping, such a vector has no solution.
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
            f"{len(vectors)} queries have a part along them (up to {share:.2g} of their norm; allowed: {OUTSIDE:g}); "
            "a damping above 0 is needed",
        )


def absolute(blocks: Tensor) -> Tensor:
    """|A| of symmetric blocks [n, d, d]: the same eigenvectors, absolute eigenvalues."""
    import torch

    values, vectors = torch.linalg.eigh(blocks)
    return vectors @ (values.abs()[..., None] * vectors.mT)


def _by_vector(columns: Tensor) -> Tensor:
    """[n, d, q] as [q, n d]."""
    return columns.permute(2, 0, 1).reshape(columns.shape[-1], -1)


def _not_definite(smallest: float, damping: float) -> str:
    problem = f"{damping:g} leaves the Hessian without positive definiteness: its smallest eigenvalue is {smallest:.3g}"
    return f"{problem}; a damping above {max(-smallest, 0):.3g} is needed"
