"""Decides when a worker process is replaced, because some memory is freed only when a process ends."""

from __future__ import annotations

import sys
from dataclasses import dataclass

GROWTH = 1.5  # times the memory reserved after the first retrain
SHARE = 0.5  # of the device memory that the process may use; growth below it does no harm


@dataclass
class RecyclePolicy:
    """Counts the retrains of one process and compares the device memory that its allocator has reserved.

    `recycle_after`: number of retrains after which the process is replaced (None: no limit). `device_share`: the fraction
    of a GPU that the process may use.
    """

    recycle_after: int | None = None
    device_share: float = 1.0
    n_done: int = 0
    first_bytes: int = 0

    def after(self, reserved_bytes: int, device_bytes: int) -> bool:
        """Return whether the process must be replaced after one more retrain.

        `reserved_bytes`: the memory reserved on its device; `device_bytes`: the size of the device, 0 without a device.
        """
        self.n_done += 1
        if self.n_done == 1:
            self.first_bytes = reserved_bytes
        if self.recycle_after is not None and self.n_done >= self.recycle_after:
            return True
        return (
            reserved_bytes > GROWTH * self.first_bytes and reserved_bytes > SHARE * self.device_share * device_bytes > 0
        )


def device_memory() -> tuple[int, int]:
    """Return the bytes that torch has reserved on this process's GPU, and the GPU's size in bytes; (0, 0) without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0, 0
    device = torch.cuda.current_device()
    return torch.cuda.memory_reserved(device), torch.cuda.get_device_properties(device).total_memory


def free_cached_memory() -> None:
    """Return unused GPU memory that torch has cached to the device, for the other processes that share it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


__all__ = ["RecyclePolicy", "device_memory", "free_cached_memory"]
