"""Random generators for common random numbers: retrains with the same seed draw the same numbers for the same purpose.

Each purpose (initial weights, batch order, dropout ...) has its own generator, whose seed is computed from the retrain's
seed, the purpose and counters such as the step. A resumed training computes the same seeds again, so no RNG state is
ever saved.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def repeat_seed(base_seed: int, repeat: int) -> int:
    """Return the seed of a repeat: SeedSequence(base_seed, spawn_key=(repeat,)).generate_state(1)[0]."""
    return int(np.random.SeedSequence(base_seed, spawn_key=(repeat,)).generate_state(1)[0])


def purpose_seed(seed: int, purpose: str, *key: int) -> int:
    """Return a 63-bit seed for one purpose (init, order, dropout, negatives ...) and optional counters such as epoch or step."""
    # Purpose and key are passed as spawn_key. If they were part of the entropy, SeedSequence would ignore zeros at its end,
    # so that (seed, purpose) and (seed, purpose, 0) would give the same numbers.
    state = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *key)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Return a numpy generator for (seed, purpose, key)."""
    return np.random.default_rng(purpose_seed(seed, purpose, *key))


def torch_generator(seed: int, purpose: str, *key: int) -> torch.Generator:
    """Return a CPU torch generator for (seed, purpose, key)."""
    import torch

    return torch.Generator().manual_seed(purpose_seed(seed, purpose, *key))


def seed_global(seed: int, purpose: str, *key: int) -> None:
    """Seed torch's global generators (dropout draws from them) from (seed, purpose, key): the CPU's, and CUDA's if in use.

    It is called before every update. torch.manual_seed would also record a stack trace for every kind of device that is
    not in use, which takes 0.4 ms, a third of an update of a small network.
    """
    import torch

    value = purpose_seed(seed, purpose, *key)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
