"""The result tables as pandas data frames, and their exact text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orchestrator.analysis.accuracy_change import COLUMNS as ACCURACY
from orchestrator.analysis.cells import Cells
from orchestrator.analysis.contrasts import contrast_rows
from orchestrator.analysis.curves import Row, curve_rows, query_curve_rows, summary_rows
from orchestrator.analysis.over_queries import COLUMNS as OVER_QUERIES
from orchestrator.analysis.pairing import pairing_rows
from orchestrator.analysis.repeats import design_rows, repeat_rows

_INTERVALS = ["se", "ci_low", "ci_high", "se_fixed", "ci_fixed_low", "ci_fixed_high"]
_ESTIMATE = [*_INTERVALS, "n_queries", "n_repeats", "n_excluded"]
CURVES = ["method", "group", "k", "delta", *_ESTIMATE, *ACCURACY]
QUERY_CURVES = ["method", "group", "query_id", "k", "delta", *_ESTIMATE, *ACCURACY]
SUMMARY = ["method", "group", "auc_del", *_ESTIMATE, *OVER_QUERIES]
_CONTRAST = ["diff", "se", "ci_low", "ci_high", "p", "p_holm", "n_queries", "n_repeats"]
CONTRASTS = ["method", "baseline", "group", *_CONTRAST, "family", *OVER_QUERIES]
PAIRING = ["method", "group", "variance_paired", "variance_unpaired", "ratio"]
HOLES = ["method", "group", "query_id", "repeat"]
REPEATS = ["method", "group", "n_repeats", "half_width", "target", "ended"]
DESIGNS = ["design", "n_repeats", "n_retrains", "saved"]


def curves(cells: Cells) -> pd.DataFrame:
    """Return the mean delta per method, group and k (columns CURVES), in the order of `cells`."""
    return _frame(curve_rows(cells), CURVES)


def query_curves(cells: Cells) -> pd.DataFrame:
    """Return the mean delta per method, group, query and k (columns QUERY_CURVES)."""
    return _frame(query_curve_rows(cells), QUERY_CURVES)


def summary(cells: Cells) -> pd.DataFrame:
    """Return the AUC-DEL per method and group (columns SUMMARY)."""
    return _frame(summary_rows(cells), SUMMARY)


def contrasts(cells: Cells) -> pd.DataFrame:
    """Return the differences of AUC-DEL per group (columns CONTRASTS); `verdicts(frame.to_dict("records"))` gives their sentences."""
    return _frame(contrast_rows(cells), CONTRASTS)


def pairing(cells: Cells) -> pd.DataFrame:
    """Return the variance saved by pairing per method and group (columns PAIRING)."""
    return _frame(pairing_rows(cells), PAIRING)


def holes(cells: Cells) -> pd.DataFrame:
    """Return the cells with a missing number at any k (columns HOLES); their (query, repeat) is left out for all methods."""
    missing = np.argwhere(~np.isfinite(cells.delta).all(axis=2) & cells.asked[:, :, None, :])
    axes = (cells.methods, cells.groups, cells.query_ids, cells.repeats)
    rows = [dict(zip(HOLES, (axis[i] for axis, i in zip(axes, index, strict=True)), strict=True)) for index in missing]
    return _frame(rows, HOLES)


def repeats(cells: Cells) -> pd.DataFrame:
    """Return the repeats and the half-width of every curve of an adaptive design (columns REPEATS)."""
    return _frame(repeat_rows(cells), REPEATS)


def designs(cells: Cells, n_retrains: int, n_full_repeat: int) -> pd.DataFrame:
    """Return the numbers of retrains of an adaptive design and of comparable fixed designs (columns DESIGNS)."""
    return _frame(design_rows(cells, n_retrains, n_full_repeat), DESIGNS)


def format_csv(frame: pd.DataFrame) -> str:
    """Format a table as CSV text: '\\n' newlines, the shortest digits that read back as the same float, an empty cell for NaN."""
    return frame.to_csv(index=False, lineterminator="\n", na_rep="")


def _frame(rows: list[Row], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)
