"""The target on the way to the whole prompt."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from softlens.plots.style import as_panels, show_plot, style

if TYPE_CHECKING:
    from softlens.attribution import FadeIn

TITLES = {
    "faded": "vectors faded in\n(integrated gradients)",
    "drawn": "positions drawn in\n(Shapley values)",
}
WAYS = {
    "faded": "share of the way to the vectors",
    "drawn": "probability of each position",
}
MOST_NAMES = 10
DASHES = ("-", "--", "-.", ":")


def plot_fade_in(found: "FadeIn", ax: Any = None) -> np.ndarray:
    """A panel for each path from the absent prompt to the whole one.

    Args:
        found: what `softlens.fade_in` returned.
        ax: an Axes for each path; a new figure unless given.

    Returns:
        The Axes. The thick line is what the target has gained, with a 95% band over texts; thin
        lines are the positions' parts of it, the largest `MOST_NAMES` named where they end: their
        attributions.
    """
    paths = list(dict.fromkeys(found.frame["path"]))
    with style():
        if ax is None:
            size = (2.9 * len(paths) + 0.4, 2.8)
            _, ax = plt.subplots(1, len(paths), figsize=size, sharey=True)
        axes = as_panels(ax, len(paths))
        colours = sns.color_palette("colorblind", len(found.pieces))
        named = []
        for panel, path in zip(axes, paths, strict=True):
            whole = found.frame[found.frame["path"] == path]
            gained = whole["gain"]
            reach = 1.96 * whole["standard_error"].fillna(0)
            panel.axhline(0, color="0.8", lw=0.8, zorder=0)
            panel.fill_between(whole["share"], gained - reach, gained + reach, color="0.88", lw=0)
            panel.plot(whole["share"], gained, color="black", lw=2.2)
            ends = [(float(gained.iloc[-1]), "sum", "black")]
            own = found.gathered[found.gathered["path"] == path]
            for position, token in enumerate(found.pieces):
                line = own[own["position"] == position]
                panel.plot(line["share"], line["attribution"], color=colours[position], lw=1.2,
                           ls=DASHES[position % len(DASHES)])  # fmt: skip
                ends.append((line["attribution"].iloc[-1], show_plot(token), colours[position]))
            # The sum, and the positions with the largest parts: more names would not be read.
            largest = sorted(ends[1:], key=lambda end: -abs(end[0]))[:MOST_NAMES]
            named.append(sorted([ends[0], *largest], key=lambda end: end[0]))
            panel.set_title(TITLES[path])
            panel.set_xlabel(WAYS[path])
            panel.set_xlim(0, 1)
            sns.despine(ax=panel)
        low, high = axes[0].get_ylim()
        for panel, ends in zip(axes, named, strict=True):
            places = _apart([end for end, _, _ in ends], 0.065 * (high - low))
            for place, (_, name, colour) in zip(places, ends, strict=True):
                panel.annotate(name, (1, place), (4, 0), textcoords="offset points", va="center",
                               fontsize=7, color=colour, annotation_clip=False)  # fmt: skip
        axes[0].set_ylabel(f"gain of {found.target.replace('_', ' ')} ({found.unit})")
    return axes


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Heights for names, in order, near where their lines end and at least `gap` apart."""
    places: list[float] = []
    for end in wanted:
        places.append(max(end, places[-1] + gap) if places else end)
    # What was pushed up is brought back to the middle of what was wanted.
    shift = float(np.mean(places) - np.mean(wanted))
    return [place - shift for place in places]
