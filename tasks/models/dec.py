"""The model of deep embedded clustering and of its supervised counterpart: Silva et al. 2022, section 4.1."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tasks.base import Batch
from tasks.model import Model
from tasks.seeds import purpose_seed, torch_generator

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tasks.models.cluster_network import ClusterNetwork

CENTROID_NOISE = 0.5
KMEANS_STARTS = 3


class Dec(Model):
    """Linear, ReLU, linear onto `hidden` units, and one centroid per cluster; log q of a Student-t kernel.

    The network has 228 parameters with two features, three clusters and hidden 12. Weights and biases start uniform in
    +-1/sqrt(fan in), torch's default. Centroids start as those of k-means on the fresh encoder's outputs, plus half a
    standard normal each. Xie et al. 2016, equation 1; start and sizes as in the published code of Silva et al. 2022.
    """

    name: ClassVar[str] = "dec"
    version: ClassVar[int] = 1
    fits: ClassVar[str] = "gaussians"

    hidden: int = Field(12, ge=1, le=4096)

    def parameter_names(self, base_dir: Path = Path()) -> list[str]:
        """Return the names of the network's parameters, without torch."""
        return ["centroids", *(f"encoder.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))]

    def build(self, n_clusters: int, points: np.ndarray, seed: int, data_seed: int) -> ClusterNetwork:
        """Return a fresh network; k-means on `points` float [n, n_features], the whole train set, starts the centroids.

        Everything random is keyed (seed, purpose, data_seed): initial weights, k-means, and the noise of the centroids.
        """
        import torch

        from tasks.models.cluster_network import ClusterNetwork

        network = ClusterNetwork(points.shape[1], self.hidden, n_clusters)
        _initialise(network, torch_generator(seed, "init", data_seed))
        with torch.no_grad():
            encoded = network.encoder(torch.from_numpy(np.asarray(points, np.float32))).numpy()
            found = _kmeans(encoded, n_clusters, purpose_seed(seed, "kmeans", data_seed))
            noise = torch.randn(found.shape, generator=torch_generator(seed, "centroids", data_seed))
            network.centroids.copy_(torch.from_numpy(found) + CENTROID_NOISE * noise)
        return network

    def forward(self, network: ClusterNetwork, batch: Batch) -> Tensor:
        """Return log q [n, n_clusters]; its softmax is q."""
        return network(batch["features"])

    def layer_modules(self, network: ClusterNetwork) -> list[str]:
        """Return the names of the linear layers, in forward order; the centroids are a parameter of the network itself."""
        return ["encoder.0", "encoder.2"]


def _initialise(network: ClusterNetwork, generator: Generator) -> None:
    """Initialise as nn.Linear does by default, with draws from `generator`."""
    from torch import nn

    for layer in (network.encoder[0], network.encoder[2]):
        assert isinstance(layer, nn.Linear)
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _kmeans(encoded: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Return centroids [n_clusters, hidden] float32 of the best of three starts.

    k-means runs in float64, so that rounding of the BLAS library does not change a bit of the result.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(n_clusters, n_init=KMEANS_STARTS, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        # an encoder can map the points onto fewer distinct outputs than there are clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(encoded.astype(np.float64)).cluster_centers_.astype(np.float32)
