"""How unexpected each token is, and how sentences of people compare."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from softlens.errors import SoftlensError, near
from softlens.people import BAND
from softlens.plots.style import style
from softlens.plots.tokens import plot_bars, plot_tokens

if TYPE_CHECKING:
    from softlens.surprisal import Surprisal

KINDS = ("bars", "tokens")


def plot_surprisal(found: "Surprisal", ax: Axes | None = None, kind: str = "bars") -> Axes:
    """Surprisal of each token of a text.

    Args:
        found: what `softlens.surprisal` returned.
        ax: where to draw; a new figure unless given.
        kind: "bars": with the mean over the tokens (line), the middle 80% of the means of people's
            sentences (band), and the same after real texts (diamonds), where they are known; or
            "tokens": boxes in reading order.
    """
    if kind not in KINDS:
        raise SoftlensError(f"Got kind {kind!r}, wanted one of {KINDS}.{near(kind, KINDS)}")
    values = found.frame["surprisal_nats"].tolist()
    if kind == "tokens":
        return plot_tokens(found.pieces, values, "surprisal (nats)", ax)
    ax = plot_bars(found.pieces, values, "surprisal (nats)", ax)
    with style():
        if found.quantile is not None:
            low, high = np.quantile(found.people, BAND)
            ax.axhspan(low, high, color="#009E73", alpha=0.18, lw=0, zorder=0,
                       label=textwrap.fill(f"middle 80% of {found.people_are}", 26))  # fmt: skip
        ax.axhline(found.nats_per_token, color="black", lw=1, ls="--", zorder=1, label="mean")
        if "after_text_nats" in found.frame and found.context != "text":
            # Beside the bars, which carry their numbers.
            at = np.arange(len(values)) + 0.42
            ax.scatter(at, found.frame["after_text_nats"], marker="D", s=18,
                       color="#D55E00", edgecolor="white", lw=0.4, zorder=3,
                       label="after real texts")  # fmt: skip
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    return ax
