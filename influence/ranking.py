"""The order of training examples by score: proponents, opponents, least influential. Ties go to the smaller TrainId. numpy only."""

from __future__ import annotations

from typing import Literal

import numpy as np

Group = Literal["proponents", "opponents", "least"]
GROUPS: tuple[Group, ...] = ("proponents", "opponents", "least")


def ranked(scores: np.ndarray, train_ids: np.ndarray, group: Group) -> np.ndarray:
    """Return train ids in the order in which `group` removes them, so that the removal sets of all k are prefixes.

    proponents: highest score first; opponents: lowest first; least: smallest |score| first. scores [n_train] or
    [n_queries, n_train]; returns int64 ids of the same shape, never positions. Raises ValueError.
    """
    scores, train_ids = np.asarray(scores), np.asarray(train_ids, np.int64)
    if train_ids.ndim != 1 or scores.shape[-1:] != train_ids.shape:
        raise ValueError(f"scores of shape {scores.shape} do not fit {train_ids.shape} train ids")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN and cannot be ranked")
    keys = {"proponents": np.negative, "opponents": np.asarray, "least": np.abs}
    if group not in keys:
        raise ValueError(f"group {group!r} is not one of {', '.join(GROUPS)}")
    ids = np.broadcast_to(train_ids, scores.shape)
    order = np.lexsort((ids, keys[group](scores)), axis=-1)
    return np.take_along_axis(ids, order, axis=-1)


def proponents(scores: np.ndarray, train_ids: np.ndarray, k: int) -> np.ndarray:
    """Return the ids of the k highest scores of a row, highest first: int64 [k]."""
    return _first(scores, train_ids, "proponents", k)


def opponents(scores: np.ndarray, train_ids: np.ndarray, k: int) -> np.ndarray:
    """Return the ids of the k lowest scores of a row, lowest first: int64 [k]."""
    return _first(scores, train_ids, "opponents", k)


def least(scores: np.ndarray, train_ids: np.ndarray, k: int) -> np.ndarray:
    """Return the ids of the k smallest |score| of a row, smallest first: int64 [k]."""
    return _first(scores, train_ids, "least", k)


def _first(scores: np.ndarray, train_ids: np.ndarray, group: Group, k: int) -> np.ndarray:
    if not 0 <= k <= len(train_ids):
        raise ValueError(f"k {k} is outside 0..{len(train_ids)}, the size of the train set")
    return ranked(scores, train_ids, group)[..., :k]
