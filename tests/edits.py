"""Edits with arbitrary weights, which no campaign makes but every recipe must support."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.data.edits import Edit, Mode


def reweighting(weights: Mapping[int, float], mode: Mode = "mask") -> Edit:
    """Return the edit that gives each TrainId of `weights` its weight; weights of one are left out."""
    items = sorted((int(i), float(w)) for i, w in weights.items() if w != 1)
    return Edit(tuple(i for i, _ in items), tuple(w for _, w in items), mode if items else "mask")
