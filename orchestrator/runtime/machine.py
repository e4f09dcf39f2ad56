"""The numerics of this machine, as far as they can be determined without importing torch."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from orchestrator.runtime.environment import settings
from tasks.base import Numerics


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_numerics(
    threads: int, micro_batch: int = 0, length_group_cost: int = 0, frozen_trunk: str = "computed"
) -> Numerics:
    """Return the numerics of a CPU worker on this machine."""
    return Numerics(
        device="cpu",
        device_model=cpu_model(),
        threads=threads,
        micro_batch=micro_batch,
        torch=metadata.version("torch"),
        environment=settings("cpu", threads),
        length_group_cost=length_group_cost,
        frozen_trunk=frozen_trunk,
    )
