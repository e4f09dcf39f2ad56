"""Leave-one-out as in the published code of cross-loss influence: one Adam, never reset, for all fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from tasks.data.edits import Edit
from tasks.recipe import Trained, Training
from tasks.recipes.dec import DecTraining, each_weights, stack_result
from tasks.task import Task
from tasks.training import check_whole_batches, deterministic

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.stacked import ClusterStack


class LooLeaked(DecTraining):
    """Trains as recipe dec does, but its leave-one-out fits share one Adam, whose state leaks from fit to fit.

    For every test point i in order, and for every removed point j in order, the weights are reset, `steps` updates are
    made without j, and the output at i is recorded. Adam is never reset: its moments and its step count carry over.
    Every removed point is thus fitted once per test point, each time from another state of Adam, and the bias
    correction is effective only in the first fits. `labels` chooses on what the fits of objective nll are trained. With
    components these are the components that generated the points, as for the base model. With assigned these are the
    clusters that the finished base model assigns to the components' means, which may differ; the published code does
    the same, in its influence scores too. Source: the code of Silva et al. 2022, section 4.1 (runfiles/mog_demo.py).
    """

    name: ClassVar[str] = "loo_leaked"
    version: ClassVar[int] = 1
    whole_stack: ClassVar[bool] = True  # if the stack were split in two, the second half would start from a fresh Adam

    optimizer: Literal["adam"] = "adam"
    labels: Literal["assigned", "components"] = "assigned"  # pyright: ignore[reportIncompatibleVariableOverride]

    def train_each(self, task: Task, training: Training) -> Trained:
        """Make all fits of an edit of mode `each`, one after the other.

        `outputs["train"]` float32 [n_each, n_points, n_clusters]: entry (j, i) is log q at the i-th measured train
        point after the fit for (i, j). Other measured splits hold log q after the fits of the last test point, [n_each,
        n_rows, n_clusters]. `metrics`: n_steps of each fit, n_diverged. Raises ValueError on other edits or if no train
        point is measured, InputError for micro-batches and length groups.
        """
        import torch

        check_whole_batches(self, training.numerics)
        deterministic(training.numerics)
        points = task.measured.get("train", np.zeros(0, np.int64))
        if not len(points):
            raise ValueError("leaked leave-one-out visits the measured train points; none is measured")
        stack = self._relabelled(self._stack(task, training.seed, training.numerics), task, training)
        weights = each_weights(task, training.edit, stack.points)
        with torch.no_grad():
            swept, theta = self._sweeps(stack, weights, torch.as_tensor(points, device=weights.device))
            outputs = self._outputs(task, stack, theta)
        return stack_result(outputs | {"train": swept}, self.steps)

    def _relabelled(self, stack: ClusterStack, task: Task, training: Training) -> ClusterStack:
        """Return the stack with the labels on which the fits are trained."""
        import torch

        if self.labels == "components" or self.objective != "nll":
            return stack
        base = self.train(task, replace(training, edit=Edit()))
        rows = np.arange(len(task.splits["means"]))
        outputs = {"means": task.outputs(base.network, "means", rows, device=training.numerics.device)}  # pyright: ignore[reportArgumentType]
        labels = task.query_labels("train", np.arange(len(stack.points)), outputs)
        return replace(stack, labels=torch.as_tensor(labels, device=stack.labels.device))

    def _sweeps(self, stack: ClusterStack, weights: Tensor, points: Tensor) -> tuple[np.ndarray, Tensor]:
        """Return (log q at `points` [n_each, n_points, k], parameters after the last sweep [n_each, n_parameters])."""
        import torch

        from tasks.stacked import StackedAdam, finite_or_nan

        start = stack.start().unsqueeze(0)
        # the first gradient of a fit does not depend on Adam, so it is computed once for all sweeps
        first = torch.cat([stack.gradients_at(part)(start.repeat(len(part), 1)) for part in weights.split(1)])
        later = [stack.gradients_at(part) for part in weights.split(1)]
        adam, ends, found = StackedAdam(self.learning_rate), start.repeat(len(weights), 1), []
        for point in points:
            for fit, gradients in enumerate(later):
                theta = start.clone()
                adam.step(theta, first[fit : fit + 1])
                for _ in range(1, self.steps):
                    adam.step(theta, gradients(theta))
                ends[fit] = theta[0]
            found.append(finite_or_nan(stack.log_q(ends, stack.points[point].unsqueeze(0)), ends))
        return np.concatenate(found, 1), ends
