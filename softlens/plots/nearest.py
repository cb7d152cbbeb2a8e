"""Nearest tokens and predicted ones, position by position; and over a training."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.lens import layer_name
from softlens.plots.cells import heat_map
from softlens.plots.style import show_plot, style

if TYPE_CHECKING:
    from softlens.decode import NearestTokens
    from softlens.lens import LogitLens
    from softlens.neighbours import NearestByMetric, NearestPath

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


def plot_nearest_by_metric(found: "NearestByMetric", ax: Axes | None = None) -> Axes:
    """Metric x position: each cell the nearest token, coloured by how many metrics name it."""
    frame = found.frame
    metrics = list(found.texts)
    words = [[show_plot(token) for token in _of(found.pieces, frame, "metric", m)] for m in metrics]
    agree = frame.pivot(index="metric", columns="position", values="agree").reindex(metrics)
    names = [UNITS[metric] for metric in metrics]
    columns = [str(position) for position in agree.columns]
    unit = f"metrics that name it (of {len(metrics)})"
    ax = heat_map(agree.to_numpy(dtype=float), words, names, columns, unit, ax)
    ax.images[0].set_clim(0, len(metrics))
    ax.set_xlabel("prompt position")
    return ax


def plot_lens(lens: "LogitLens", ax: Axes | None = None) -> Axes:
    """Layer x position: each cell the likeliest next token, coloured by its probability."""
    frame = lens.frame[lens.frame["rank"] == 1]
    layers = sorted(frame["layer"].unique().tolist(), reverse=True)
    words = [
        [
            f"{show_plot(lens.pieces[i])}\n{p:.2f}"
            for i, p in frame.loc[frame["layer"] == layer, "probability"].items()
        ]
        for layer in layers
    ]
    values = frame.pivot(index="layer", columns="position", values="probability").loc[layers]
    rows = [layer_name(layer) for layer in layers]
    columns = [f"after\n{show_plot(token)}" for token in lens.prompt_pieces]
    ax = heat_map(values.to_numpy(dtype=float), words, rows, columns, "probability", ax)
    ax.set_ylabel("layer")
    return ax


def plot_path(path: "NearestPath", ax: Axes | None = None) -> Axes:
    """Step x position: a bar for each stay of a position at a token, named where it fits."""
    positions = path.frame["position"].nunique()
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 0.8 + 0.32 * positions))
        for (position, first, last), token in zip(
            path.frame[["position", "first_step", "last_step"]].itertuples(index=False),
            path.pieces,
            strict=True,
        ):
            stay = last - first + 1
            ax.barh(position, stay, left=first - 1, height=0.8, edgecolor="white", lw=0.6,
                    color="#56B4E9" if stay > path.steps / 20 else "0.8", alpha=0.75)  # fmt: skip
            text = show_plot(token)
            if stay / path.steps > 0.014 * len(text) + 0.01:
                middle = first - 1 + stay / 2
                ax.text(middle, position, text, ha="center", va="center", fontsize=7)
        ax.set_yticks(range(positions))
        ax.set_ylim(positions - 0.5, -0.5)
        ax.set_xlim(0, path.steps)
        ax.set_xlabel("step (grey: stays of at most a twentieth of the training)")
        ax.set_ylabel("prompt position")
        if path.metric is not None:
            ax.set_title(f"nearest by {UNITS[path.metric]}")
        sns.despine(ax=ax)
    return ax


def _of(pieces: tuple[str, ...], frame: pd.DataFrame, column: str, value: str) -> list[str]:
    return [piece for piece, one in zip(pieces, frame[column], strict=True) if one == value]
