"""Nearest tokens, position by position."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from softlens.plots.cells import heat_map
from softlens.plots.style import show_plot

if TYPE_CHECKING:
    from softlens.decode import NearestTokens

UNITS = {
    "cosine": "cosine",
    "centred_cosine": "cosine after centring",
    "whitened_cosine": "cosine after whitening",
    "l2": "Euclidean distance",
    "dot": "dot product",
}


def plot_nearest(nearest: "NearestTokens", ax: Axes | None = None) -> Axes:
    """Position x rank: each cell a token, coloured and labelled by its score."""
    scores = nearest.frame.pivot(index="rank", columns="position", values="score")
    values = scores.to_numpy(dtype=float)
    words = [
        [
            f"{show_plot(nearest.pieces[column * len(values) + row])}\n{values[row, column]:.2f}"
            for column in range(values.shape[1])
        ]
        for row in range(values.shape[0])
    ]
    labels = [str(position) for position in scores.columns]
    if nearest.start_pieces is not None:
        starts = map(show_plot, nearest.start_pieces)
        labels = [f"{p}\nfrom {start}" for p, start in zip(labels, starts, strict=True)]
    ax = heat_map(
        values,
        words,
        [str(rank) for rank in scores.index],
        labels,
        UNITS[nearest.metric],
        ax,
        # Near is dark whichever way the metric runs.
        strong="low" if nearest.metric == "l2" else "high",
    )
    ax.set_xlabel("prompt position")
    ax.set_ylabel("rank of the token")
    return ax
