"""What diagnostics of rankings share: z-scored influence, and how many examples a share of the train set is."""

from __future__ import annotations

import numpy as np


def z_scored(scores: np.ndarray) -> np.ndarray | None:
    """Return (score - mean) / standard deviation over the train examples (ddof 0): float64 [n_train].

    None for scores that are NaN or all equal. Han et al. 2020, section 2.2.
    """
    values = np.asarray(scores, np.float64)
    spread = values.std()
    return (values - values.mean()) / spread if np.isfinite(spread) and spread > 0 else None


def n_of(share: float, n_train: int) -> int:
    """Return floor(share n), without being one too few because the share is rounded, as 0.29 x 100 is."""
    return int(share * n_train + 1e-9)
