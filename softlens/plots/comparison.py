"""Methods of attribution side by side."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from softlens.plots.style import as_panels, style

if TYPE_CHECKING:
    from softlens.attribution import AttributionComparison


def plot_comparison(found: "AttributionComparison", ax: Any = None) -> np.ndarray:
    """A panel for each measure, a row for each method.

    Args:
        found: what `softlens.compare_attributions` returned.
        ax: as many Axes as there are measures; a new figure unless given.

    Returns:
        The Axes. Circles are prompts, ticks the mean over them; the row of a random order is what
        a method has to beat.
    """
    from softlens.attribution.compare import MEASURES

    summary = found.summary.set_index("method")
    measures = [name for name in MEASURES if name in summary]
    methods = list(summary.index)
    with style():
        if ax is None:
            size = (1.35 * len(measures) + 1.4, 0.85 + 0.24 * len(methods))
            _, ax = plt.subplots(1, len(measures), figsize=size, sharey=True)
        axes = as_panels(ax, len(measures))
        colours = dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))
        colours["random order"] = "0.5"
        for panel, measure in zip(axes, measures, strict=True):
            for y, method in enumerate(methods):
                mean = summary.loc[method, measure]
                panel.axhline(y, color="0.93", lw=0.8, zorder=-1)
                panel.plot([mean, mean], [y - 0.32, y + 0.32], color=colours[method], lw=2)
                if measure in found.frame:
                    points = found.frame.loc[found.frame["method"] == method, measure].dropna()
                    around = y + np.linspace(-0.18, 0.18, len(points)) * (len(points) > 1)
                    panel.scatter(points, around, s=14, color=colours[method], alpha=0.7,
                                  edgecolor="white", lw=0.3, clip_on=False)  # fmt: skip
            label = MEASURES[measure]
            if measure in ("comprehensiveness", "sufficiency"):
                label = f"{measure} ({found.unit})\n{label.split(chr(10))[1]}"
            if "correlation" in measure:
                panel.axvline(0, color="0.6", lw=0.8, ls=":")
                panel.set_xlim(-1.05, 1.05)
            if measure == "planted":
                panel.set_xlim(-0.03, 1.03)
            panel.set_xlabel(label, fontsize=7)
            panel.tick_params(axis="y", length=0)
            panel.tick_params(axis="x", labelsize=7)
            sns.despine(ax=panel, left=True)
        axes[0].set_yticks(range(len(methods)), [m.replace("_", " ") for m in methods])
        axes[0].set_ylim(len(methods) - 0.5, -0.5)
    return axes
