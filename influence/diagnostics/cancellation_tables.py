"""The tables of the diagnostic `cancellation`, from the gradients and the weights at every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from influence.checkpoint import Checkpoint
from influence.diagnostic import ScoredModels, Table, columns_of
from influence.diagnostics.layer_sums import LayerSums, Part, layer_sums, parts_of


@dataclass(frozen=True)
class At:
    """One checkpoint of a model: its gradients, and for each (layer, part) the distance to the next checkpoint.

    `updates` is the number of updates until the next checkpoint; the last one has no distances and 0 updates.
    """

    checkpoint: Checkpoint
    sums: LayerSums
    cosine: Mapping[Part, float]
    distance: Mapping[Part, float]
    updates: int


def tables(
    models: ScoredModels, rows: np.ndarray, cosine_split: str, compared: np.ndarray | None, batch_size: int
) -> dict[str, Table]:
    """Return the table "" with a row per (model, layer, part), and `checkpoints` with a row per checkpoint of each of them.

    `rows`: the sampled train rows. `compared`: the rows of `cosine_split` whose gradients are compared; None for `rows`.
    """
    network = models.task.network(0)
    parts = parts_of(models.task, network)
    n_train = len(models.task.splits["train"])
    whole, each = [], []
    for number, checkpoints in enumerate(models.models):
        points = []
        for position, checkpoint in enumerate(checkpoints):
            given = (models.task, network, checkpoint)
            sums = layer_sums(*given, "train", rows, batch_size, models.device)
            other = sums if compared is None else layer_sums(*given, cosine_split, compared, batch_size, models.device)
            following = checkpoints[position + 1] if position + 1 < len(checkpoints) else None
            distance = {} if following is None else distances(checkpoint, following, parts)
            updates = 0 if following is None else following.step - checkpoint.step
            points.append(At(checkpoint, sums, other.cosine, distance, updates))
        for part, names in parts.items():
            n_parameters = sum(int(np.size(checkpoints[0].state[name])) for name in names)
            label = {"model": number, "layer": part[0], "part": part[1]}
            whole.append({**label, "n_parameters": n_parameters, **over_training(points, part, n_train)})
            each += [{**label, "step": one.checkpoint.step, **at_checkpoint(one, part, n_train)} for one in points]
    return {"": columns_of(whole), "checkpoints": columns_of(each)}


def distances(one: Checkpoint, other: Checkpoint, parts: Mapping[Part, Sequence[str]]) -> dict[Part, float]:
    """Return |W' - W| of each (layer, part) between two checkpoints, in float64."""
    squares = {
        name: float(np.sum((np.asarray(other.state[name], np.float64) - np.asarray(one.state[name], np.float64)) ** 2))
        for names in parts.values()
        for name in names
    }
    return {part: math.sqrt(sum(squares[name] for name in names)) for part, names in parts.items()}


def at_checkpoint(at: At, part: Part, n_train: int) -> dict[str, float | int | None]:
    """Return learning rate, number of updates until the next checkpoint, G, the same without the learning rate, distance and cosine.

    Yeh et al. 2022, section 3.1.
    """
    size, rate = n_train * float(at.sums.norms[part].mean()), at.checkpoint.learning_rate
    return {
        "learning_rate": rate,
        "n_updates": at.updates,
        "g": rate * size,
        "gradient_norms": size,
        "delta": at.distance.get(part),
        "cosine": _value(at.cosine[part]),
    }


def over_training(points: Sequence[At], part: Part, n_train: int) -> dict[str, float | None]:
    """Return the sums over the checkpoints that another one follows, and the ratios made from them.

    cancellation = sum_c G_c / sum_c delta_c (Yeh et al. 2022, section 3.1). se: its standard error, because G is the
    mean over sampled rows times n_train. per_update = sum_c eta_c T_c mean_i |g_i,c| / sum_c delta_c, T_c = updates
    between two checkpoints: for SGD on mean losses it is at least 1 while the gradients stay what they were at c, and
    1 if nothing cancels. gradient_norms: G without the learning rate. cosine: the mean over all checkpoints. None: a
    ratio whose weights did not move.
    """
    followed = [one for one in points if one.distance]
    norms = np.array([one.sums.norms[part] for one in followed])  # [n_followed, n_rows]
    rates = np.array([one.checkpoint.learning_rate for one in followed])
    updates = np.array([one.updates for one in followed])
    delta, per_row = math.fsum(one.distance[part] for one in followed), rates @ norms
    g, n_rows = n_train * float(per_row.mean()), len(per_row)
    spread = float(per_row.std(ddof=1)) if n_rows > 1 else math.nan
    g_se = n_train * spread / math.sqrt(n_rows) * math.sqrt(max(0.0, 1 - n_rows / n_train))
    path = float((rates * updates) @ norms.mean(1))
    return {
        "cancellation": _ratio(g, delta),
        "se": _ratio(g_se, delta),
        "per_update": _ratio(path, delta),
        "g": g,
        "gradient_norms": n_train * float(norms.mean(1).sum()),
        "delta": delta,
        "cosine": _value(float(np.mean([one.cosine[part] for one in points]))),
    }


def _ratio(above: float, below: float) -> float | None:
    return _value(above / below) if below else None


def _value(number: float) -> float | None:
    return number if math.isfinite(number) else None
