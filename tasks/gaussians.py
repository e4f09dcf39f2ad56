"""The task `gaussians`: a mixture of Gaussians, clustered without labels or classified with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.base import Batch, Split
from tasks.components import parse_fitting
from tasks.digests import digest_arrays
from tasks.registry import MODELS, RECIPES
from tasks.seeds import generator
from tasks.task import OpenRequest, Task, TaskConfig
from tasks.text_classification import MeasureConfig, measured_limits
from tasks.text_task import first_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.models.cluster_network import ClusterNetwork

FIRST_TRAIN_ID = 100  # ids differ from positions, so that code which confuses the two fails
SPLITS = ("train", "means")


class MixtureConfig(BaseModel):
    """`per_class` points around each of `means`, with standard deviation `std` along every axis, in the order of the means."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = Field(default=0, ge=0)
    per_class: int = Field(default=50, ge=1, le=100_000)
    std: float = Field(default=1.25, gt=0, allow_inf_nan=False)
    means: list[list[float]] = Field(default=[[0.0, 0.0], [5.0, 5.0], [5.0, -5.0]], min_length=2, max_length=1000)

    @model_validator(mode="after")
    def _points_of_one_space(self) -> MixtureConfig:
        if not self.means[0] or any(len(mean) != len(self.means[0]) for mean in self.means):
            raise ValueError(f"means {self.means} must have one length, at least 1")
        if not all(math.isfinite(number) for mean in self.means for number in mean):
            raise ValueError(f"means {self.means} must be finite")
        return self

    def splits(self) -> dict[str, Split]:
        """Return the splits train and means.

        The points of train are drawn by the generator (seed, 'mixture') and labelled by their component; the split
        means holds the means.
        """
        means = np.asarray(self.means, np.float64)
        components = np.repeat(np.arange(len(means)), self.per_class)
        noise = generator(self.seed, "mixture").standard_normal((len(components), means.shape[1]))
        points = (means[components] + self.std * noise).astype(np.float32)
        classes = tuple(str(component) for component in range(len(means)))
        ids = FIRST_TRAIN_ID + np.arange(len(points), dtype=np.int64)
        return {
            "train": Split(ids, components.astype(np.int64), classes, features=points),
            "means": Split(np.arange(len(means)), np.arange(len(means)), classes, features=means.astype(np.float32)),
        }


class Gaussians(TaskConfig):
    """A mixture of Gaussians: `data` (how it is drawn), `model`, `recipe`, and what is recorded (splits train and means).

    Silva et al. 2022, section 4.1: three components of 50 points, standard deviation 1.25.
    """

    name: ClassVar[str] = "gaussians"
    version: ClassVar[int] = 1

    data: MixtureConfig = MixtureConfig()
    model: dict[str, Any]
    recipe: dict[str, Any]
    measure: list[MeasureConfig] = Field(
        default=[MeasureConfig(split="train"), MeasureConfig(split="means")], min_length=1
    )

    def identity(self) -> dict[str, Any]:
        """Return name, version and the options that determine the points."""
        return {"name": self.name, "version": self.version, "data": self.data.model_dump(mode="json")}

    def open(self, request: OpenRequest) -> GaussiansTask:
        """Draw the points, and choose model and recipe. Raises InputError naming the file and the dotted key."""
        model = parse_fitting(MODELS, self.model, Gaussians.name, request.at("model"))
        recipe = parse_fitting(RECIPES, self.recipe, Gaussians.name, request.at("recipe"))
        limits = measured_limits(self.measure, dict.fromkeys(SPLITS), request.where, request.at("measure").key)
        splits = self.data.splits()
        return GaussiansTask(splits, first_rows(splits, limits), model, recipe, self.data.seed)


