"""Many cluster networks trained together on differently weighted points: closed-form gradients, stacked optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.models.cluster_network import ClusterNetwork, Objective

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
CHUNK_ELEMENTS = 1 << 17  # members x points x hidden units per chunk: half a megabyte of float32, which stays in cache


@dataclass(frozen=True)
class ClusterStack:
    """Networks of one shape, one per row of a matrix theta [n_members, n_parameters], all on the same points.

    A row holds centroids [k, h], the first layer's weights and biases [h, d + 1], the second's weights [h, h] and
    biases [h]. `network` gives the shapes and the initial values; `points` [n, d]; `labels` int64 [n] for objective
    nll.
    """

    network: ClusterNetwork
    objective: Objective
    points: Tensor
    labels: Tensor

    def start(self) -> Tensor:
        """Return the network's own parameters as a row: [n_parameters]."""
        first, second = (self.network.get_submodule(name) for name in ("encoder.0", "encoder.2"))
        weight, bias = first.get_parameter("weight"), first.get_parameter("bias")
        parts = (
            self.network.centroids,
            torch.cat([weight, bias.unsqueeze(1)], 1),
            second.get_parameter("weight"),
            second.get_parameter("bias"),
        )
        return torch.cat([part.detach().flatten() for part in parts])

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return views of theta: centroids [B, k, h], first layer [B, h, d + 1], second weights [B, h, h] and biases [B, h]."""
        (k, h), d = self.network.centroids.shape, self.points.shape[1]
        centroids, first, second, bias = theta.split((k * h, h * (d + 1), h * h, h), 1)
        return centroids.view(-1, k, h), first.view(-1, h, d + 1), second.view(-1, h, h), bias

    def log_q(self, theta: Tensor, points: Tensor) -> Tensor:
        """Return each member's log q of `points` [n, d]: [n_members, n, k]."""
        u = _Forward.of(self._inputs(points), *self._parts(theta)).u
        return (u.log() - u.sum(1, keepdim=True).log()).transpose(1, 2)

    def _inputs(self, points: Tensor) -> Tensor:
        """Return the points, and a row of ones for the bias, with points as columns: [d + 1, n]."""
        ones = torch.ones(len(points), 1, dtype=self.network.centroids.dtype, device=points.device)
        return torch.cat([points.to(ones.dtype), ones], 1).T.contiguous()

    def chunks(self, n_members: int) -> Iterator[slice]:
        """Yield slices of members that fit the cache together."""
        size = max(1, CHUNK_ELEMENTS // (len(self.points) * self.network.centroids.shape[1]))
        return (slice(start, start + size) for start in range(0, n_members, size))

    def gradients_at(self, weights: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function from theta [B, n_parameters] to the gradient of each member's loss for its row of `weights` [B, n].

        The loss of a member is sum(w l) / max(sum w, 1). With u = 1 / (1 + |z - c|^2), q = u / sum_j u and target t
        (one-hot, or p of dec, without gradient): d l_i / d |z_i - c_j|^2 = (t_ij - q_ij) u_ij for both objectives; the
        rest is the chain rule of two linear layers.
        """
        inputs = self._inputs(self.points)
        onehot = one_hot(self.labels, len(self.network.centroids)).T.to(inputs.dtype).contiguous()
        weights = weights.to(inputs.dtype)
        doubled = (2 * weights / weights.sum(1, keepdim=True).clamp_min(1)).unsqueeze(1)  # 2: of the squared distance

        def gradients(theta: Tensor) -> Tensor:
            forward = _Forward.of(inputs, *self._parts(theta))
            target = onehot if self.objective == "nll" else _target(forward.q, weights)
            return forward.backward(inputs, (target - forward.q).mul_(forward.u).mul_(doubled))

        return gradients


def _target(q: Tensor, weights: Tensor) -> Tensor:
    """Return p_ij ~ q_ij^2 / f_j, f_j = sum_i w_i q_ij: [B, k, n] from q [B, k, n] and weights [B, n]."""
    masses = torch.bmm(q, weights.unsqueeze(2)).clamp_min_(torch.finfo(q.dtype).tiny)
    target = q * q / masses
    return target.div_(target.sum(1, keepdim=True))


@dataclass(frozen=True)
class _Forward:
    """The values of the forward pass that the backward pass needs.

    Points are the last axis, so that sums over hidden units run along memory. Distances are computed as |z|^2 + |c|^2 -
    2 z c, which takes a third of the passes over memory that differences take; z and c are relative to the centroids'
    mean, which limits cancellation.
    """

    centroids: Tensor  # [B, k, h], relative to their mean
    second: Tensor  # [B, h, h]
    hidden: Tensor  # [B, h, n], after the ReLU
    encoded: Tensor  # [B, h, n], relative to the centroids' mean
    u: Tensor  # [B, k, n]
    q: Tensor  # [B, k, n]

    @staticmethod
    def of(inputs: Tensor, centroids: Tensor, first: Tensor, second: Tensor, bias: Tensor) -> _Forward:
        middle = centroids.mean(1)
        centroids = centroids - middle.unsqueeze(1)
        hidden = torch.matmul(first.flatten(0, 1), inputs).view(*first.shape[:2], -1).relu_()
        encoded = torch.baddbmm((bias - middle).unsqueeze(2), second, hidden)
        squares = torch.baddbmm(centroids.square().sum(2, keepdim=True), centroids, encoded, alpha=-2)
        u = squares.add_(encoded.square().sum(1, keepdim=True)).clamp_min_(0).add_(1).reciprocal_()
        return _Forward(centroids, second, hidden, encoded, u, u / u.sum(1, keepdim=True))

    def backward(self, inputs: Tensor, by_half_square: Tensor) -> Tensor:
        """Return the gradient [B, n_parameters] from twice the gradient by the squared distances, [B, k, n].

        It uses d|z - c|^2 / dz = 2 (z - c).
        """
        both = by_half_square.sum(1, keepdim=True)
        encoded = torch.baddbmm(self.encoded * both, self.centroids.transpose(1, 2), by_half_square, alpha=-1)
        centroids = self.centroids * by_half_square.sum(2, keepdim=True)
        centroids = centroids.baddbmm_(by_half_square, self.encoded.transpose(1, 2), alpha=-1)
        second = torch.bmm(encoded, self.hidden.transpose(1, 2))
        hidden = torch.bmm(self.second.transpose(1, 2), encoded)
        before_relu = torch.ops.aten.threshold_backward(hidden, self.hidden, 0)
        first = torch.matmul(before_relu.flatten(0, 1), inputs.T).view(len(second), -1)
        return torch.cat([centroids.flatten(1), first, second.flatten(1), encoded.sum(2)], 1)


@dataclass
class StackedSGD:
    """theta -= rate g, in place."""

    rate: float

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Make one update of every member."""
        theta.add_(gradient, alpha=-self.rate)


@dataclass
class StackedAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) in place, with moments for as many members as the first gradient has."""

    rate: float
    n_steps: int = 0
    moments: list[Tensor] = field(default_factory=list)

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        """Make one update of every member."""
        if not self.moments:
            self.moments = [torch.zeros_like(gradient), torch.zeros_like(gradient)]
        self.n_steps += 1
        (first, second), (beta1, beta2) = self.moments, ADAM_BETAS
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        divisor = second.sqrt().div_((1 - beta2**self.n_steps) ** 0.5).add_(ADAM_EPS)
        theta.addcdiv_(first, divisor, value=-self.rate / (1 - beta1**self.n_steps))


def finite_or_nan(outputs: Tensor, theta: Tensor) -> np.ndarray:
    """Return outputs [n_members, n, k] as float32, NaN for members with a parameter or an output that is not finite."""
    fine = theta.isfinite().all(1) & outputs.flatten(1).isfinite().all(1)
    return outputs.masked_fill(~fine[:, None, None], torch.nan).float().cpu().numpy()
