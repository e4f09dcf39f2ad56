"""The parts of a text task that its copies with other recipes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.data.tokens import Tokeniser, Tokens
from tasks.fresh_networks import FreshNetworks
from tasks.models.frozen_trunk import FrozenTrunk
from tasks.trunk_outputs import TrunkOutputs


@dataclass
class SharedParts:
    """What a task shares with its copies that have other recipes: made once for all of them, and pickled once."""

    identities: dict[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    fitted: Tokeniser | None = None  # the tokeniser as soon as it is needed, which may be before `prepare`
    tokeniser: Tokeniser | None = None
    base_state: Mapping[str, np.ndarray] | None = None
    frozen_trunk: FrozenTrunk | None = None
    trunk_outputs: TrunkOutputs | None = None
    fresh_networks: FreshNetworks | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what every process makes for itself (`prepare_for`)."""
        return {**self.__dict__, "trunk_outputs": None, "fresh_networks": None}

    def identity(self, of: str, make: Callable[[], Any]) -> Any:
        """Return an identity, computed when it is first needed."""
        if of not in self.identities:
            self.identities[of] = make()
        return self.identities[of]
