"""A table as a picture: cells coloured by a number, with words in them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import style


def heat_map(
    values: np.ndarray,
    words: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str,
    ax: Axes | None = None,
    strong: str = "high",
) -> Axes:
    """Cells in rows and columns; what is near, likely or large is dark.

    Args:
        values: shape (rows, columns), what the colour shows; NaN is left white.
        words: what is written in each cell, already made safe by `show_plot`.
        rows: names of the rows, from above.
        columns: names of the columns.
        unit: of the colour bar.
        ax: where to draw; a new figure unless given.
        strong: which values are dark, "high" or "low".
    """
    values = np.asarray(values, dtype=float)
    with style():
        if ax is None:
            size = (1.5 + 0.95 * values.shape[1], 0.8 + 0.38 * values.shape[0])
            _, ax = plt.subplots(figsize=size)
        image = ax.imshow(values, cmap="Blues_r" if strong == "low" else "Blues", aspect="auto")
        low, high = np.nanmin(values), np.nanmax(values)
        for row, column in np.ndindex(values.shape):
            shade = (values[row, column] - low) / (high - low or 1)
            dark = (1 - shade if strong == "low" else shade) > 0.6
            ax.text(column, row, words[row][column], ha="center", va="center", fontsize=7,
                    color="white" if dark else "black", linespacing=1.0)  # fmt: skip
        ax.set_xticks(range(len(columns)), columns, fontsize=7.5)
        ax.set_yticks(range(len(rows)), rows)
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
        ax.figure.colorbar(image, ax=ax, label=unit, fraction=0.05, pad=0.02)
    return ax
