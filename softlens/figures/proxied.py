"""Proxies compared: one method, one weight, several stand-ins for interpretability."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from softlens.figures.base import Drawn, Ground, LeftOutError, figure
from softlens.statistics import mean_interval

PANELS = {
    "accuracy": "test accuracy ↑",
    "label_mass": "label mass ↑",
    "nats_per_token": "surprisal ↓\n(nats per token)",
    "judge_nats": "judge's surprisal ↓\n(nats per token)",
    "max_surprisal": "worst token ↓\n(nats)",
    "transfer_accuracy": "judge's accuracy ↑",
}


@figure(14, "Proxies compared")
def proxies_compared(ground: Ground) -> Drawn:
    """PEZ with each differentiable proxy at the same weight."""
    frame = ground.sweep.frame
    task = ground.main_task
    frame = frame[(frame["task"] == task.name) & (frame["method"] == "pez")]
    compared = frame.loc[frame["proxy"] == "relevance", "weight"]
    if compared.empty:
        raise LeftOutError("no run with the proxy relevance is there, whose weight all have")
    weight = compared.iloc[0]
    frame = frame[(frame["weight"] == weight) | (frame["proxy"] == "none")]
    judged = frame["judge_perplexity"].astype(float).map(np.log)
    frame = frame.assign(judge_nats=judged)
    shown = {c: label for c, label in PANELS.items() if frame[c].notna().any()}
    names = list(dict.fromkeys(frame["proxy"]))
    names.sort(key=lambda name: (name != "none", name))
    size = (1.3 + 1.3 * len(shown), 0.9 + 0.28 * len(names))
    drawn, axes = plt.subplots(1, len(shown), figsize=size, sharey=True)
    colours = dict(zip(names, ["0.4", *sns.color_palette("colorblind")], strict=False))
    means = []
    for panel, (column, label) in zip(np.atleast_1d(axes), shown.items(), strict=True):
        found = mean_interval(frame, ["proxy"], column)
        means.append(found.assign(measure=column))
        for row in found.to_dict("records"):
            y, colour = names.index(row["proxy"]), colours[row["proxy"]]
            panel.plot([row["low"], row["high"]], [y, y], color=colour, lw=5, alpha=0.3)
            panel.plot([row["mean"]] * 2, [y - 0.3, y + 0.3], color=colour, lw=1.8)
            points = frame.loc[frame["proxy"] == row["proxy"], column]
            panel.scatter(points, [y] * len(points), s=14, color=colour, edgecolor="white", lw=0.3,
                          zorder=3, clip_on=False)  # fmt: skip
        if "↑" in label:
            panel.set_xlim(-0.03, 1.03)
        else:
            panel.set_xlim(left=0)
        panel.set_xlabel(label, fontsize=8)
        panel.tick_params(axis="y", length=0)
        sns.despine(ax=panel, left=True)
    np.atleast_1d(axes)[0].set_yticks(range(len(names)), [n.replace("_", " ") for n in names])
    np.atleast_1d(axes)[0].set_ylim(len(names) - 0.5, -0.5)
    scale = [frame[f"{name}_accuracy"].iloc[0] for name in ("readable", "random", "empty")]
    caption = (
        f"PEZ on `{task.name}` with each of {len(names) - 1} proxies, all at weight {weight:g}, "
        "and with none. Points are seeds, ticks their means, bars the intervals; arrows say which "
        f"way is good. For scale: accuracy of the best readable prompt {scale[0]:.2f}, of random "
        f"prompts {scale[1]:.2f}, of none {scale[2]:.2f}. One weight is not the best of each "
        f"proxy. {ground.stated(n=len(task.test))}"
    )
    return Drawn(drawn, pd.concat(means, ignore_index=True), caption)
