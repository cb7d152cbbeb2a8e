"""A training, step by step."""

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from softlens.plots.style import as_panels, style

NORM = "grad_norm_"


def plot_history(
    history: pd.DataFrame, length: int, proxies: Mapping[str, str] | None = None, ax: Any = None
) -> np.ndarray:
    """Training: task loss, accuracy on dev, tokens changed since the start; proxies and gradients.

    Of a method that draws prompts from a policy of its own, the policy's entropy takes the place of
    the tokens changed: near 0 it says one prompt only.

    Args:
        history: `run.history`.
        length: positions of the prompt.
        proxies: the run's proxies with their units, a panel each; with any, a last panel shows the
            norm of each term's gradient, weight included, where the method follows gradients.
        ax: as many Axes, one under the other; a new figure unless given.
    """
    proxies = proxies or {}
    norms = [name for name in map(str, history) if name.startswith(NORM)] if proxies else []
    count = 3 + len(proxies) + (len(norms) > 1)
    with style():
        if ax is None:
            _, ax = plt.subplots(count, 1, figsize=(5.2, 1.4 * count), sharex=True)
        axes = as_panels(ax, count)
        loss, accuracy, changed = axes[:3]
        loss.plot(history["step"], history["task_loss"], color="#0072B2", lw=1)
        loss.set_ylabel("task loss\n(nats)")
        seen = history.dropna(subset="accuracy_dev")
        accuracy.plot(seen["step"], seen["accuracy_dev"], "o-", color="#009E73", ms=4, lw=1)
        accuracy.set_ylim(0, 1)
        accuracy.set_ylabel("accuracy\non dev")
        if "entropy" in history:
            changed.plot(history["step"], history["entropy"], color="#D55E00", lw=1)
            changed.set_ylim(bottom=0)
            changed.set_ylabel("policy's entropy\n(nats per token)")
        else:
            changed.step(history["step"], history["tokens_changed"], color="#D55E00", where="post")
            changed.set_ylim(-0.2, length + 0.2)
            changed.set_ylabel(f"tokens\nchanged (of {length})")
        for panel, (name, unit) in zip(axes[3:], proxies.items(), strict=False):
            panel.plot(history["step"], history[name], color="#CC79A7", lw=1)
            panel.set_ylabel(name.replace("_", "\n") + "\n" + textwrap.fill(f"({unit})", 18))
        if len(norms) > 1:
            _gradients(axes[-1], history, norms)
        axes[-1].set_xlabel("step")
        for panel in axes:
            sns.despine(ax=panel)
        axes[0].figure.align_ylabels()
    return axes


def _gradients(panel: Axes, history: pd.DataFrame, norms: list[str]) -> None:
    for column, line in zip(norms, ("-", "--", ":", "-.") * 3, strict=False):
        label = column.removeprefix(NORM).replace("_", " ")
        panel.plot(history["step"], history[column].clip(lower=1e-8), line, lw=1, label=label)
    panel.set_yscale("log")
    panel.set_ylabel("gradient's norm\n(nats per unit\nof embedding)")
    panel.legend(fontsize=7, ncols=len(norms), loc="upper right")
