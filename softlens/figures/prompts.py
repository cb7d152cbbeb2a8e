"""Single prompts looked at: which positions carry the answer, and how surprising each is."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from softlens import plots
from softlens.attribution import attribute
from softlens.display import show_text
from softlens.figures.base import Drawn, Ground, LeftOutError, figure
from softlens.figures.fronts import turned_up
from softlens.lm import token_surprisal
from softlens.readings.base import stands_inside
from softlens.statistics import mean_interval


@figure(8, "Attribution of a prompt")
def attribution(ground: Ground) -> Drawn:
    """Exact Shapley values of a readable prompt, of PEZ's, and of a soft prompt."""
    task = ground.main_task
    runs = ground.sweep.filter(task=task.name, seed=ground.seeds[0], weight=0.0)
    shown = {}
    readable = runs.frame["readable_text"].iloc[0]
    if readable is not None:
        shown["best readable"] = readable
    for method in ("pez", "soft"):
        (cell,) = runs.filter(method=method).frame["cell"]
        shown[method] = runs.run(cell).prompt
    drawn, axes = plt.subplots(1, len(shown), figsize=(0.4 + 2.9 * len(shown), 2.6), sharey=True)
    parts, says = [], []
    for panel, (name, prompt) in zip(axes, shown.items(), strict=True):
        found = attribute(ground.lm, task, prompt, method="shapley")
        found.plot(panel)
        extra = ", named by its nearest tokens" if name == "soft" else ""
        panel.set_title(f"{name} prompt{extra}", fontsize=8)
        parts.append(found.frame.assign(prompt=name, n=found.n))
        says.append(f"{name}: {found.total:+.2f} nats in all")
    for panel in axes[1:]:
        panel.set_ylabel("")
    note = found.note
    caption = (
        f"Shapley values of each position for the log-probability of the right label word on "
        f"`{task.name}` ({note}; absent positions: "
        f"{found.absent}). Whiskers are 95% "
        f"intervals over texts. {'; '.join(says)}. One prompt each, seed {ground.seeds[0]}: an "
        f"example, not a mean. {ground.stated(n=found.n, seeds=0)}"
    )
    return Drawn(drawn, pd.concat(parts, ignore_index=True), caption)


@figure(9, "Surprisal along a prompt")
def surprisal_along(ground: Ground) -> Drawn:
    """Mean surprisal of the first, second, ... token of the prompts of each method."""
    frame = turned_up(ground)
    frame = frame[frame["token_ids"] != ""]
    if frame.empty:
        raise LeftOutError("there is no prompt of tokens")
    strongest = frame["weight"].max()
    rows = []
    for name, task in ground.tasks.items():
        part = frame[(frame["task"] == name) & frame["weight"].isin([0.0, strongest])]
        ids = [[int(i) for i in row.split()] for row in part["token_ids"]]
        nats = token_surprisal(ground.lm, ids)[:, 0].cpu().double().numpy()
        for row, each in zip(part.to_dict("records"), nats, strict=True):
            label = row["method"] + (f" at {strongest:g}" if row["weight"] else "")
            rows += _positions(name, label, row["seed"], each)
        readable = [ground.lm.encode(t, leading_space=stands_inside(task)) for t in task.readable]
        readable = [row for row in readable if len(row) == len(ids[0])]
        if readable:
            each = token_surprisal(ground.lm, readable)[:, 0].cpu().double().numpy()
            for number, row_nats in enumerate(each):
                rows += _positions(name, "readable prompts", number, row_nats)
    table = pd.DataFrame(rows)
    means = mean_interval(table, ["task", "method", "position"], "surprisal_nats")
    tasks = list(ground.tasks)
    drawn, axes = plt.subplots(1, len(tasks), figsize=(1.4 + 2.4 * len(tasks), 2.7), sharey=True,
                               squeeze=False)  # fmt: skip
    for panel, name in zip(axes[0], tasks, strict=True):
        for method, line in means[means["task"] == name].groupby("method", sort=False):
            own = method != "readable prompts"
            colour, marker = plots.look(str(method)) if own else ("black", "P")
            dashes = "--" if " at " in str(method) else "-"
            panel.plot(line["position"], line["mean"], dashes, marker=marker, ms=4, lw=1.2,
                       color=colour, label=method)  # fmt: skip
            panel.fill_between(line["position"], line["low"], line["high"], color=colour,
                               alpha=0.12, lw=0)  # fmt: skip
        panel.set_title(name)
        panel.set_xlabel("position")
        panel.set_xticks(sorted(means["position"].unique()))
        sns.despine(ax=panel)
    # Shared, and so only once all is drawn: a limit that is set no longer grows.
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("surprisal (nats)")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    example = show_text(str(frame["text"].iloc[0]))
    caption = (
        "Surprisal of each token of a prompt given those before it (the first after the LM's "
        "default context), for each method without a proxy and at the greatest weight of the "
        f"perplexity proxy ({strongest:g}, dashed), and for the task's readable prompts of that "
        "length. Lines are means over seeds (readable: over prompts), bands their intervals. A "
        f'prompt is, for example, "{example}". {ground.stated()}'
    )
    return Drawn(drawn, means, caption)


def _positions(task: str, method: str, seed: int, nats: np.ndarray) -> list[dict[str, object]]:
    return [
        {"task": task, "method": method, "seed": seed, "position": i + 1, "surprisal_nats": value}
        for i, value in enumerate(nats.tolist())
    ]
