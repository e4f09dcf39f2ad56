"""Chooses the nodes of a cluster on which an actor may be placed, by Ray's node labels. Imports no ray."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tasks.base import Numerics

ACCELERATOR, MARKET, NODE_GROUP = "ray.io/accelerator-type", "ray.io/market-type", "ray.io/node-group"
Role = Literal["gradients", "retrains", "tail"]
DATACENTRE_MODEL = re.compile(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)")  # the pattern that Ray uses


def accelerator_type(device_model: str) -> str | None:
    """Return Ray's name of a GPU model.

    "NVIDIA A10G" -> A10G, "Tesla V100-SXM2-16GB" -> V100, "NVIDIA GeForce RTX 4090" -> GeForce-RTX-4090.
    """
    match = DATACENTRE_MODEL.match(device_model)
    if match and len(match[1]) > 1:
        return match[1].replace(" ", "-")
    return re.sub(r"^NVIDIA\s+", "", device_model).strip().replace(" ", "-") or None


@dataclass(frozen=True)
class Placement:
    """The label selectors of actors by role. They are used on a cluster only: a Ray that Refit starts has no node labels.

    `accelerator`: the accelerator type, or None for any. `market`: role -> spot | on-demand | None.
    """

    accelerator: str | None = None
    market: Mapping[str, str | None] = field(default_factory=dict)

    @staticmethod
    def of(numerics: Numerics, accelerator: str | None, market: Mapping[str, str | None]) -> Placement:
        """Return the placement of a campaign; without `accelerator` it is the GPU type that the numerics are pinned to."""
        pinned = accelerator_type(numerics.device_model) if numerics.device.startswith("cuda") else None
        return Placement(accelerator or pinned, market)

    def labels(self, role: Role | None) -> dict[str, str]:
        """Return the label selector of new actors of a role; `role` None: the role is not known yet."""
        market = self._market(role) if role else self._common_market()
        found = {ACCELERATOR: self.accelerator, MARKET: market}
        return {label: value for label, value in found.items() if value}

    def _market(self, role: Role) -> str | None:
        """Return the market of a role; the tail uses the market of the retrains unless it has its own."""
        return self.market.get(role) or (self.market.get("retrains") if role == "tail" else None)

    def _common_market(self) -> str | None:
        """Return the market of all roles if they have the same one, else None."""
        markets = {self._market(role) for role in get_args(Role)}
        return markets.pop() if len(markets) == 1 else None


__all__ = ["Placement", "Role", "accelerator_type"]
