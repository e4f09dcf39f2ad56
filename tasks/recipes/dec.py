"""Deep embedded clustering and its supervised counterpart: full-batch updates on one of two objectives, singly or as a stack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tasks.base import Numerics
from tasks.data.edits import Edit
from tasks.recipe import Recipe, Trained, Training
from tasks.recipes.optimizers import make_optimizer
from tasks.recipes.schedules import updates_by
from tasks.resuming import restore_training, training_tensors
from tasks.task import Task
from tasks.training import EditedTrainSet, Watch, check_whole_batches, deterministic, is_finite, start_from

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from tasks.stacked import ClusterStack


class DecTraining(Recipe):
    """`steps` full-batch updates on the loss sum(w l) / max(sum w, 1); an epoch is one step.

    `objective` dec: l_i = KL(p_i || q_i) with the target p_ij ~ q_ij^2 / f_j, f_j = sum_i w_i q_ij, recomputed at every
    step and without gradient (Xie et al. 2016, equations 2 and 3). `objective` nll: l_i = -log q[label]. `labels`
    chooses the labels of nll. With components it is the number of the component that generated the point, which need
    not be the number of the cluster that starts near it. With initial it is the cluster that the fresh network assigns
    to the component's mean, so that nll uses the numbering of the clusters and its result can be compared with that of
    dec. Defaults are those of the published code of Silva et al. 2022, section 4.1: two steps of Adam with betas 0.9
    and 0.999, eps 1e-8. Micro-batches are refused because the target needs the full batch. `dtype` float64 computes the
    steps in double precision even if numerics has single precision: after hundreds of float32 updates, rounding can
    decide on which side of a ReLU a point falls, and then a stack and single trainings differ by more than 1e-5.
    """

    name: ClassVar[str] = "dec"
    version: ClassVar[int] = 1
    fits: ClassVar[str] = "gaussians"
    resumable: ClassVar[bool] = True
    whole_batches: ClassVar[bool] = True

    objective: Literal["dec", "nll"] = "dec"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    steps: int = Field(2, ge=1, le=1_000_000)
    labels: Literal["components", "initial"] = "components"
    dtype: Literal["float32", "float64"] = "float32"

    def last_epoch(self) -> float:
        """Return the number of steps."""
        return float(self.steps)

    def checkpoint_step(self, n_train: int, epoch: float) -> int:
        """Return the number of updates made by the end of `epoch`: an epoch is one step. Raises ValueError outside 0 < epoch <= steps."""
        return updates_by(epoch, self.steps, 1)

    def learning_rate_at(self, n_train: int, step: int) -> float:
        """Return the learning rate of update `step` (1-based), which is constant. Raises ValueError past the last update."""
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is outside 1..{self.steps}")
        return self.learning_rate

    def train(self, task: Task, training: Training) -> Trained:
        """Train a fresh network, or one with the weights `training.parent`, on the edited train set; same arguments, same bits.

        `metrics`: n_steps (updates made); train_loss (weighted mean before the last update). Raises ValueError if a
        step of `keep_steps` is never reached, InputError for micro-batches and length groups, GivenBack if `training.snapshots` requests
        a stop.
        """
        numerics = training.numerics
        check_whole_batches(self, numerics)
        deterministic(numerics)
        train_set = EditedTrainSet.of(task, training.edit)
        n_steps = self.steps if train_set.n_slots else 0
        watch = Watch.of(training, n_steps)
        network = self._placed(start_from(task.network(training.seed), training.parent), numerics)
        run = DecRun(network, self._optimizer(network))
        batch_loss = self._batch_loss(task, train_set, numerics.device, self._clusters(task, training.seed))
        watch.begin(run)
        while run.step < n_steps:
            if not run.update(batch_loss):
                return Trained(network, {"n_steps": float(run.step)}, diverged=True, observed=watch.observed)
            watch.passed(run.step, network)
        metrics = {"n_steps": float(n_steps), "train_loss": run.loss}
        return Trained(network, metrics, diverged=not is_finite(network), observed=watch.observed)

    def _placed(self, network: nn.Module, numerics: Numerics) -> nn.Module:
        """Return the network on its device, in the wider of the dtypes of the recipe and of numerics."""
        import torch

        wider = torch.promote_types(getattr(torch, self.dtype), getattr(torch, numerics.dtype))
        return network.to(device=numerics.device, dtype=wider)

    def _optimizer(self, network: nn.Module) -> Optimizer:
        from tasks.stacked import ADAM_BETAS, ADAM_EPS

        return make_optimizer(
            network,
            self.optimizer,
            learning_rate=self.learning_rate,
            momentum=0.0,
            weight_decay=0.0,
            betas=ADAM_BETAS,
            eps=ADAM_EPS,
        )

    def _clusters(self, task: Task, seed: int) -> Tensor:
        """Return the label on which points of each component are trained: int64 [n_components]."""
        import torch

        rows = np.arange(len(task.splits["means"]))
        if self.labels != "initial":
            return torch.arange(len(rows))
        return torch.from_numpy(task.outputs(task.network(seed), "means", rows).argmax(1))

    def _batch_loss(
        self, task: Task, train_set: EditedTrainSet, device: str, clusters: Tensor
    ) -> Callable[[nn.Module], Tensor]:
        """Return a function for the weighted loss of the whole edited train set; rows without weight are blank and change no bit."""
        import torch

        from tasks.models.cluster_network import cluster_masses, objective_losses

        rows = np.flatnonzero(train_set.kept)
        of_rows = train_set.weights[rows]
        batch = task.batch("train", rows, blank=of_rows == 0, device=device)
        denominator = max(float(of_rows.sum(dtype=np.float64)), 1.0)
        weights32 = torch.as_tensor(of_rows, device=device)
        labels = clusters.to(batch["labels"].device)[batch["labels"]]

        def loss(network: nn.Module) -> Tensor:
            log_q = task.logits(network, batch)
            weights = weights32.to(log_q.dtype)
            masses = cluster_masses(log_q, weights) if self.objective == "dec" else None
            return (weights * objective_losses(self.objective, log_q, labels, masses)).sum() / denominator

        return loss

    def train_each(self, task: Task, training: Training) -> Trained:
        """Train all retrains of an edit of mode `each` as one stack, equal to as many single trainings, with closed-form gradients.

        `outputs`: measured split -> log q float32 [n_each, n_rows, n_clusters], in the order of the edit's ids, NaN for
        members that diverged; `metrics`: n_steps and n_diverged. Raises ValueError on other edits, InputError for
        micro-batches and length groups.
        """
        import torch

        check_whole_batches(self, training.numerics)
        deterministic(training.numerics)
        stack = self._stack(task, training.seed, training.numerics)
        weights = each_weights(task, training.edit, stack.points)
        parts: dict[str, list[np.ndarray]] = {split: [] for split in task.measured}
        with torch.no_grad():
            for members in stack.chunks(len(weights)):
                theta = self._trained_stack(stack, weights[members])
                for split, found in self._outputs(task, stack, theta).items():
                    parts[split].append(found)
        outputs = {split: np.concatenate(found) for split, found in parts.items()}
        return stack_result(outputs, self.steps)

    def _stack(self, task: Task, seed: int, numerics: Numerics) -> ClusterStack:
        """Return a stack of the task's fresh network, on its full train set."""
        from tasks.stacked import ClusterStack

        network: Any = self._placed(task.network(seed), numerics)
        batch = task.batch("train", np.arange(len(task.splits["train"])), device=numerics.device)
        labels = self._clusters(task, seed).to(batch["labels"].device)[batch["labels"]]
        return ClusterStack(network, self.objective, batch["features"], labels)

    def _trained_stack(self, stack: ClusterStack, weights: Tensor) -> Tensor:
        """Return the parameters of one member per row of `weights` after all steps."""
        from tasks.stacked import StackedAdam, StackedSGD

        theta = stack.start().repeat(len(weights), 1)
        optimizer = (StackedAdam if self.optimizer == "adam" else StackedSGD)(self.learning_rate)
        gradients = stack.gradients_at(weights)
        for _ in range(self.steps):
            optimizer.step(theta, gradients(theta))
        return theta

    def _outputs(self, task: Task, stack: ClusterStack, theta: Tensor) -> dict[str, np.ndarray]:
        """Map each measured split to log q of every member."""
        from tasks.stacked import finite_or_nan

        found = {}
        for split, rows in task.measured.items():
            points = task.batch(split, rows, device=stack.points.device)["features"]
            found[split] = finite_or_nan(stack.log_q(theta, points), theta)
        return found


