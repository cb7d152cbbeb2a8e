"""A prompt, its readings and its controls, task by task."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.errors import SoftlensError
from softlens.plots.style import COLOURS, MARKERS, style
from softlens.statistics import mean_interval

MEAN, MASS = 1.13, 1.36
"""Where the columns of numbers end, in widths of the axes: clear of a marker at 1."""


def plot_controls(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of a soft prompt, of its readings and of the controls, for each task.

    Args:
        frame: ``task, scored, seed, accuracy, label_mass`` and, for the line of chance,
            ``chance``, as `softlens.figures.soft_and_nearest` gives it. With columns ``low`` and
            ``high`` each row is one number, and these are its interval over texts.
        ax: where to draw; a new figure unless given.

    Returns:
        The Axes, one row for each thing scored: a point for each seed, a tick at their mean with
        a bar for its 95% bootstrap interval, and in words the mean and the label mass: an
        accuracy with hardly any label mass is that of a prompt which asks something else.

    Raises:
        SoftlensError: an empty table, or one without a column that is needed (says which).
    """
    if frame.empty:
        raise SoftlensError("Got an empty table, wanted rows of task, scored, seed and accuracy.")
    if absent := {"task", "scored", "accuracy", "label_mass"} - set(frame.columns):
        raise SoftlensError(f"Got a table without {sorted(absent)}; it has {list(frame.columns)}.")
    tasks = list(dict.fromkeys(frame["task"]))
    named = {task: set(rows["scored"]) for task, rows in frame.groupby("task")}
    names = {task: [name for name in COLOURS if name in named[task]] for task in tasks}
    # A task is its heading and a row for each name; a gap stands before the next.
    heads, last = {}, -1.7
    for task in tasks:
        heads[task] = last + 1.7
        last = heads[task] + len(names[task])
    masses = frame.groupby(["task", "scored"])["label_mass"].mean()
    ticks: dict[float, str] = {}
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.8, 0.55 + 0.23 * (last + 1)))
        aside: Any = {"transform": ax.get_yaxis_transform(), "va": "center", "ha": "right"}
        for task, head in heads.items():
            ax.text(-0.02, head, task, fontweight="bold", **aside)
            if "chance" in frame:
                chance = frame.loc[frame["task"] == task, "chance"].iloc[0]
                label = "chance" if task == tasks[0] else None
                ax.plot([chance] * 2, [head + 0.5, head + len(names[task]) + 0.5], color="0.45",
                        ls=(0, (2, 2)), lw=1, zorder=0, label=label)  # fmt: skip
        over_texts = {"low", "high"} <= set(frame.columns)
        means = (
            frame.assign(mean=frame["accuracy"], n=1)
            if over_texts
            else mean_interval(frame, ["task", "scored"], "accuracy")
        )
        for row in means.to_dict("records"):
            task, scored, mean = row["task"], row["scored"], float(row["mean"])
            y, colour = heads[task] + 1 + names[task].index(scored), COLOURS[scored]
            ticks[y] = scored
            ax.axhline(y, color="0.93", lw=0.8, zorder=-1)
            if np.isfinite(row["low"]):
                ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=5, alpha=0.35,
                        solid_capstyle="butt", zorder=1)  # fmt: skip
            if row["n"] > 1:
                ax.plot([mean, mean], [y - 0.33, y + 0.33], color=colour, lw=1.6, zorder=2)
            points = frame[(frame["task"] == task) & (frame["scored"] == scored)]["accuracy"]
            # Equal accuracies stay countable.
            around = y + (np.linspace(-0.2, 0.2, len(points)) if len(points) > 1 else np.zeros(1))
            ax.scatter(points, around, s=26, color=colour, marker=MARKERS[scored],
                       edgecolor="white", lw=0.4, zorder=3, clip_on=False)  # fmt: skip
            ax.text(MEAN, y, f"{mean:.2f}", **aside)
            mass = masses[task, scored]
            ax.text(MASS, y, f"{mass:.2f}" if mass >= 0.01 else f"{mass:.0e}", **aside)
        for x, heading in ((MEAN, "mean"), (MASS, "label mass")):
            ax.text(x, -0.1, heading, color="0.35", fontsize=8, **aside)
        # The legend has one neutral sample of each sign: rows are named at their side.
        point = "mean over test texts" if over_texts else "a seed (random: a draw)"
        ax.scatter([], [], s=26, color="0.35", label=point)
        what = "over texts" if over_texts else "of the mean"
        ax.plot([], [], color="0.35", lw=5, alpha=0.35, label=f"95% bootstrap interval {what}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / (0.23 * (last + 1))), ncols=3,
                  fontsize=8, columnspacing=1.2, handlelength=1.4)  # fmt: skip
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.set_ylim(last + 0.6, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("test accuracy (share of texts)")
        ax.tick_params(axis="y", length=0)
        sns.despine(ax=ax, left=True)
    return ax
