"""The variance that common random numbers save: removal and reference with the same seed, compared with different seeds."""

from __future__ import annotations

import numpy as np

from orchestrator.analysis.cells import Cells
from orchestrator.analysis.curves import Row


def pairing_rows(cells: Cells) -> list[Row]:
    """Return the variance over repeats of removal minus reference, with the same and with different seeds, per method and group.

    paired   = var_r(removal_r - reference_r)
    unpaired = variance of removal_r - reference_s over independent seeds r != s
             = var_r(removal_r) + var_s(reference_s), unbiased from the same retrains
    ratio    = unpaired / paired, above 1 where pairing helps.
    Variances divide by n_repeats - 1, over complete cells; they are averaged over ks and over the queries with at least two
    complete cells. They are NaN without such a query; the ratio is also NaN if the paired variance is 0.
    Raises ValueError if `cells` has no `values` or no `reference`.
    """
    if cells.values is None or cells.reference is None:
        raise ValueError("the variance ratio of pairing needs `values` and `reference`")
    usable = np.isfinite(cells.values) | ~cells.asked[:, :, None, None, :]
    cell = cells.complete & np.isfinite(cells.reference) & usable.all(axis=(0, 1, 2))
    paired, unpaired = (np.full(cells.delta.shape[:2], np.nan) for _ in range(2))
    for n in np.unique(cells.asked_repeats):
        chosen, used = cells.asked_repeats == n, cell[:, :n]
        used = used & (used.sum(axis=1, keepdims=True) >= 2)
        of_reference = _mean_variance(cells.reference[None, None, :, :n], used)
        paired[chosen] = _mean_variance(cells.delta[chosen][..., :n], used)
        unpaired[chosen] = _mean_variance(cells.values[chosen][..., :n], used) + of_reference
    return [
        _row(method, group, paired[m, g], unpaired[m, g])
        for m, method in enumerate(cells.methods)
        for g, group in enumerate(cells.groups)
    ]


def _row(method: str, group: str, paired: float, unpaired: float) -> Row:
    ratio = float(unpaired / paired) if paired > 0 else np.nan
    variances = {"variance_paired": float(paired), "variance_unpaired": float(unpaired)}
    return {"method": method, "group": group, **variances, "ratio": ratio}


def _mean_variance(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the variance over repeats within each query, averaged over queries and ks: values [curve, k, q, r] -> [curve]."""
    kept = cell.any(axis=1)
    if not kept.any():
        return np.full(values.shape[:1], np.nan)
    cell, values = cell[kept], values[..., kept, :]
    first = np.take_along_axis(values, cell.argmax(axis=1).reshape(1, 1, -1, 1), axis=-1)
    shifted = np.where(cell, values - first, 0.0)  # exactly 0 where nothing varies
    n = cell.sum(axis=1, keepdims=True)
    centred = np.where(cell, shifted - shifted.sum(axis=-1, keepdims=True) / n, 0.0)
    return ((centred**2).sum(axis=-1) / (n[:, 0] - 1)).mean(axis=(-2, -1))
