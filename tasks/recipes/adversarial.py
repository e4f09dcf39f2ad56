"""Fine-tuning against an adversary that predicts a confound from the features, by gradient reversal."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tasks.base import Batch
from tasks.errors import InputError
from tasks.recipe import Training
from tasks.recipes.finetune import Finetune, FinetuneRun
from tasks.seeds import torch_generator
from tasks.task import Task
from tasks.training import Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

WHERE = "task.recipe"


class Adversarial(Finetune):
    """Fine-tuning that unlearns the confound: a second linear layer, the adversary, predicts the confound from the features.

    The adversary reads the same features as the layer onto the logits (dropout included). Loss of an example = L_label
    + L_confound, two cross-entropies; the gradient that flows from the adversary back to the features is multiplied by
    -`reversal`. So the adversary descends L_confound and the layers below descend L_label - reversal L_confound, with
    one optimiser. This is the published code; the paper's text gives L_label - lambda L_confound as the whole loss, in
    which the adversary too would have the weight lambda. At `reversal` 0 the network is that of `finetune`, unless
    `max_grad_norm` clips both together. The adversary starts as N(0, 0.02) with bias 0, as BERT's heads do, and is not
    kept. Ganin et al. 2016; Pryzant et al. 2018; Han and Tsvetkov 2021, section 5.1 and appendix A (reversal 0.1, 0.3,
    1 or 3).
    """

    name: ClassVar[str] = "adversarial"
    version: ClassVar[int] = 1

    reversal: float = Field(0.3, ge=0, allow_inf_nan=False)

    def check_task(self, task: Task, where: str) -> None:
        """Raise InputError if the train set's confounds are unknown or do not vary. Uses no torch."""
        confounds = task.splits["train"].confounds
        if confounds is None:
            raise InputError(where, f"{self.name!r} needs the confound of every train example; the task has none")
        if len(np.unique(confounds)) < 2:
            raise InputError(where, f"{self.name!r} needs at least two confounds; every train example has the same")

    def start(self, task: Task, training: Training) -> AdversarialRun:
        """Return the training at its start. Raises InputError without confounds."""
        self.check_task(task, WHERE)
        return AdversarialRun(self, task, training)


class AdversarialRun(FinetuneRun):
    """A fine-tuning together with an adversary.

    `metrics`: confound_accuracy, the share (by weight) of the last epoch's examples whose confound the adversary
    predicts, measured on each batch before its update. It shows how much of the confound can be read from the features
    although training hides it.
    """

    recipe: Adversarial

    def trained_modules(self) -> nn.Module:
        """Return the network and the adversary."""
        from torch import nn

        return nn.ModuleList([self.network, self.adversary])

    @cached_property
    def adversary(self) -> nn.Linear:
        """The linear layer from features to confounds, drawn by (seed, 'init-adversary')."""
        import torch
        from torch import nn

        twin, n_confounds = self._last_layer(), len(self.task.splits["train"].confound_names)
        with torch.random.fork_rng(devices=[]):
            head = nn.Linear(twin.in_features, n_confounds)
        nn.init.normal_(head.weight, std=0.02, generator=torch_generator(self.seed, "init-adversary"))
        nn.init.zeros_(head.bias)
        return head.to(twin.weight)

    def epoch(self, epoch: int, watch: Watch) -> float:
        """Train as FinetuneRun does; the accuracy of the adversary is that of the last complete epoch."""
        loss = super().epoch(epoch, watch)
        if math.isfinite(loss):
            self.metrics["confound_accuracy"] = self.sums["confounds_read"] / max(self.sums["confounds"], 1.0)
        return loss

    def losses(self, network: nn.Module, batch: Batch, rows: np.ndarray) -> Tensor:
        """Return L_label + L_confound [n]; the gradient of the adversary's input is reversed."""
        from torch.nn.functional import cross_entropy

        label_losses, features = self._losses_and_features(network, batch)
        logits = self.adversary(reverse_gradient(features, self.recipe.reversal))
        confounds = self._confounds(rows, logits)
        self._count(logits, confounds, rows)
        return label_losses + cross_entropy(logits, confounds, reduction="none")

    def _losses_and_features(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the task's losses [n] and the input of the layer onto the logits [n, d]."""
        seen: list[Tensor] = []
        handle = self._last_layer().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            losses = self.task.losses(network, batch)
        finally:
            handle.remove()
        (features,) = seen
        if features.ndim != 2:
            problem = f"{self.recipe.name!r} needs a model that classifies one vector per example"
            raise InputError(WHERE, f"{problem}, not {list(features.shape[1:])}")
        return losses, features

    def _confounds(self, rows: np.ndarray, like: Tensor) -> Tensor:
        """Return the confounds of train rows, 0 where a row is removed.

        Zero weight alone is not enough, because the confound of a removed row could still change the sign of a zero
        gradient.
        """
        import torch

        confounds = np.asarray(self.task.splits["train"].confounds)
        return torch.as_tensor(np.where(self.train_set.weights[rows] == 0, 0, confounds[rows]), device=like.device)

    def _count(self, logits: Tensor, confounds: Tensor, rows: np.ndarray) -> None:
        read = (logits.argmax(1) == confounds).cpu().numpy()
        self.sums["confounds_read"] += float(self.train_set.weights[rows][read].sum())
        self.sums["confounds"] += float(self.train_set.weights[rows].sum())

    def _last_layer(self) -> nn.Linear:
        return self.network.get_submodule(self.task.model.last_module(self.network))  # type: ignore[return-value]


def reverse_gradient(features: Tensor, factor: float) -> Tensor:
    """Return `features` unchanged; their gradient is multiplied by -factor. Ganin et al. 2016, section 4.2."""
    reversed_ = features.view_as(features)
    if reversed_.requires_grad:
        reversed_.register_hook(lambda gradient: -factor * gradient)
    return reversed_
