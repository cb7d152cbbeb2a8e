"""Readings tested: faithfulness, and the least gap at each price of surprisal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import style

if TYPE_CHECKING:
    from softlens.framework.criterion import Verdict
    from softlens.framework.faithfulness import Faithfulness

METHODS = ("nearest", "matched", "mixture", "verbalize", "frame", "given")
_LOOK = dict(
    zip(METHODS, zip(sns.color_palette("colorblind", 6), "DosP^X", strict=True), strict=True)
)
HOLLOW = {"X": "x", "P": "+"}
"""Markers that would be lost as outlines."""
GREY: tuple[Any, str] = ("0.5", "^")
FLOOR = -0.25
LOWER = 0.27
"""By how much of a row agreement is drawn below the share of KL closed."""
TOP, LINEAR = 1.25, 0.01
"""The highest gap of the curve's picture, and the one below which its scale is linear."""
TICKS = (0, 0.01, 0.03, 0.1, 0.3, 1)


def look_of(method: str) -> tuple[Any, str]:
    """Colour and marker of a method of reading."""
    return _LOOK.get(method.split(" ")[0], ("0.3", "h"))


def plot_faithfulness(found: Sequence["Faithfulness"], ax: Axes | None = None) -> Axes:
    """Share of KL closed by each reading on each kind of texts, and agreement below it, hollow.

    Both have their intervals, and beside each stands the random control. Values below -0.25 are
    drawn at the edge, as arrows.
    """
    rows = []
    for one in found:
        for domain in dict.fromkeys(one.frame["domain"]):
            rows.append((one, str(domain)))
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.8, 0.9 + 0.36 * len(rows)))
        labels = []
        for y, (one, domain) in enumerate(rows):
            colour, marker = look_of(one.reading.method)
            for scored, shade, mark, size in (
                ("random", GREY[0], GREY[1], 5),
                ("reading", colour, marker, 7),
            ):
                value, low, high = one.interval("kl_closed", domain, scored)
                agreement, least, most = one.interval("agreement", domain, scored)
                ax.plot([least, most], [y + LOWER] * 2, color=shade, lw=1.2, alpha=0.6)
                ax.plot(agreement, y + LOWER, HOLLOW.get(mark, mark), color=shade, ms=size - 1,
                        mfc="white", mew=1.1)  # fmt: skip
                if np.isnan(value):
                    continue
                if value < FLOOR:
                    ax.plot(FLOOR, y, "<", color=shade, ms=size, clip_on=False)
                    continue
                ax.plot([max(low, FLOOR), high], [y, y], color=shade, lw=2, alpha=0.6)
                ax.plot(value, y, mark, color=shade, ms=size, mec="white", mew=0.5)
            labels.append(f"{one.reading.method}: {domain}")
        ax.axvline(0, color="0.7", lw=0.8, ls=":")
        ax.axvline(1, color="0.7", lw=0.8, ls=":")
        ax.plot([], [], GREY[1], color=GREY[0], label="random text of that length")
        ax.plot([], [], "o", color="0.2", label="the reading, with its 95% interval")
        ax.plot([], [], "o", color="0.2", mfc="white", mew=1.1, label="its share of like answers")
        ax.set_yticks(range(len(rows)), labels, fontsize=8)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(FLOOR - 0.03, 1.03)
        ax.set_xlabel("share of KL closed (0: no prompt, 1: the prompt); hollow: agreement")
        ax.legend(fontsize=7.5, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3,
                  handletextpad=0.1, columnspacing=1.0)  # fmt: skip
        sns.despine(ax=ax)
    return ax


def plot_loss(history: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The loss of each step, and what was looked at now and then."""
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.2, 2.2))
        ax.plot(history["step"], history["loss"], color="#0072B2", lw=1, label="loss of the batch")
        for column, colour in (("kl_vocab", "#D55E00"), ("decoded", "#009E73")):
            if column in history:
                known = history.dropna(subset=column)
                label = {"kl_vocab": "KL on other texts", "decoded": "share of tokens decoded"}
                ax.plot(known["step"], known[column], "o-", ms=4, lw=1, color=colour,
                        label=label[column])  # fmt: skip
        ax.set_xlabel("step")
        ax.set_ylabel("nats")
        ax.legend(fontsize=7.5)
        sns.despine(ax=ax)
    return ax


def plot_curve(verdict: "Verdict", ax: Axes | None = None) -> Axes:
    """The smallest faithfulness gap that a text reaches at each price of surprisal.

    The scale of gaps is logarithmic above .01; those above 1.25 are arrows at the top.
    """
    curve, criterion = verdict.curve, verdict.criterion
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.6, 3.2))
        steps = curve[curve["smallest"]].sort_values("nats_per_token")
        ends = max(float(curve["nats_per_token"].max()), criterion.nats_per_token) * 1.05
        x = [*steps["nats_per_token"], ends]
        for column, alpha in (("epsilon", 1.0), ("low", 0.35), ("high", 0.35)):
            y = [*steps[column], steps[column].iloc[-1]]
            ax.step(x, y, where="post", color="black", lw=1 if alpha == 1 else 0.6, alpha=alpha,
                    zorder=4)  # fmt: skip
        for method, rows in curve.groupby("method", sort=False):
            colour, marker = look_of(str(method))
            above = rows["epsilon"] > TOP
            inside = rows[~above]
            ax.scatter(inside["nats_per_token"], inside["epsilon"], s=22, color=colour,
                       marker=marker, label=str(method), zorder=3, clip_on=False)  # fmt: skip
            ax.scatter(rows[above]["nats_per_token"], [TOP] * above.sum(), s=30, color=colour,
                       marker="^", zorder=3, clip_on=False)  # fmt: skip
        ax.add_patch(
            plt.Rectangle((0, 0), criterion.nats_per_token, criterion.epsilon, color="#009E73",
                          alpha=0.15, lw=0, label="faithful and fluent enough")
        )  # fmt: skip
        ax.plot([], [], color="black", lw=1, label="smallest gap at this price")
        ax.set_xlim(0, ends)
        ax.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
        ax.set_ylim(0, TOP)
        ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        ax.minorticks_off()
        ax.set_xlabel("surprisal of the reading (nats per token)")
        ax.set_ylabel("faithfulness gap ε (share of KL left)")
        ax.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
        sns.despine(ax=ax)
    return ax
