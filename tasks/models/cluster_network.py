"""The network of deep embedded clustering: an encoder, centroids, and soft assignments by a Student-t kernel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, nll_loss

Objective = Literal["dec", "nll"]


class ClusterNetwork(nn.Module):
    """Computes log q [n, n_clusters] of points [n, n_features]; q_ij ~ 1 / (1 + |z_i - c_j|^2), z = encoder(x).

    The parameters are those of the encoder (linear, ReLU, linear) and `centroids` [n_clusters, hidden]. Xie et al.
    2016, equation 1 with one degree of freedom. Points are converted to the dtype of the weights.
    """

    def __init__(self, n_features: int, hidden: int, n_clusters: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.encoder = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.centroids = nn.Parameter(torch.zeros(n_clusters, hidden))

    def forward(self, points: Tensor) -> Tensor:
        encoded = self.encoder(points.to(self.centroids.dtype))
        distances = (encoded.unsqueeze(1) - self.centroids).square().sum(2)
        return (-distances.log1p()).log_softmax(1)


def cluster_masses(log_q: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return f_j = sum_i w_i q_ij, without gradient: [n_clusters].

    The masses are never 0, so that the loss of a train set without weight stays finite.
    """
    q = log_q.detach().exp()
    masses = q.sum(0) if weights is None else (weights.unsqueeze(1) * q).sum(0)
    return masses.clamp_min(torch.finfo(masses.dtype).tiny)


def objective_losses(objective: Objective, log_q: Tensor, labels: Tensor, masses: Tensor | None) -> Tensor:
    """Return the train loss of every point [n], in nats.

    nll: -log q[label]. dec: KL(p_i || q_i), where the target p_ij ~ q_ij^2 / f_j has no gradient (Xie et al. 2016,
    equations 2 and 3; `masses` f [n_clusters] of the whole train set).
    """
    if objective == "nll":
        return nll_loss(log_q, labels, reduction="none")
    assert masses is not None
    log_target = (2 * log_q.detach() - masses.log()).log_softmax(1)
    return kl_div(log_q, log_target, reduction="none", log_target=True).sum(1)
