"""Training paths, and the tuner that does not pay."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator

from softlens import plots
from softlens.figures.base import Drawn, Ground, figure
from softlens.figures.fronts import turned_up
from softlens.pairs import compare_methods
from softlens.statistics import mean_interval
from softlens.tradeoff import price_split

PATHS = {
    "tokens_changed": "tokens changed\nsince the start",
    "task_loss": "task loss (nats)",
    "grad_norm_task": "norm of the task's gradient\n(nats per unit of embedding)",
    "grad_norm_perplexity": "norm of the proxy's gradient\n(nats per unit of embedding)",
}
BINS = 40
"""Steps are averaged in so many groups."""


@figure(10, "Training paths of PEZ")
def training_paths(ground: Ground) -> Drawn:
    """Tokens changed since the start and the norm of each term's gradient, step by step."""
    task = ground.main_task
    runs = ground.sweep.filter(method="pez", task=task.name, proxy=["none", "perplexity"])
    history = runs.histories
    last = int(history["step"].max())
    width = max(1, last // BINS)
    history = history.assign(step=(history["step"] - 1) // width * width + 1)
    shown = {c: label for c, label in PATHS.items() if c in history}
    weights = sorted(history["weight"].unique())
    colours = dict(zip(weights, sns.color_palette("viridis", len(weights)), strict=True))
    figure_, axes = plt.subplots(1, len(shown), figsize=(1.0 + 1.95 * len(shown), 2.4))
    parts = []
    for panel, (column, label) in zip(axes, shown.items(), strict=True):
        # A seed's mean over a group of steps is one repetition.
        each = history.groupby(["weight", "step", "seed"])[column].mean().reset_index()
        means = mean_interval(each.dropna(subset=column), ["weight", "step"], column)
        parts.append(means.assign(measure=column))
        for weight, line in means.groupby("weight"):
            colour = colours[weight]
            panel.plot(line["step"], line["mean"], color=colour, lw=1.2, label=f"{weight:g}")
            panel.fill_between(line["step"], line["low"], line["high"], color=colour, alpha=0.15,
                               lw=0)  # fmt: skip
        if column.startswith("grad"):
            panel.set_yscale("log")
            low, high = panel.get_ylim()
            # Where there are few powers of ten, others are named as well.
            panel.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 50 * low else (1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        else:
            panel.set_ylim(bottom=0)
        panel.set_xlabel("step")
        panel.set_ylabel(label)
        sns.despine(ax=panel)
    axes[0].legend(title="weight of the\nproxy", fontsize=7, title_fontsize=7, loc="lower right")
    groups = f", steps averaged in groups of {width}" if width > 1 else ""
    caption = (
        f"PEZ on `{task.name}`, step by step, for each weight of the perplexity proxy: how many of "
        "the five tokens differ from the random start, the task's loss on the batch, and the norm "
        "of each term's gradient, the proxy's with its weight. Where tokens do not change or a "
        f"gradient is zero, a term does nothing. Means over seeds{groups}, bands their intervals. "
        f"{ground.stated(n=len(task.train), of='training')}"
    )
    return Drawn(figure_, pd.concat(parts, ignore_index=True), caption)


@figure(11, "The tuner that does not pay")
def no_price(ground: Ground) -> Drawn:
    """All methods beside the front, and what each spends."""
    frame = turned_up(ground)
    split = price_split(frame)
    tasks = list(dict.fromkeys(split["task"]))
    size = (1.2 + 2.6 * len(tasks), 4.9)
    figure_, axes = plt.subplots(2, len(tasks), figsize=size, squeeze=False)
    plots.plot_tradeoff(frame, axes[0])
    for panel, task in zip(axes[1], tasks, strict=True):
        for method, runs in split[split["task"] == task].groupby("method", sort=False):
            colour, marker = plots.look(str(method))
            # What lies on the line must be seen behind the others, and a star looks small.
            area = 45 if marker in "*vX" else 16
            panel.scatter(runs["evaluations"], runs["gap"], s=area, color=colour, marker=marker,
                          alpha=0.75, edgecolor="white", lw=0.3,
                          clip_on=False, zorder=3)  # fmt: skip
        panel.axhline(0, color="black", lw=0.8)
        panel.set_xscale("log")
        spent = split["evaluations"]
        panel.set_xlim(10 ** np.floor(np.log10(spent.min())), 10 ** np.ceil(np.log10(spent.max())))
        panel.set_xlabel("evaluations (prompt x text)")
        panel.set_ylim(-0.1, 0.8)
        sns.despine(ax=panel)
    axes[1, 0].set_ylabel("accuracy below the\nbest readable prompt")
    free = frame[(frame["weight"] == 0) & (frame["method"] != "soft")]
    pairs = compare_methods(free)
    against = pairs[(pairs["one"] == "tandem") | (pairs["other"] == "tandem")]
    signs = np.where(against["one"] == "tandem", 1, -1)
    others = np.where(against["one"] == "tandem", against["other"], against["one"])
    says = "; ".join(
        f"{task} {other} {round(sign * d, 2) + 0.0:+.2f} (n = {int(n)}, p {p:.2f}, "
        f"least possible {least:.2f})"
        for task, other, sign, d, n, p, least in zip(
            against["task"], others, signs, against["difference"], against["n"], against["p"],
            against["least_p"], strict=True,
        )
    )  # fmt: skip
    tandem = split[split["method"] == "tandem"]
    caption = (
        "Above: every method beside what could be had. Below: how far each run lies under the best "
        "readable prompt, against what it spent. `tandem` draws sentences from the LM, races and "
        "repairs them; no weight is given here: interpretability enters as bounds. Its mean price "
        f"of interpretability is {tandem['price_of_interpretability'].mean():.3f}, that of the "
        "optimiser "
        f"{tandem['price_of_optimiser'].mean():.3f}. Accuracy of tandem minus that of the others "
        f"without a proxy, seeds paired: {says}. {ground.stated()}"
    )
    columns = [
        "task", "method", "weight", "seed", "text", "accuracy", "nats_per_token", "gap",
        "price_of_interpretability", "price_of_optimiser", "evaluations", "seconds",
    ]  # fmt: skip
    return Drawn(figure_, split[columns], caption)
