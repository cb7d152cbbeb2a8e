"""Interpretability against performance: runs, fronts, and the gap taken apart."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import as_panels, look, style
from softlens.plots.weights import REFERENCES
from softlens.statistics import mean_interval
from softlens.tradeoff import BOUND, fronts, hard_runs, price_split, reference

TICKS = (0, 1, 2, 4, 7, 11, 16, 22)
"""Nats per token at about equal distances on a square-root scale ..."""
FAR = 6.0
"""... which is drawn where there are runs so surprising."""
PARTS = {
    "price_of_interpretability": ("price of interpretability", "#009E73"),
    "price_of_optimiser": ("price of the optimiser", "#D55E00"),
}


def plot_tradeoff(table: Any, ax: Any = None, gold: pd.DataFrame | None = None) -> Any:
    """Accuracy against surprisal of every run, and each method's front with its interval.

    Args:
        table: a sweep, or its frame.
        ax: Axes, one for each task; a new figure unless given.
        gold: ``task, nats_per_token, accuracy`` of what could be had; None: the organism's gold
            front, elsewhere the pooled bound.

    Returns:
        The Axes; an array of them where there are several tasks. Points are runs, the larger the
        more the proxy weighs; steps are the means over seeds of what a method reaches at each
        surprisal, with 95% bootstrap bands; black steps what could be had; thin lines the
        controls, a blue one the soft prompts of the table, which have no surprisal.
    """
    frame = hard_runs(table, ["task", "method", "weight", "seed", "accuracy", "nats_per_token"])
    every = getattr(table, "frame", table)
    soft = every[every["method"] == "soft"]
    steps = fronts(frame)
    best = reference(frame) if gold is None else gold
    tasks = list(dict.fromkeys(frame["task"]))
    with style():
        if ax is None:
            size = (1.2 + 2.7 * len(tasks), 3.0)
            _, ax = plt.subplots(1, len(tasks), figsize=size, sharey=True)
        axes = as_panels(ax, len(tasks))
        for panel, task in zip(axes, tasks, strict=True):
            of = [part[part["task"] == task] for part in (frame, steps, best)]
            if len(line := soft.loc[soft["task"] == task, "accuracy"]):
                panel.axhline(line.mean(), color=look("soft")[0], lw=1, ls=(0, (5, 1)), zorder=1,
                              label="soft prompts (mean)")  # fmt: skip
            _tradeoff(panel, *of)
            panel.set_title(task)
        axes[0].set_ylabel("test accuracy")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    return axes if len(axes) > 1 else axes[0]


def _tradeoff(ax: Axes, runs: pd.DataFrame, steps: pd.DataFrame, best: pd.DataFrame) -> None:
    ends = 1.04 * float(runs["nats_per_token"].max())
    chance = float(runs["chance"].iloc[0])
    weights = sorted(runs["weight"].dropna().unique())
    for method, own in runs.groupby("method", sort=False):
        colour, marker = look(str(method))
        # A star of the same area looks smaller than a square.
        unit = 2.5 if marker in "*vX" else 1.0
        sizes = [unit * (16 + 8 * weights.index(w) if w in weights else 24) for w in own["weight"]]
        ax.scatter(own["nats_per_token"], own["accuracy"], s=sizes, color=colour, marker=marker,
                   alpha=0.75, edgecolor="white", lw=0.3, zorder=3, label=str(method))  # fmt: skip
        line = steps[steps["method"] == method]
        x = np.array([*line["nats_per_token"], ends])
        for column in ("low", "high", "mean"):
            line = line.assign(**{column: line[column].fillna(line["mean"])})
        y = {c: np.append(line[c], line[c].iloc[-1]) for c in ("mean", "low", "high")}
        ax.step(x, y["mean"], where="post", color=colour, lw=1.3, zorder=2)
        ax.fill_between(x, y["low"], y["high"], step="post", color=colour, alpha=0.15, lw=0)
    name = str(best["reference"].iloc[0]) if "reference" in best else "what could be had"
    line = best.sort_values("nats_per_token")
    x = np.array([0.0, *line["nats_per_token"], ends])
    y_best = np.maximum.accumulate([chance, *line["accuracy"]])
    ax.step(x, np.append(y_best, y_best[-1]), where="post", color="black", lw=1.2, zorder=1,
            ls=":" if name == BOUND else "-", label=name)  # fmt: skip
    for column, (label, dashes) in REFERENCES.items():
        if column in runs:
            ax.axhline(runs[column].mean(), color="0.45", lw=0.8, ls=dashes, label=label, zorder=0)
    label = "surprisal (nats per token)"
    if ends > FAR:
        # Sentences lie within the first nats and word salad far out: both need room.
        ax.set_xscale("function", functions=(_root, np.square))
        ax.set_xticks([tick for tick in TICKS if tick <= ends])
        label = "surprisal (nats per token,\nsquare-root scale)"
    ax.set_xlabel(label)
    ax.set_xlim(0, ends)
    ax.set_ylim(-0.03, 1.05)
    sns.despine(ax=ax)


def _root(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(x, 0))


def plot_price(table: Any, ax: Any = None) -> Any:
    """The gap to the best readable prompt in its two parts, along the proxy's weight.

    Args:
        table: what `softlens.tradeoff.price_split` gave, or a sweep, which is then split.
        ax: Axes, one for each task; a new figure unless given.

    Returns:
        The Axes; an array of them where there are several tasks. Bars are means over seeds (a part
        below zero hangs: a run above the front), points the whole gap of each run, their bars its
        95% bootstrap interval.
    """
    frame = getattr(table, "frame", table)
    if not isinstance(frame, pd.DataFrame) or "price_of_optimiser" not in frame:
        frame = price_split(table)
    tasks = list(dict.fromkeys(frame["task"]))
    places = frame[["method", "weight"]].drop_duplicates()
    places = places.sort_values("weight", kind="stable")
    order = [(m, w) for m in dict.fromkeys(frame["method"]) for w in places["weight"].unique()
             if ((places["method"] == m) & (places["weight"] == w)).any()]  # fmt: skip
    at = {place: i + 1.4 * _number(order, place) for i, place in enumerate(order)}
    with style():
        if ax is None:
            size = (1.5 + (0.5 + 0.19 * (len(order) + 3)) * len(tasks), 2.9)
            _, ax = plt.subplots(1, len(tasks), figsize=size, sharey=True)
        axes = as_panels(ax, len(tasks))
        for panel, task in zip(axes, tasks, strict=True):
            _price(panel, frame[frame["task"] == task], at)
            panel.set_title(task)
        axes[0].set_ylabel("test accuracy lost")
        name = frame["reference"].iloc[0]
        handles, labels = axes[0].get_legend_handles_labels()
        axes[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7,
                        title=f"against the {name}", title_fontsize=7)  # fmt: skip
    return axes if len(axes) > 1 else axes[0]


def _number(order: list[tuple[str, float]], place: tuple[str, float]) -> int:
    return list(dict.fromkeys(method for method, _ in order)).index(place[0])


def _price(ax: Axes, rows: pd.DataFrame, at: dict[tuple[str, float], float]) -> None:
    by = ["method", "weight"]
    means = rows.groupby(by, sort=False)[[*PARTS]].mean()
    for place, mean in means.iterrows():
        x, above, below = at[place], 0.0, 0.0  # type: ignore[index]
        for column, (_, colour) in PARTS.items():
            start = above if mean[column] >= 0 else below
            ax.bar(x, mean[column], bottom=start, width=0.8, color=colour, alpha=0.75, lw=0)
            above, below = above + max(mean[column], 0.0), below + min(mean[column], 0.0)
    for label, colour in PARTS.values():
        ax.bar([np.nan], [np.nan], color=colour, alpha=0.75, label=label)
    for row in mean_interval(rows, by, "gap").to_dict("records"):
        x = at[row["method"], row["weight"]]
        ax.plot([x, x], [row["low"], row["high"]], color="black", lw=1.2, zorder=3)
    places = [at[place] for place in rows[by].itertuples(index=False, name=None)]
    ax.scatter(places, rows["gap"], s=9, color="white", edgecolor="black", lw=0.7, zorder=4,
               label="gap of a run")  # fmt: skip
    ax.axhline(0, color="0.3", lw=0.7)
    ax.set_xticks([*at.values()], [f"{weight:g}" for _, weight in at], fontsize=7)
    for method in dict.fromkeys(method for method, _ in at):
        own = [x for (name, _), x in at.items() if name == method]
        ax.text(float(np.mean(own)), -0.13, method, transform=ax.get_xaxis_transform(), ha="center",
                fontsize=8, va="top")  # fmt: skip
    ax.set_xlabel("weight of the proxy", labelpad=16)
    sns.despine(ax=ax)
