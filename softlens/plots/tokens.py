"""Tokens in a row: as coloured boxes, or as bars with intervals."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from softlens.display import scores
from softlens.errors import SoftlensError
from softlens.plots.style import show_plot, style

ABOVE, BELOW = "#56B4E9", "#E69F00"


def plot_tokens(
    tokens: Sequence[str],
    values: Sequence[float],
    unit: str,
    ax: Axes | None = None,
    signed: bool = False,
) -> Axes:
    """Tokens as coloured boxes in reading order, each with its value, and the scale beside them.

    Args:
        tokens: raw token texts.
        values: one number a token; NaN has no colour.
        unit: what the numbers are.
        ax: where to draw; a new figure unless given.
        signed: blue above zero, orange below; else light to dark blue.
    """
    numbers = np.asarray(values, dtype=float)
    _check(tokens, numbers)
    shown = [show_plot(token) for token in tokens]
    widths = np.array([max(3.2, 0.75 * len(text) + 1.2) for text in shown])
    lefts = np.concatenate([[0], np.cumsum(widths + 0.4)[:-1]])
    paint = colours_of(numbers, signed)
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(max(2.5, 0.11 * (lefts[-1] + widths[-1]) + 1.3), 1.0))
        for text, word, value, left, width in zip(
            shown, scores(numbers.tolist(), signed), numbers, lefts, widths, strict=True
        ):
            token_box(ax, (left, 0), width, text, word, value, paint)
        ax.set_xlim(-0.2, lefts[-1] + widths[-1] + 0.2)
        ax.set_ylim(-0.05, 1.05)
        ax.set_axis_off()
        scale_beside(ax, paint, unit)
    return ax


def colours_of(numbers: np.ndarray, signed: bool) -> mpl.cm.ScalarMappable:
    """Blue above zero and orange below where signed, else light to dark blue."""
    known = numbers[np.isfinite(numbers)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    paper = mpl.colors.LinearSegmentedColormap.from_list(
        "boxes", [BELOW, "white", ABOVE] if signed else ["white", ABOVE]
    )
    return mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high if high > low else low + 1), paper)


def token_box(
    ax: Axes,
    at: tuple[float, float],
    width: float,
    text: str,
    word: str,
    value: float,
    paint: mpl.cm.ScalarMappable,
) -> None:
    """A box one unit high, with a token (made visible) and its value in words."""
    left, low = at
    colour = paint.to_rgba(np.array([value]))[0] if np.isfinite(value) else "white"
    ax.add_patch(
        mpl.patches.FancyBboxPatch(
            at, width, 1, boxstyle="round,pad=0,rounding_size=0.2", mutation_aspect=0.2,
            facecolor=colour, edgecolor="0.6", lw=0.7,
        )
    )  # fmt: skip
    middle = left + width / 2
    ax.text(middle, low + 0.66, text, ha="center", va="center", fontsize=8)
    ax.text(middle, low + 0.24, word, ha="center", va="center", fontsize=6.5, color="0.25")


def scale_beside(ax: Axes, paint: mpl.cm.ScalarMappable, unit: str, aspect: float = 9) -> None:
    """The colours' scale, at the right of the boxes."""
    scale = ax.figure.colorbar(paint, ax=ax, fraction=0.04, pad=0.02, aspect=aspect)
    scale.ax.set_title(unit.replace(" (", "\n("), fontsize=6.5)
    scale.ax.tick_params(labelsize=6.5)


def plot_bars(
    tokens: Sequence[str],
    values: Sequence[float],
    unit: str,
    ax: Axes | None = None,
    errors: Sequence[float] | None = None,
    signed: bool = False,
) -> Axes:
    """A bar for each token in reading order, with its value, and an interval where one is known.

    Args:
        tokens: raw token texts.
        values: one number a token.
        unit: what the numbers are, the label of the axis.
        ax: where to draw; a new figure unless given.
        errors: standard errors; the interval is 1.96 of them to each side. NaN draws none.
        signed: hatch what lies below zero, so that signs are told apart without colour.
    """
    numbers = np.asarray(values, dtype=float)
    _check(tokens, numbers)
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(1.4 + 0.58 * len(numbers), 2.2))
        at = np.arange(len(numbers))
        below = signed & (numbers < 0)
        bars = ax.bar(at, numbers, width=0.72, edgecolor="0.35", lw=0.6,
                      color=np.where(below, BELOW, ABOVE))  # fmt: skip
        for bar in np.array(bars, dtype=object)[below]:
            bar.set_hatch("///")
        half = np.zeros(len(numbers)) if errors is None else 1.96 * np.asarray(errors, dtype=float)
        known = np.isfinite(half) & (half > 0)
        if known.any():
            ax.errorbar(at[known], numbers[known], yerr=half[known], fmt="none", ecolor="black",
                        lw=1, capsize=2.5, label="95% interval")  # fmt: skip
        half = np.where(known, half, 0.0)
        for x, value, word, reach in zip(
            at, numbers, scores(numbers.tolist(), signed), half, strict=True
        ):
            up = not value < 0
            ax.annotate(
                word, (x, (value if np.isfinite(value) else 0) + (reach if up else -reach)),
                (0, 2 if up else -2), textcoords="offset points", ha="center",
                va="bottom" if up else "top", fontsize=7,
            )  # fmt: skip
        if signed:
            ax.axhline(0, color="0.35", lw=0.8)
        ax.margins(y=0.14)
        slanted = max(map(len, tokens)) > 7
        ax.set_xticks(at, [show_plot(token) for token in tokens],
                      fontsize=8, rotation=30 if slanted else 0,
                      ha="right" if slanted else "center")  # fmt: skip
        ax.tick_params(axis="x", length=0)
        ax.set_ylabel(unit)
        sns.despine(ax=ax)
    return ax


def _check(tokens: Sequence[str], values: np.ndarray) -> None:
    if not len(tokens) or len(tokens) != len(values):
        raise SoftlensError(
            f"Got {len(tokens)} tokens and {len(values)} values, wanted one value for each token."
        )
