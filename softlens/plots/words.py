"""Attributions of the words of texts."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.display import scores
from softlens.errors import SoftlensError, near
from softlens.plots.style import show_plot, style
from softlens.plots.tokens import ABOVE, BELOW, colours_of, scale_beside, token_box

if TYPE_CHECKING:
    from softlens.attribution import WordAttribution

KINDS = ("text", "words")
WIDTH = 62.0
"""Letters, about, in a line of words."""
MOST_WORDS, MOST_TEXTS = 15, 6


def plot_words(found: "WordAttribution", ax: Axes | None = None, kind: str = "text") -> Axes:
    """Which words of texts carry the answer.

    Args:
        found: what ``softlens.attribute(..., of="text")`` returned.
        ax: where to draw; a new figure unless given.
        kind: "text": the first texts in reading order, each word in a box with its value; or
            "words": the words with the largest means over all places where they stand, with 95%
            intervals. What is negative is orange, and hatched in bars.
    """
    if kind not in KINDS:
        raise SoftlensError(f"Got kind {kind!r}, wanted one of {KINDS}.{near(kind, KINDS)}")
    unit = f"{found.method.replace('_', ' ')} ({found.unit})"
    return _strongest(found, ax, unit) if kind == "words" else _running(found, ax, unit)


def _running(found: "WordAttribution", ax: Axes | None, unit: str) -> Axes:
    numbers = found.texts["text"].tolist()[:MOST_TEXTS]
    shown = found.frame[found.frame["text"].isin(numbers)]
    paint = colours_of(shown["attribution"].to_numpy(), found.signed)
    places: list[tuple[float, float, float, str, str, float]] = []
    titles: list[tuple[float, str]] = []
    low = 0.0
    for number, label in zip(numbers, found.texts["label"], strict=False):
        titles.append((low, f"text {number}: {show_plot(label)}"))
        low -= 1.55
        left = 0.0
        words, values = found.of_text(number)
        for word, value, said in zip(words, values, scores(values, found.signed), strict=True):
            text = show_plot(word)
            width = max(3.6, 0.75 * len(text) + 1.2)
            if left and left + width > WIDTH:
                left, low = 0.0, low - 1.2
            places.append((left, low, width, text, said, value))
            left += width + 0.4
        low -= 0.7
    widest = max(left + width for left, _, width, *_ in places)
    with style():
        if ax is None:
            size = (max(2.8, 0.105 * widest + 1.0), max(1.0, 0.36 * -low))
            _, ax = plt.subplots(figsize=size)
        for left, bottom, width, text, said, value in places:
            token_box(ax, (left, bottom), width, text, said, value, paint)
        for bottom, title in titles:
            ax.text(0, bottom - 0.35, title, ha="left", va="center", fontsize=7, color="0.35")
        ax.set_xlim(-0.2, widest + 0.2)
        ax.set_ylim(low + 0.5, 0.05)
        ax.set_axis_off()
        scale_beside(ax, paint, unit, aspect=max(9.0, 5 * -low / 2))
    return ax


def _strongest(found: "WordAttribution", ax: Axes | None, unit: str) -> Axes:
    words = found.words.head(MOST_WORDS).sort_values("mean", ignore_index=True)
    values = words["mean"].to_numpy()
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(3.6, 0.7 + 0.24 * len(words)))
        at = np.arange(len(words))
        below = found.signed & (values < 0)
        bars = ax.barh(at, values, height=0.72, edgecolor="0.35", lw=0.6,
                       color=np.where(below, BELOW, ABOVE))  # fmt: skip
        for bar in np.array(bars, dtype=object)[below]:
            bar.set_hatch("///")
        known = words["low"].notna() & (words["high"] > words["low"])
        reach = np.stack([values - words["low"], words["high"] - values])[:, known]
        ax.errorbar(values[known], at[known], xerr=reach.clip(min=0), fmt="none", ecolor="black",
                    lw=1, capsize=2.5)  # fmt: skip
        names = [
            f"{show_plot(word)}" + (f" (x{count})" if count > 1 else "")
            for word, count in zip(words["word"], words["n"], strict=True)
        ]
        ax.set_yticks(at, names, fontsize=8)
        ax.tick_params(axis="y", length=0)
        if found.signed:
            ax.axvline(0, color="0.35", lw=0.8)
        ax.set_xlabel(f"{unit}\nmean over the places where a word stands")
        sns.despine(ax=ax)
    return ax
