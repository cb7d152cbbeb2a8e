"""Odd behaviour, counted."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import style

if TYPE_CHECKING:
    from softlens.oddities import Oddities


def plot_oddities(found: "Oddities", ax: Axes | None = None) -> Axes:
    """How many prompts show each behaviour, for each method and weight of its proxy.

    Args:
        found: what `softlens.oddities` returned.
        ax: where to draw; a new figure unless given.

    Returns:
        The Axes: in each cell how many of how many, dark where it is most of them; "?" where it
        cannot be told.
    """
    by = [c for c in ("method", "weight") if c in found.frame]
    counts = found.counts(by)
    rows = list(dict.fromkeys(counts["behaviour"]))
    keys = list(dict.fromkeys(counts[by].itertuples(index=False, name=None)))
    order = list(dict.fromkeys(key[:1] for key in keys))
    keys.sort(key=lambda key: (order.index(key[:1]), *key[1:]))
    values = np.full((len(rows), len(keys)), np.nan)
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(2.0 + 0.42 * len(keys), 0.9 + 0.27 * len(rows)))
        for row in counts.to_dict("records"):
            at = rows.index(row["behaviour"]), keys.index(tuple(row[c] for c in by))
            values[at] = row["share"]
            words = f"{row['shown']}/{row['of']}" if row["of"] else "?"
            colour = "white" if row["share"] > 0.6 else "0.15" if row["shown"] else "0.6"
            ax.text(*at[::-1], words, ha="center", va="center", fontsize=6.5, color=colour)
        image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
        ticks = [f"{key[1]:g}" if len(key) > 1 else str(key[0]) for key in keys]
        ax.set_xticks(range(len(keys)), ticks, fontsize=7.5)
        if by == ["method", "weight"]:
            for (method,) in order:
                own = [i for i, key in enumerate(keys) if key[0] == method]
                ax.text(float(np.mean(own)), -0.75, method, ha="center", va="bottom", fontsize=8)
                ax.axvline(own[-1] + 0.5, color="white", lw=3)
            ax.set_xlabel("weight of the proxy")
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
        ax.figure.colorbar(image, ax=ax, label="share of prompts", fraction=0.04, pad=0.02)
    return ax
