"""What a campaign may cost: provisioned machines are charged from the moment they are asked for, busy or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A machine that is there. `kind` is looked up in the price table: its node type, or `local` for this machine."""

    node_id: str
    kind: str
    n_gpus: float = 0.0
    market: str = ""  # spot | on-demand | "" where nobody says