class DecRun:
    """A training in progress: network, optimiser, updates made, and the loss before the last update."""

    def __init__(self, network: nn.Module, optimizer: Optimizer):
        self.network, self.optimizer, self.step, self.loss = network, optimizer, 0, 0.0

    def update(self, batch_loss: Callable[[nn.Module], Tensor]) -> bool:
        """Make one update and return True; if the loss is not finite, make none and return False."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = batch_loss(self.network)
        loss.backward()
        self.loss = loss.item()
        if not math.isfinite(self.loss):
            return False
        self.optimizer.step()
        self.step += 1
        return True

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that updates change."""
        return training_tensors(self.network, self.optimizer)

    def facts(self) -> dict[str, Any]:
        """Return the number of updates and the last loss."""
        return {"step": self.step, "loss": self.loss}

    def restore(self, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Set the state to these tensors and facts of another run of the same training."""
        restore_training(tensors, self.network, self.optimizer)
        self.step, self.loss = facts["step"], facts["loss"]


def each_weights(task: Task, edit: Edit, points: Tensor) -> Tensor:
    """Return the weights of the train rows in each retrain of a stack, float32 [n_each, n_train], on the device of `points`.

    Raises ValueError if the edit is no stack, KeyError naming the first id that is not in the train set.
    """
    import torch

    if edit.mode != "each":
        raise ValueError(f"a stack of retrains is an edit of mode each, not {edit.mode}")
    rows = torch.as_tensor(edit.rows_of(task.splits["train"].ids))
    weights = torch.ones(len(rows), len(task.splits["train"]))
    weights[torch.arange(len(rows)), rows] = torch.tensor(edit.weights, dtype=torch.float32)
    return weights.to(points.device)


def stack_result(outputs: dict[str, np.ndarray], n_steps: int) -> Trained:
    """Return the result of train_each; it has diverged if every member diverged."""
    wrong = np.any([np.isnan(found).any(axis=(1, 2)) for found in outputs.values()], axis=0)
    metrics = {"n_steps": float(n_steps), "n_diverged": float(wrong.sum())}
    return Trained(None, metrics, diverged=bool(wrong.all()), outputs=outputs)