class GaussiansTask(Task):
    """A task over points; outputs are log q [n, n_clusters], and the train loss is that of the recipe's objective.

    `points` are those from which k-means starts the centroids, by default the features of the train split. This is
    preprocessing of the full train set, so removals do not change it.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        splits: Mapping[str, Split],
        measured: Mapping[str, np.ndarray],
        model: Any,
        recipe: Any,
        data_seed: int = 0,
        points: np.ndarray | None = None,
    ):
        self.splits, self.measured = dict(splits), dict(measured)
        self.model, self.recipe, self.data_seed = model, recipe, data_seed
        self.points = self._features("train") if points is None else points

    @property
    def classes(self) -> tuple[str, ...]:
        """The components, as many as there are clusters."""
        return self.splits["train"].classes

    def train_identity(self) -> dict[str, Any]:
        """Return the digest of ids, points and components of train, and of what starts the network: points and their seed."""
        start = {"points": digest_arrays(points=self.points), "data_seed": self.data_seed}
        return {"version": self.version, "train": self._train_digest, "start": start}

    def model_identity(self) -> dict[str, Any]:
        """Return options and version of the model."""
        return self.model.identity_of_weights(Path())

    def record_identity(self) -> dict[str, Any]:
        """Return the digest of the measured rows of every measured split, and the output schema."""
        splits = {name: _subset(self.splits[name], rows).content_digest() for name, rows in self.measured.items()}
        outputs = {"kind": "log_probabilities", "classes": list(self.classes)}
        return {"version": self.version, "splits": splits, "outputs": outputs}

    @cached_property
    def _train_digest(self) -> str:
        return self.splits["train"].content_digest()

    def network(self, seed: int) -> ClusterNetwork:
        """Return a fresh network; all objectives start from the same one."""
        return self.model.build(len(self.classes), self.points, seed, self.data_seed)

    def _features(self, split: str) -> np.ndarray:
        features = self.splits[split].features
        assert features is not None
        return features

    def batch(
        self, split: str, rows: np.ndarray, *, blank: np.ndarray | None = None, device: torch.device | str = "cpu"
    ) -> Batch:
        """Return `features` float32 [n, n_features] and `labels` int64 [n], the components.

        Blank rows have all features zero and label 0.
        """
        import torch

        rows = np.asarray(rows, np.int64)
        features, labels = self._features(split)[rows], self.splits[split].labels[rows]
        if blank is not None:
            features = np.where(np.asarray(blank, bool)[:, None], np.float32(0), features)
            labels = np.where(blank, 0, labels)
        return {"features": torch.from_numpy(features).to(device), "labels": torch.from_numpy(labels).to(device)}

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return log q [n, n_clusters], which are logits whose softmax is q."""
        return self.model.forward(network, batch)

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the train loss of every point [n] under the recipe's objective: -log q[component], or KL(p_i || q_i).

        The target p_ij ~ q_ij^2 / f_j, f_j = sum_i q_ij, is that of this network on the full train set and has no
        gradient, so that second derivatives of the mean loss treat it as constant (Silva et al. 2022, section 4.1). If
        the recipe is trained on clusters instead of components, the loss is -log q of the cluster that this network
        assigns to the component's mean; this is the choice of the initial network as long as training has not changed
        it. The same losses are used if only the leave-one-out fits are trained on clusters (loo_leaked), because the
        published code computes its influence scores from them too.
        """
        from tasks.models.cluster_network import cluster_masses, objective_losses

        log_q, masses = self.logits(network, batch), None
        if self.recipe.objective == "dec":
            everything = np.arange(len(self.splits["train"]))
            whole = self.logits(network, self.batch("train", everything, device=batch["features"].device))
            masses = cluster_masses(whole)
        labels = batch["labels"]
        if self.recipe.labels in ("assigned", "initial"):
            means = self.batch("means", np.arange(len(self.classes)), device=labels.device)
            labels = self.logits(network, means).argmax(1)[labels]
        return objective_losses(self.recipe.objective, log_q, labels, masses)

    def outputs(
        self, network: nn.Module, split: str, rows: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> np.ndarray:
        """Return log q, float32 [len(rows), n_clusters].

        The whole split is evaluated at once, so that no bit depends on which `rows` are requested.
        """
        import torch

        with torch.no_grad():
            everything = self.batch(split, np.arange(len(self.splits[split])), device=device)
            return self.logits(network, everything).float().cpu().numpy()[np.asarray(rows, np.int64)]

    def query_losses(self, network: Any, split: str, rows: np.ndarray, labels: np.ndarray) -> Tensor:
        """Return -log q[label] of every row [n]: the query loss, whatever the objective."""
        import torch

        device = network.centroids.device
        log_q = self.logits(network, self.batch(split, rows, device=device))
        targets = torch.as_tensor(np.asarray(labels, np.int64), device=device)
        return -log_q.gather(1, targets.unsqueeze(1)).squeeze(1)

    def query_labels(self, split: str, rows: np.ndarray, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the cluster that a model assigns to the true mean of each row's component: int64 [n].

        Clusters have no names, so the correct label is read from `outputs["means"]` [n_components, n_clusters], as in
        the published code of Silva et al. 2022. Raises ValueError if not every mean was recorded.
        """
        means = outputs.get("means")
        if means is None or len(means) != len(self.classes):
            raise ValueError("labels are read at the means of all components; measure the split means, without limit")
        return means.argmax(axis=1)[self.splits[split].labels[np.asarray(rows, np.int64)]].astype(np.int64)


def _subset(split: Split, rows: np.ndarray) -> Split:
    assert split.features is not None
    return Split(split.ids[rows], split.labels[rows], split.classes, features=split.features[rows])
