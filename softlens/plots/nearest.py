"""Nearest tokens, position by position."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import show_plot, style

if TYPE_CHECKING:
    from softlens.decode import NearestTokens


def plot_nearest(nearest: "NearestTokens", ax: Axes | None = None) -> Axes:
    """Position x rank: each cell a token, coloured and labelled by its score."""
    scores = nearest.frame.pivot(index="rank", columns="position", values="score")
    with style():
        if ax is None:
            size = (1.6 + 1.1 * scores.shape[1], 0.9 + 0.42 * scores.shape[0])
            _, ax = plt.subplots(figsize=size)
        # Near is dark whichever way the metric runs.
        palette = "Blues_r" if nearest.metric == "l2" else "Blues"
        values = scores.to_numpy(dtype=float)
        image = ax.imshow(values, cmap=palette, aspect="auto")
        for row, column in np.ndindex(values.shape):
            score = float(values[row, column])
            shade = (score - values.min()) / (np.ptp(values) or 1)
            ax.text(
                column,
                row,
                f"{show_plot(nearest.pieces[column * len(values) + row])}\n{score:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white"
                if (1 - shade if nearest.metric == "l2" else shade) > 0.6
                else "black",
                linespacing=1.0,
            )
        labels = [str(position) for position in scores.columns]
        if nearest.start_pieces is not None:
            starts = map(show_plot, nearest.start_pieces)
            labels = [f"{p}\nfrom {start}" for p, start in zip(labels, starts, strict=True)]
        ax.set_xticks(range(len(labels)), labels, fontsize=7.5)
        ax.set_yticks(range(len(scores)), scores.index)
        ax.set_xlabel("prompt position")
        ax.set_ylabel("rank of the token")
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
        unit = {"cosine": "cosine", "l2": "Euclidean distance", "dot": "dot product"}
        ax.figure.colorbar(image, ax=ax, label=unit[nearest.metric], fraction=0.05, pad=0.02)
    return ax
