"""The figure of a mislabels campaign: influence distances, sorted by cluster."""

from __future__ import annotations

import numpy as np

from orchestrator.report.canvas import INK, canvas

MOST_DRAWN = 300


def distances_svg(distance: np.ndarray, labels: np.ndarray, members: np.ndarray) -> str:
    """Draw the distances between `members`, cluster by cluster from the largest, with at most MOST_DRAWN rows.

    `distance` float64 [n, n], `labels` int64 [n]; `members` are positions in both.
    """
    order = members[np.argsort(labels[members], kind="stable")][:MOST_DRAWN]
    borders = np.flatnonzero(np.diff(labels[order])) + 0.5
    with canvas((5.2, 4.4), "distances") as (figure, out):
        ax = figure.subplots()
        image = ax.imshow(
            distance[np.ix_(order, order)], cmap="viridis", vmin=0, vmax=2, interpolation="nearest", rasterized=True
        )
        for border in borders:
            ax.axhline(border, color="white", linewidth=0.4)
            ax.axvline(border, color="white", linewidth=0.4)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("difficult examples, by cluster", color=INK)
        figure.colorbar(image, ax=ax, label="influence distance", shrink=0.85)
    return out.getvalue()
