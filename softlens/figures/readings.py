"""How faithful each method of reading is."""

import logging

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from softlens.figures.base import Drawn, Ground, figure
from softlens.framework.faithfulness import faithfulness_all
from softlens.framework.texts import TEST
from softlens.framework.watched import RANDOM, READING
from softlens.plots.tested import FLOOR, look_of
from softlens.readings import read
from softlens.statistics import mean_interval

log = logging.getLogger(__name__)

METHODS = ("nearest", "matched", "mixture", "verbalize")


@figure(7, "Faithfulness of each method of reading")
def reading_faithfulness(ground: Ground) -> Drawn:
    """Share of KL closed by each reading of the sweep's soft prompts, on three kinds of texts."""
    runs = sorted(ground.sweep.filter(method="soft").frame["cell"])
    frame = ground.table("faithfulness", lambda: _read_all(ground), seeds=ground.seeds,
                         tasks=ground.task_names, runs=runs)  # fmt: skip
    closed = frame[frame["measure"] == "kl_closed"]
    methods = [m for m in (*METHODS, RANDOM) if m in set(closed["method"])]
    domains = list(dict.fromkeys(closed["domain"]))
    tasks = list(dict.fromkeys(closed["task"]))
    size = (1.4 + 2.0 * len(domains), 0.8 + 0.19 * len(methods) * len(tasks))
    drawn, axes = plt.subplots(1, len(domains), figsize=size, sharey=True, squeeze=False)
    places = {(t, m): i * (len(methods) + 1) + j for i, t in enumerate(tasks)
              for j, m in enumerate(methods)}  # fmt: skip
    for panel, domain in zip(axes[0], domains, strict=True):
        part = closed[closed["domain"] == domain]
        for row in mean_interval(part, ["task", "method"], "value").to_dict("records"):
            y = places[row["task"], row["method"]]
            colour, marker = ("0.55", "^") if row["method"] == RANDOM else look_of(row["method"])
            own = part[(part["task"] == row["task"]) & (part["method"] == row["method"])]
            values = own["value"].to_numpy()
            seen = np.maximum(values, FLOOR)
            ends = np.maximum([row["low"], row["high"]], FLOOR)
            panel.plot(ends, [y, y], color=colour, lw=4, alpha=0.3)
            panel.plot([max(row["mean"], FLOOR)] * 2, [y - 0.32, y + 0.32], color=colour, lw=1.6)
            for value, x in zip(values, seen, strict=True):
                panel.plot(x, y, "<" if value < FLOOR else marker, color=colour, ms=4.5,
                           mec="white", mew=0.3, clip_on=False)  # fmt: skip
        for edge in (0, 1):
            panel.axvline(edge, color="0.7", lw=0.8, ls=":")
        panel.set_xlim(FLOOR - 0.02, 1.03)
        panel.set_title({TEST: "test texts"}.get(str(domain), str(domain)))
        panel.set_xlabel("share of KL closed")
        sns.despine(ax=panel, left=True)
        panel.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks([*places.values()], [m for _, m in places])
    axes[0, 0].set_ylim(max(places.values()) + 0.7, -0.7)
    for i, task in enumerate(tasks):
        at = i * (len(methods) + 1) + (len(methods) - 1) / 2
        axes[0, 0].text(-0.62, at, task, transform=axes[0, 0].get_yaxis_transform(), rotation=90,
                        va="center", ha="center", fontweight="bold")  # fmt: skip
    n = int(closed.loc[closed["domain"] == TEST, "n"].max())
    caption = (
        "Share of the KL to the empty prompt that a reading closes (1: the LM answers as under the "
        "soft prompt, 0: as under no prompt, below 0: worse than saying nothing; drawn as arrows "
        "below -0.25), on test texts, on texts of another task, and on shuffled words. Points are "
        "soft prompts of different seeds, ticks their means, bars the intervals; grey: random "
        f"texts of the same length. {ground.stated(n=n)}"
    )
    return Drawn(drawn, frame, caption)


def _read_all(ground: Ground) -> pd.DataFrame:
    parts = []
    budget = {"matched": {"evaluations": 800}} if ground.quick else {}
    for name, task in ground.tasks.items():
        runs = ground.sweep.filter(task=name, method="soft")
        for row in runs.frame.to_dict("records"):
            prompt = runs.run(row["cell"]).prompt
            found = [
                read(ground.lm, prompt, method, task, progress=ground.progress,
                     **budget.get(method, {}))
                for method in METHODS
            ]  # fmt: skip
            tested = faithfulness_all(ground.lm, task, prompt, found)
            log.info("read %s seed %d", name, row["seed"])
            for number, one in enumerate(tested):
                rows = one.frame[one.frame["scored"].isin([READING, RANDOM][: 1 + (number == 0)])]
                is_random = rows["scored"] == RANDOM
                parts.append(
                    rows.assign(
                        task=name,
                        seed=row["seed"],
                        method=np.where(is_random, RANDOM, one.reading.method),
                        text=np.where(is_random, "", one.reading.text),
                    ).drop(columns="scored")
                )
    return pd.concat(parts, ignore_index=True)
