"""What the driver asks about the cost of the machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.scheduling.budget import Node


class SpendMeter(Protocol):
    """What the machines cost. `reason`: which limit is reached, for people."""

    @property
    def reason(self) -> str: ...

    @property
    def is_used_up(self) -> bool:
        """Whether a limit is reached already: then nothing need be started."""
        ...

    def workers_within(self, seconds: float) -> float:
        """How many workers may be wanted, if they are to boot and work for `seconds` before a limit; infinite without one."""
        ...

    def close(self) -> None:
        """Charge what is there until now; idempotent."""
        ...

    def tick(self, nodes: Sequence[Node]) -> float | None:
        """Charge these machines until now; seconds left until a limit at the present rate, None without limits."""
        ...
