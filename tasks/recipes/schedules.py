"""The learning rate of every update."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "one_minus"]


def updates_by(epoch: float, epochs: int, per_epoch: int) -> int:
    """Return the number of updates made by the end of `epoch` (1-based; 0.5 is half-way through the first), at least 1.

    Raises ValueError outside 0 < epoch <= epochs.
    """
    if not 0 < epoch <= epochs:
        raise ValueError(f"epoch {epoch} is outside 0 < epoch <= {epochs}")
    return max(1, round(epoch * per_epoch))


def rate_factor(schedule: Schedule, warmup_frac: float, n_steps: int, step: int) -> float:
    """Return the factor, in [0, 1], of the peak learning rate at update `step` (1-based) of `n_steps`.

    constant, linear: W = ceil(warmup_frac * n_steps). Warm-up: step / W up to update W. Then 1 (constant) or (n_steps -
    step + 1) / (n_steps - W) (linear), which starts at 1 and never reaches 0, so that no update is without effect.
    one_minus: x = (step - 1) / n_steps; x / warmup_frac while x < warmup_frac, then 1 - x: with warm-up the first
    update has rate 0, and the rate drops from the peak to 1 - warmup_frac of it. This is the schedule of BERT's own
    Adam. The published code (Han et al. 2021) counts only whole batches in n_steps and therefore makes more updates
    than that; its last rates are below 0. Raises ValueError if `step` is outside 1..n_steps.
    """
    if not 1 <= step <= n_steps:
        raise ValueError(f"step {step} is outside 1..{n_steps}")
    if schedule == "one_minus":
        done = (step - 1) / n_steps
        return done / warmup_frac if done < warmup_frac else 1.0 - done
    n_warmup = math.ceil(warmup_frac * n_steps)
    if step <= n_warmup:
        return step / n_warmup
    return 1.0 if schedule == "constant" else (n_steps - step + 1) / (n_steps - n_warmup)
