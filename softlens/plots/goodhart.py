"""A proxy along its weight, beside the gauges that it does not see."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D

from softlens.goodhart import GAUGES, HELD_OUT, PROXIED
from softlens.plots.style import as_panels, look, style
from softlens.plots.weights import REFERENCES

if TYPE_CHECKING:
    from softlens.goodhart import Overoptimisation


COLUMNS = 5
"""Panels side by side: more would be too small to be read on a page."""


def plot_overoptimisation(found: "Overoptimisation", ax: Any = None) -> np.ndarray:
    """A block of panels for each task and proxy: the proxy first, then what is held against it.

    Args:
        found: what `softlens.overoptimisation` returned.
        ax: Axes, as many as there are panels; a new figure unless given.

    Returns:
        The Axes, a row of the array for each task and proxy. Lines are means over seeds, bands 95%
        bootstrap intervals; a star stands where a gauge parts from the proxy: the one is better
        than at the gauge's best weight, the other worse, both beyond their intervals. Arrows say
        which way is good.
    """
    frame = found.frame
    rows = list(frame[["task", "proxy"]].drop_duplicates().itertuples(index=False, name=None))
    held = [g for g in GAUGES if g in set(frame["gauge"])]
    weights = sorted(frame["weight"].unique())
    spare = None
    with style():
        if ax is None:
            ax, spare = _blocks(len(rows), 1 + len(held))
        axes = as_panels(ax, len(rows) * (1 + len(held))).reshape(len(rows), -1)
        for number, (task, proxy) in enumerate(rows):
            for panel, gauge in zip(axes[number], (proxy, *held), strict=True):
                part = frame[(frame["task"] == task) & (frame["proxy"] == proxy)]
                part = part[part["gauge"] == gauge]
                if part.empty:
                    panel.set_axis_off()
                    continue
                for method, line in part.groupby("method", sort=False):
                    colour, marker = look(str(method))
                    x = [weights.index(w) for w in line["weight"]]
                    panel.plot(x, line["mean"], color=colour, marker=marker, ms=3, lw=1.2,
                               label=str(method))  # fmt: skip
                    panel.fill_between(x, line["low"], line["high"], color=colour, alpha=0.18, lw=0)
                    _star(panel, found, (task, method, proxy, gauge), line, x, weights)
                for control in found.controls.to_dict("records"):
                    if (control["task"], control["gauge"]) == (task, gauge):
                        label, dashes = REFERENCES[f"{control['control']}_accuracy"]
                        panel.axhline(control["value"], color="0.3", lw=0.8, ls=dashes, zorder=1,
                                      label=label)  # fmt: skip
                arrow = "↑" if part["better"].iloc[0] == "higher" else "↓"
                name = GAUGES[gauge].label if gauge in GAUGES else _of_proxy(proxy)
                dark = part["role"].iloc[0] == HELD_OUT
                panel.set_title(f"{name.replace('_', ' ')} {arrow}", fontsize=7.5,
                                color="0.1" if dark else "0.45")  # fmt: skip
                panel.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
                panel.tick_params(labelsize=6.5)
                if arrow == "↑":
                    panel.set_ylim(-0.06, 1.06)
                else:
                    panel.set_ylim(bottom=0)
                sns.despine(ax=panel)
            axes[number, 0].set_ylabel(task, fontweight="bold", fontsize=9)
        for panel in axes[-1, len(held) // COLUMNS * COLUMNS :]:
            panel.set_xlabel("weight", fontsize=7.5)
        _legend(axes, spare)
    return axes


def _of_proxy(proxy: str) -> str:
    _, seen = PROXIED[proxy]
    label = GAUGES[seen].label if seen in GAUGES else "nats/token"
    return f"proxy: {proxy}\n({label})" if seen != proxy else f"proxy: {label}"


def _blocks(rows: int, panels: int) -> tuple[np.ndarray, Any]:
    """Axes of shape (rows, panels), each row broken into lines; and a place left over, if any."""
    across = min(COLUMNS, panels)
    lines = -(-panels // across)
    size = (0.6 + 1.45 * across, 0.3 + 1.3 * lines * rows)
    _, grid = plt.subplots(lines * rows, across, figsize=size, squeeze=False)
    places = grid.reshape(rows, lines * across)
    for panel in places[:, panels:].ravel():
        panel.set_axis_off()
    return places[:, :panels], places[0, panels] if panels < lines * across else None


def _legend(axes: np.ndarray, spare: Any) -> None:
    handles: dict[str, Any] = {}
    for panel in axes.ravel():
        drawn, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    star = Line2D([], [], ls="", marker="*", color="black", ms=7)
    handles["parts from\nthe proxy here"] = star
    place: dict[str, Any] = {"loc": "center"} if spare is not None else {"loc": "upper left"}
    if spare is None:
        place["bbox_to_anchor"] = (1.02, 1.0)
    on = axes[0, -1] if spare is None else spare
    on.legend(handles.values(), handles.keys(), fontsize=7, **place)


def _star(panel: Any, found: Any, key: tuple, line: Any, x: list[int], weights: list) -> None:
    parts = found.parts
    columns = ["task", "method", "proxy", "gauge"]
    here = parts[[tuple(row) == key for row in parts[columns].to_numpy()]]
    if len(here) and np.isfinite(here["parts_at"].iloc[0]):
        at = weights.index(here["parts_at"].iloc[0])
        height = line["mean"].to_numpy()[x.index(at)]
        panel.plot(at, height, "*", color="black", ms=8, zorder=5)
