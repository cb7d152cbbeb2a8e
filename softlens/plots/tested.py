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
GREY: tuple[Any, str] = ("0.5", "^")
FLOOR = -0.25


def look_of(method: str) -> tuple[Any, str]:
    """Colour and marker of a method of reading."""
    return _LOOK.get(method.split(" ")[0], ("0.3", "h"))


def plot_faithfulness(found: Sequence["Faithfulness"], ax: Axes | None = None) -> Axes:
    """Share of KL closed by each reading on each kind of texts, with its interval.

    Beside each stands the random control. Values below -0.25 are drawn at the edge, as arrows.
    """
    rows = []
    for one in found:
        for domain in dict.fromkeys(one.frame["domain"]):
            rows.append((one, str(domain)))
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.8, 0.8 + 0.3 * len(rows)))
        labels = []
        for y, (one, domain) in enumerate(rows):
            colour, marker = look_of(one.reading.method)
            for scored, shade, mark, size in (
                ("random", GREY[0], GREY[1], 5),
                ("reading", colour, marker, 7),
            ):
                value, low, high = one.interval("kl_closed", domain, scored)
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
        ax.set_yticks(range(len(rows)), labels, fontsize=8)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(FLOOR - 0.03, 1.03)
        ax.set_xlabel("share of KL closed (0: as no prompt, 1: as the prompt)")
        ax.legend(fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
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
    """The smallest faithfulness gap that a text reaches at each price of surprisal."""
    curve, criterion = verdict.curve, verdict.criterion
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.6, 3.2))
        steps = curve[curve["smallest"]].sort_values("nats_per_token")
        ends = max(float(curve["nats_per_token"].max()), criterion.nats_per_token) * 1.05
        x = [*steps["nats_per_token"], ends]
        for column, alpha in (("epsilon", 1.0), ("low", 0.35), ("high", 0.35)):
            y = [*steps[column], steps[column].iloc[-1]]
            ax.step(x, y, where="post", color="black", lw=1 if alpha == 1 else 0.6, alpha=alpha)
        for method, rows in curve.groupby("method", sort=False):
            colour, marker = look_of(str(method))
            ax.scatter(rows["nats_per_token"], rows["epsilon"].clip(upper=1.25), s=22, color=colour,
                       marker=marker, label=str(method), zorder=3, clip_on=False)  # fmt: skip
        ax.add_patch(
            plt.Rectangle((0, 0), criterion.nats_per_token, criterion.epsilon, color="#009E73",
                          alpha=0.15, lw=0, label="faithful and fluent enough")
        )  # fmt: skip
        ax.plot([], [], color="black", lw=1, label="smallest gap at this price")
        ax.set_xlim(0, ends)
        ax.set_ylim(0, min(1.25, max(1.0, float(curve["epsilon"].max()))))
        ax.set_xlabel("surprisal of the reading (nats per token)")
        ax.set_ylabel("faithfulness gap ε (share of KL left)")
        ax.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
        sns.despine(ax=ax)
    return ax
