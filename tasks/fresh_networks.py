"""Fresh networks of a pretrained model, made in little time: those of different seeds differ in few weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class FreshNetworks:
    """Returns the network that `build(seed)` returns, with the same bits.

    Drawing the weights of a whole network and then loading the pretrained ones takes longer than to train the layers above
    a frozen trunk. One network is kept as a template, and so are the weights of each seed that are not `pretrained` (names
    of parameters and buffers): those of the head.
    """

    def __init__(self, build: Callable[[int], nn.Module], pretrained: Collection[str]):
        self._build, self._pretrained = build, frozenset(pretrained)
        self._template: nn.Module | None = None
        self._drawn: dict[int, dict[str, Tensor]] = {}

    def get(self, seed: int) -> nn.Module:
        """Return a network that shares no memory with those returned before."""
        if self._template is None or seed not in self._drawn:
            self._template = self._build(seed)
            state = self._template.state_dict()
            self._drawn[seed] = {name: value.clone() for name, value in state.items() if name not in self._pretrained}
        network = copy.deepcopy(self._template)
        network.load_state_dict(self._drawn[seed], strict=False)
        return network
