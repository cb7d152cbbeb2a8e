"""The readable front of the organism, and prompts held against it."""

from collections import Counter

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.errors import SoftlensError
from softlens.plots.style import COLOURS, look, style

# Families of questions keep their look from task to task.
FAMILIES = ("first", "middle", "last", "whole", "opposite", "person", "rare_person", "topic")
_FAMILY_LOOK = dict(
    zip(FAMILIES, zip("v<>^X*dh", sns.color_palette("dark", 8), strict=True), strict=True)
)


def plot_front(
    front: pd.DataFrame, marks: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """The readable front of one task: accuracy of every question against its surprisal.

    Args:
        front: rows of one task of ``data/readable_front.csv``. Questions that mostly ask for
            something else (label mass below one half) are drawn faintly.
        marks: other prompts to hold against it: ``scored, accuracy, nats_per_token``; what is
            scored is a kind of prompt ("nearest tokens") or a method ("pez"), or a variant of one
            ("pez perplexity"; variants differ in what is filled). Where the nats are NaN, as for
            soft prompts, the accuracy is a line.
        ax: where to draw; a new figure unless given.

    Raises:
        SoftlensError: an empty front.
    """
    if front.empty:
        raise SoftlensError("Got an empty front, wanted the rows of one task.")
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.6, 3.4))
        asks = front["label_mass"] >= 0.5
        ax.scatter(
            front["nats_per_token"][~asks], front["accuracy"][~asks], s=3, color="0.85", zorder=1,
            label="label mass below 0.5",
        )  # fmt: skip
        families = front["asks_for"].str.split(":").str[0]
        for family, (marker, colour) in _FAMILY_LOOK.items():
            rows = front[asks & (families == family)]
            if len(rows):
                ax.scatter(
                    rows["nats_per_token"], rows["accuracy"], s=14, marker=marker, color=colour,
                    label=f"asks for {family.replace('_', ' ')}", zorder=2,
                )  # fmt: skip
        best = front[front["on_front"]].sort_values("nats_per_token")
        ax.step(
            best["nats_per_token"], best["accuracy"], where="post", color="black", lw=1, zorder=3,
            label="readable front",
        )  # fmt: skip
        if marks is not None:
            variants: Counter[str] = Counter()
            for scored, rows in marks.groupby("scored", sort=False):
                colour, marker = look(str(scored))
                # Variants of one method share colour and shape, and differ in what is filled.
                method = str(scored).split(" ")[0]
                looks = [(colour, "black", 0.6), ("white", colour, 1.5), ("black", colour, 1.5)]
                face, edge, width = looks[variants[method] % len(looks)]
                variants[method] += str(scored) not in COLOURS
                lines = rows["nats_per_token"].isna()
                for number, height in enumerate(rows["accuracy"][lines]):
                    ax.axhline(height, color=colour, lw=1, ls="--", zorder=1,
                               label=None if number else scored)  # fmt: skip
                if (~lines).any():
                    ax.scatter(
                        rows["nats_per_token"][~lines], rows["accuracy"][~lines], s=42,
                        color=face, marker=marker, zorder=4, edgecolor=edge, lw=width, label=scored,
                    )  # fmt: skip
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlabel("surprisal after BOS (nats per token)")
        ax.set_ylabel("test accuracy (share of texts)")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        sns.despine(ax=ax)
    return ax
