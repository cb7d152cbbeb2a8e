"""What changes along a proxy's weight: accuracy, surprisal, label mass."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from softlens.errors import SoftlensError
from softlens.plots.style import as_panels, look, style
from softlens.statistics import mean_interval

PANELS = {
    "accuracy": "test accuracy",
    "nats_per_token": "surprisal\n(nats per token)",
    "label_mass": "label mass",
}
REFERENCES = {
    "empty_accuracy": ("empty prompt", ":"),
    "random_accuracy": ("random prompts", "-."),
    "readable_accuracy": ("best readable", "--"),
}


def plot_weights(frame: pd.DataFrame, ax: Any = None) -> np.ndarray:
    """Accuracy, surprisal and label mass against the weight of a proxy; all seeds, and means.

    Args:
        frame: a row a run: ``method, weight, accuracy, nats_per_token, label_mass``, and for the
            lines of reference ``empty_accuracy``, ``random_accuracy`` and ``readable_accuracy``, if
            there.
        ax: three Axes; a new figure unless given.

    Returns:
        The Axes. Weights stand at equal distances. Points are runs, lines their means, bars 95%
        bootstrap intervals; thin lines without points are the controls.

    Raises:
        SoftlensError: a table without one of these columns (says which), or of several LMs, tasks
            or proxies: their means are no line.
    """
    if absent := {"method", "weight", *PANELS} - set(frame.columns):
        raise SoftlensError(f"Got a table without {sorted(absent)}; it has {list(frame.columns)}.")
    for name in ("lm", "task", "proxy"):
        values = [v for v in dict.fromkeys(frame.get(name, ())) if (name, v) != ("proxy", "none")]
        if len(values) > 1:
            kept = ["none", values[0]] if name == "proxy" else values[0]
            raise SoftlensError(
                f"Got runs of several values of {name!r} ({', '.join(map(str, values))}), and one "
                f"line would be their mean: take one, sweep.filter({name}={kept!r})."
            )
    weights = sorted(frame["weight"].unique())
    methods = list(dict.fromkeys(frame["method"]))
    with style():
        if ax is None:
            _, ax = plt.subplots(1, 3, figsize=(7.6, 2.5))
        axes = as_panels(ax, len(PANELS))
        for panel, (column, label) in zip(axes, PANELS.items(), strict=True):
            for number, method in enumerate(methods):
                colour, marker = look(method)
                shift = 0.14 * (number - (len(methods) - 1) / 2)
                rows = frame[frame["method"] == method]
                means = mean_interval(rows, ["weight"], column).sort_values("weight")
                x = np.array([weights.index(w) for w in means["weight"]]) + shift
                panel.plot(x, means["mean"], color=colour, lw=1.2, zorder=2)
                panel.vlines(x, means["low"], means["high"], color=colour, lw=4, alpha=0.3)
                panel.scatter(
                    [weights.index(w) + shift for w in rows["weight"]], rows[column], s=14,
                    color=colour, marker=marker, edgecolor="white", lw=0.3, zorder=3, label=method,
                )  # fmt: skip
            panel.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
            panel.set_xlabel("weight of the proxy")
            panel.set_ylabel(label)
            if column != "nats_per_token":
                panel.set_ylim(-0.04, 1.04)
            sns.despine(ax=panel)
        for column, (label, line) in REFERENCES.items():
            if column in frame:
                axes[0].axhline(frame[column].mean(), color="0.3", lw=0.9, ls=line, label=label)
        axes[0].legend(fontsize=7, loc="best")
    return axes
