"""Pictures of results: one style sheet, and functions that draw tables and need no LM."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softlens import files
from softlens.display import show
from softlens.errors import SoftlensError
from softlens.statistics import mean_interval

if TYPE_CHECKING:
    from softlens.decode import NearestTokens

# Okabe and Ito's colours, told apart by the colour-blind; shapes say the same without colour.
COLOURS = {
    "soft prompt": "#0072B2",
    "nearest tokens": "#D55E00",
    "re-tokenised text": "#E69F00",
    "best readable": "#009E73",
    "random prompt": "#7F7F7F",
    "empty prompt": "#000000",
}
MARKERS = dict(zip(COLOURS, "osDP^X", strict=True))
_RC: Any = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
}


def show_plot(text: str) -> str:
    r"""`text` as matplotlib can draw it: made visible by `show`, and inert.

    `$` would start mathematics, and a letter that the font lacks would be drawn as a box with a
    warning: the one is escaped, the other written as ``\u{...}``.
    """
    font = font_manager.get_font(font_manager.findfont(_RC["font.family"]))
    # matplotlib lays letters out one by one, so that isolates have nothing to do here.
    shown = show(text).strip("\u2068\u2069").replace("$", r"\$")
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{{{ord(c):x}}}" for c in shown)


@contextmanager
def style() -> Iterator[None]:
    """The look of every softlens figure, for the block: fonts embedded, colour-blind safe."""
    interactive = mpl.is_interactive()
    try:
        with sns.axes_style("ticks"), mpl.rc_context(_RC):
            yield
            # A notebook's backend comes alive with the first figure and turns this on; put back
            # to what it was before, it would keep every later figure from being shown.
            interactive = mpl.is_interactive()
    finally:
        mpl.interactive(interactive)


def save(figure: Figure, path: Path, frame: pd.DataFrame | None = None) -> list[Path]:
    """Write `figure` as PDF and PNG and `frame`, what is drawn, as CSV, each whole or not at all.

    Args:
        figure: what to write.
        path: where, without a suffix.
        frame: the numbers in the picture.
    """
    written = []
    # Without a date the same picture is the same bytes.
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(_RC):
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        # Not with_suffix, which would cut "lambda_0.3" short.
        written.append(path.with_name(path.name + suffix))
        files.write_atomic(written[-1], buffer.getvalue())
    if frame is not None:
        written.append(path.with_name(path.name + ".csv"))
        files.write_atomic(written[-1], frame.to_csv(index=False).encode())
    return written


def plot_controls(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy of a soft prompt, of its readings and of the controls, for each task.

    Args:
        frame: ``task, scored, seed, accuracy, label_mass`` and, for the line of chance,
            ``chance``, as `softlens.figures.soft_and_nearest` gives it.
        ax: where to draw; a new figure unless given.

    Returns:
        The Axes, one row for each thing scored: a point for each seed, a tick at their mean with
        a bar for its 95% bootstrap interval, and in words the mean and the label mass: an
        accuracy with hardly any label mass is that of a prompt which asks something else.
    """
    if frame.empty:
        raise SoftlensError("Got an empty table, wanted rows of task, scored, seed and accuracy.")
    if absent := {"task", "scored", "accuracy", "label_mass"} - set(frame.columns):
        raise SoftlensError(f"Got a table without {sorted(absent)}; it has {list(frame.columns)}.")
    tasks = list(dict.fromkeys(frame["task"]))
    names = [name for name in COLOURS if name in set(frame["scored"])]
    # A task is its heading and a row for each name; a gap stands before the next.
    heads = {task: number * (len(names) + 1.7) for number, task in enumerate(tasks)}
    last = heads[tasks[-1]] + len(names)
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
                ax.plot([chance] * 2, [head + 0.5, head + len(names) + 0.5], color="0.45",
                        ls=(0, (2, 2)), lw=1, zorder=0, label=label)  # fmt: skip
        for row in mean_interval(frame, ["task", "scored"], "accuracy").to_dict("records"):
            task, scored, mean = row["task"], row["scored"], float(row["mean"])
            y, colour = heads[task] + 1 + names.index(scored), COLOURS[scored]
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
            ax.text(1.1, y, f"{mean:.2f}", **aside)
            mass = masses[task, scored]
            ax.text(1.29, y, f"{mass:.2f}" if mass >= 0.01 else f"{mass:.0e}", **aside)
        for x, heading in ((1.1, "mean"), (1.29, "label mass")):
            ax.text(x, -0.1, heading, color="0.35", fontsize=8, **aside)
        # The legend has one neutral sample of each sign: rows are named at their side.
        ax.scatter([], [], s=26, color="0.35", label="a seed (random: a draw)")
        ax.plot([], [], color="0.35", lw=5, alpha=0.35, label="95% bootstrap interval of the mean")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / (0.23 * (last + 1))), ncols=3,
                  fontsize=8, columnspacing=1.2, handlelength=1.4)  # fmt: skip
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.set_ylim(last + 0.6, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("test accuracy (share of texts)")
        ax.tick_params(axis="y", length=0)
        sns.despine(ax=ax, left=True)
    return ax


def plot_nearest(nearest: "NearestTokens", ax: Axes | None = None) -> Axes:
    """Position x rank: each cell a token, coloured and labelled by its score."""
    scores = nearest.frame.pivot(index="rank", columns="position", values="score")
    with style():
        if ax is None:
            size = (1.6 + 1.1 * scores.shape[1], 0.9 + 0.42 * scores.shape[0])
            _, ax = plt.subplots(figsize=size)
        # Near is dark whichever way the metric runs.
        palette = "Blues_r" if nearest.metric == "l2" else "Blues"
        values = scores.to_numpy(dtype=float)
        image = ax.imshow(values, cmap=palette, aspect="auto")
        for row, column in np.ndindex(values.shape):
            score = float(values[row, column])
            shade = (score - values.min()) / (np.ptp(values) or 1)
            ax.text(
                column,
                row,
                f"{show_plot(nearest.pieces[column * len(values) + row])}\n{score:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white"
                if (1 - shade if nearest.metric == "l2" else shade) > 0.6
                else "black",
                linespacing=1.0,
            )
        labels = [str(position) for position in scores.columns]
        if nearest.start_pieces is not None:
            starts = map(show_plot, nearest.start_pieces)
            labels = [f"{p}\nfrom {start}" for p, start in zip(labels, starts, strict=True)]
        ax.set_xticks(range(len(labels)), labels, fontsize=7.5)
        ax.set_yticks(range(len(scores)), scores.index)
        ax.set_xlabel("prompt position")
        ax.set_ylabel("rank of the token")
        ax.tick_params(length=0)
        sns.despine(ax=ax, left=True, bottom=True)
        unit = {"cosine": "cosine", "l2": "Euclidean distance", "dot": "dot product"}
        ax.figure.colorbar(image, ax=ax, label=unit[nearest.metric], fraction=0.05, pad=0.02)
    return ax


def plot_history(history: pd.DataFrame, length: int, ax: Any = None) -> np.ndarray:
    """Training: task loss, accuracy on dev and tokens changed since the start, over the steps.

    Args:
        history: `run.history`.
        length: positions of the prompt.
        ax: three Axes, one under the other; a new figure unless given.
    """
    with style():
        if ax is None:
            _, ax = plt.subplots(3, 1, figsize=(5.2, 4.2), sharex=True)
        loss, accuracy, changed = axes = np.asarray(ax).ravel()
        loss.plot(history["step"], history["task_loss"], color="#0072B2", lw=1)
        loss.set_ylabel("task loss\n(nats)")
        seen = history.dropna(subset="accuracy_dev")
        accuracy.plot(seen["step"], seen["accuracy_dev"], "o-", color="#009E73", ms=4, lw=1)
        accuracy.set_ylim(0, 1)
        accuracy.set_ylabel("accuracy\non dev")
        changed.step(history["step"], history["tokens_changed"], color="#D55E00", where="post")
        changed.set_ylim(-0.2, length + 0.2)
        changed.set_ylabel(f"nearest tokens\nchanged (of {length})")
        changed.set_xlabel("step")
        for panel in axes:
            sns.despine(ax=panel)
        axes[0].figure.align_ylabels()
    return axes


# Families of questions keep their look from task to task.
FAMILIES = ("first", "middle", "last", "whole", "opposite", "person", "rare_person", "topic")
_FAMILY_LOOK = dict(
    zip(FAMILIES, zip("v<>^X*dh", sns.color_palette("dark", 8), strict=True), strict=True)
)


def plot_front(
    front: pd.DataFrame, marks: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """The readable front of one task: accuracy of every question against its surprisal.

    Args:
        front: rows of one task of ``data/readable_front.csv``. Questions that mostly ask for
            something else (label mass below one half) are drawn faintly.
        marks: other prompts to hold against it: ``scored, accuracy, nats_per_token``. Where the
            latter is NaN, as for soft prompts, the accuracy is a line.
        ax: where to draw; a new figure unless given.
    """
    if front.empty:
        raise SoftlensError("Got an empty front, wanted the rows of one task.")
    with style():
        if ax is None:
            _, ax = plt.subplots(figsize=(5.6, 3.4))
        asks = front["label_mass"] >= 0.5
        ax.scatter(
            front["nats_per_token"][~asks], front["accuracy"][~asks], s=3, color="0.85", zorder=1,
            label="label mass below 0.5",
        )  # fmt: skip
        families = front["asks_for"].str.split(":").str[0]
        for family, (marker, colour) in _FAMILY_LOOK.items():
            rows = front[asks & (families == family)]
            if len(rows):
                ax.scatter(
                    rows["nats_per_token"], rows["accuracy"], s=14, marker=marker, color=colour,
                    label=f"asks for {family.replace('_', ' ')}", zorder=2,
                )  # fmt: skip
        best = front[front["on_front"]].sort_values("nats_per_token")
        ax.step(
            best["nats_per_token"], best["accuracy"], where="post", color="black", lw=1, zorder=3,
            label="readable front",
        )  # fmt: skip
        if marks is not None:
            for scored, rows in marks.groupby("scored", sort=False):
                colour, marker = COLOURS[str(scored)], MARKERS[str(scored)]
                lines = rows["nats_per_token"].isna()
                for number, height in enumerate(rows["accuracy"][lines]):
                    ax.axhline(height, color=colour, lw=1, ls="--", zorder=1,
                               label=None if number else scored)  # fmt: skip
                if (~lines).any():
                    ax.scatter(
                        rows["nats_per_token"][~lines], rows["accuracy"][~lines], s=42,
                        color=colour, marker=marker, edgecolor="black", lw=0.6, zorder=4,
                        label=scored,
                    )  # fmt: skip
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlabel("surprisal after BOS (nats per token)")
        ax.set_ylabel("test accuracy (share of texts)")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        sns.despine(ax=ax)
    return ax
