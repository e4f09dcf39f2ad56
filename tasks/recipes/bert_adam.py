"""BERT's own Adam, as in pytorch_pretrained_bert 0.6.1, with which the code of Han et al. 2020 and 2021 trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, on gradients clipped tensor by tensor.

    g = gradient * min(1, max_tensor_norm / (|gradient| + 1e-6)); m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    p -= lr (m / (sqrt(v) + eps) + weight_decay p). Without the correction a constant gradient moves a weight by 3.2 lr at
    the first update, 6.5 lr at the tenth and 2.1 lr at the 250th. Gradients are clipped in place. (The optimiser of
    Devlin et al. 2019; Han et al. 2021, released code.)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        max_tensor_norm: float = 1.0,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "max_tensor_norm": max_tensor_norm})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; return the loss if `closure` computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_(parameter, group["max_tensor_norm"])
        # the fused kernel reads memory in the parameters' order, whatever the strides of a gradient
        gradients = [parameter.grad.contiguous() for parameter in parameters if parameter.grad is not None]
        beta1, beta2 = group["betas"]
        # The fused kernel takes one pass over each tensor, a third of the time of elementwise operations. It divides by
        # the bias corrections 1 - beta^updates, which an infinite number of updates makes one.
        updates = [torch.full((), math.inf, device=parameter.device) for parameter in parameters]
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            parameters,
            gradients,
            [self._moment(parameter, "exp_avg") for parameter in parameters],
            [self._moment(parameter, "exp_avg_sq") for parameter in parameters],
            [],
            updates,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _moment(self, parameter: Tensor, name: str) -> Tensor:
        """Return the running mean `exp_avg` or `exp_avg_sq` of a parameter's gradient, which starts at zero."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]
