"""When a worker process has done its share and is replaced: memory that it does not give back is never ours again."""

from __future__ import annotations

import sys
from dataclasses import dataclass

GROWTH = 1.5  # times the memory reserved after the first retrain
SHARE = 0.5  # of what it may use of the device: below it growth hurts nobody


@dataclass
class Wear:
    """Counts the retrains of one process, and watches the memory that its allocator keeps. `device_share`: its part of a GPU."""

    recycle_after: int | None = None
    device_share: float = 1.0
    n_done: int = 0
    first_bytes: int = 0

    def after(self, reserved_bytes: int, device_bytes: int) -> bool:
        """Whether the process is worn after one more retrain; `device_bytes` 0: it has no device whose memory could run out."""
        self.n_done += 1
        if self.n_done == 1:
            self.first_bytes = reserved_bytes
        if self.recycle_after is not None and self.n_done >= self.recycle_after:
            return True
        return (
            reserved_bytes > GROWTH * self.first_bytes and reserved_bytes > SHARE * self.device_share * device_bytes > 0
        )


def device_memory() -> tuple[int, int]:
    """Bytes that torch has reserved on this process's GPU, and bytes that it has; (0, 0) without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0, 0
    device = torch.cuda.current_device()
    return torch.cuda.memory_reserved(device), torch.cuda.get_device_properties(device).total_memory


def free_cached_memory() -> None:
    """Give what torch keeps of the GPU for later back to those who share it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


__all__ = ["Wear", "device_memory", "free_cached_memory"]
