"""What a method of reading found: a path, weights, or scores of texts."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import COLOURS, show_plot, style

if TYPE_CHECKING:
    from softlens.readings import Reading

NAMED = 6
"""Texts of a path that are written beside their points."""
APART = 0.05
"""Share of the picture's width or height by which numbers on a path keep apart."""
INK, QUIET = COLOURS["soft prompt"], "0.6"


def plot_reading(reading: "Reading", ax: Axes | None = None) -> Axes:
    """What the method of `reading` has to show.

    A search: share of KL closed against surprisal, one point a text, with the path of those that no
    other beats in both. A mixture: the weight of each text with its interval. Descriptions: the
    share of KL that each closes, or its surprisal. Nearest tokens: each position's score.
    """
    columns = set(reading.frame.columns)
    with style():
        if reading.experts:
            ax = _weights(reading, ax)
        elif "on_path" in columns:
            ax = _path(reading, ax)
        elif "asked" in columns:
            value = "closed" if "closed" in columns else "nats_per_token"
            rows = reading.frame.sort_values(value, ascending=value != "closed").head(12)
            texts = [f"{t} ({a})" for t, a in zip(rows["text"], rows["asked"], strict=True)]
            ax = _bars(texts, rows[value].to_numpy(), ax)
            unit = "share of KL closed" if value == "closed" else "nats per token"
            ax.set_xlabel(f"{unit}, of each description")
        else:
            rows = reading.frame
            rows = rows[rows["rank"] == 1] if "rank" in columns else rows
            scores = rows["score"].to_numpy() if len(rows) else np.zeros(len(reading.pieces))
            ax = _bars(list(reading.pieces), scores, ax)
            ax.set_xlabel(reading.score_unit.removeprefix("mean ") or "no score")
        sns.despine(ax=ax)
    return ax


def _path(reading: "Reading", ax: Axes | None) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 3.2))
    frame = reading.frame.sort_values("nats_per_token")
    path, chosen = frame[frame["on_path"]], frame[frame["chosen"]]
    ax.scatter(frame["nats_per_token"], frame["closed"], s=12, color=QUIET, label="a text")
    ax.plot(path["nats_per_token"], path["closed"], "o-", ms=4, lw=1, color=INK,
            label="no text is better in both")  # fmt: skip
    ax.scatter(chosen["nats_per_token"], chosen["closed"], s=90, marker="*", color="#D55E00",
               zorder=3, label=f"the reading: {_written(reading.text)}")  # fmt: skip
    nats = path["nats_per_token"].to_numpy()
    spread = np.linspace(nats[0], nats[-1], NAMED)
    pick = np.unique([int(np.abs(nats - place).argmin()) for place in spread])
    # Differences of a hundredth are none: they shall not fill the picture.
    top = float(frame["closed"].max())
    bottom = min(float(path["closed"].min()), top - 0.1)
    ax.set_ylim(bottom - 0.03, top + 0.03)
    wide, high = np.ptp(frame["nats_per_token"]), top - bottom + 0.06
    apart = _apart(np.stack([nats / (wide or 1), path["closed"].to_numpy() / high], axis=1), pick)
    # Written in a column of their own, numbered on the path: side by side they would overlap.
    lines = []
    for number, row in enumerate(path.iloc[apart].itertuples(), 1):
        ax.annotate(str(number), (row.nats_per_token, row.closed), xytext=(0, 6), fontsize=7,
                    textcoords="offset points", ha="center")  # fmt: skip
        lines.append(f"{number}  {_written(str(row.text))}")
    ax.text(1.02, 0.55, "\n".join(lines), transform=ax.transAxes, fontsize=7.5,
            va="top", family="monospace")  # fmt: skip
    ax.legend(loc="lower left", bbox_to_anchor=(1.0, 0.6), fontsize=7.5)
    ax.set_xlabel("surprisal after BOS (nats per token)")
    ax.set_ylabel("share of KL closed")
    return ax


def _apart(places: np.ndarray, pick: np.ndarray) -> list[int]:
    """Those of `pick` whose places keep apart from those before them."""
    kept: list[int] = []
    for index in pick:
        if all(np.abs(places[index] - places[other]).max() >= APART for other in kept):
            kept.append(int(index))
    return kept


def _written(text: str) -> str:
    """Running text for a picture; its inner spaces need no mark."""
    return show_plot(text.strip()).replace("␣", " ")


def _weights(reading: "Reading", ax: Axes | None) -> Axes:
    experts = reading.experts
    values = np.array([expert.weight for expert in experts])
    ends = np.array([[e.weight - e.low, e.high - e.weight] for e in experts]).T.clip(min=0)
    ax = _bars([expert.text or "(no prompt)" for expert in experts], values, ax, ends)
    ax.set_xlabel("weight in the product, with its 95% interval over texts")
    return ax


def _bars(texts: list[str], values: np.ndarray, ax: Axes | None, ends: Any = None) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 0.7 + 0.27 * len(texts)))
    rows = np.arange(len(texts))
    colours = [INK if value >= 0 else "#D55E00" for value in values]
    ax.barh(rows, values, color=colours, height=0.6, xerr=ends, ecolor="0.2", capsize=2)
    ax.axvline(0, color="0.3", lw=0.8)
    labels = [_written(text) for text in texts]
    ax.set_yticks(rows, labels, fontsize=8)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    return ax
