"""What texts do on LMs that no tuner saw, one of which has another tokenizer."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from softlens import plots
from softlens.controls import random_prompts
from softlens.evaluation import evaluate_all
from softlens.figures.base import Drawn, Ground, LeftOutError, figure
from softlens.figures.fronts import turned_up
from softlens.lm import load_lm
from softlens.statistics import mean_interval

OTHERS = ("organism-judge", "organism-llama")
READABLE, RANDOM, EMPTY = "best readable", "random prompt", "empty prompt"
CONTROLS = (READABLE, RANDOM, EMPTY)


@figure(12, "Transfer of texts to other LMs")
def transfer(ground: Ground) -> Drawn:
    """Accuracy of each method's texts on the LM they were made for, and on two others."""
    ground.needs_organism()
    frame = ground.table("transfer", lambda: _everywhere(ground), seeds=ground.seeds,
                         tasks=ground.task_names, others=OTHERS, controls=CONTROLS,
                         runs=sorted(ground.sweep.frame["cell"]))  # fmt: skip
    lms = list(dict.fromkeys(frame["lm"]))
    tasks = list(dict.fromkeys(frame["task"]))
    names = list(dict.fromkeys(frame["scored"]))
    means = mean_interval(frame, ["task", "lm", "scored"], "accuracy")
    drawn, axes = plt.subplots(1, len(tasks), figsize=(1.5 + 2.4 * len(tasks), 3.0), sharey=True,
                               squeeze=False)  # fmt: skip
    for panel, task in zip(axes[0], tasks, strict=True):
        for number, name in enumerate(names):
            colour, marker = plots.look(name) if name != READABLE else ("black", "P")
            line = means[(means["task"] == task) & (means["scored"] == name)]
            x = np.array([lms.index(lm) for lm in line["lm"]])
            shifted = x + 0.09 * (number - (len(names) - 1) / 2)
            dashes = "--" if " at " in name else "-"
            panel.plot(shifted, line["mean"], dashes, color=colour, marker=marker, ms=4, lw=1,
                       label=name)  # fmt: skip
            panel.vlines(shifted, line["low"], line["high"], color=colour, lw=3, alpha=0.3)
        panel.axhline(frame.loc[frame["task"] == task, "chance"].iloc[0], color="0.6", lw=0.8,
                      ls=":")  # fmt: skip
        panel.set_title(task)
        labels = [lm.replace("organism-", "") for lm in lms]
        panel.set_xticks(range(len(lms)), labels, fontsize=7.5)
        panel.set_xlim(-0.5, len(lms) - 0.5)
        panel.set_ylim(-0.03, 1.05)
        sns.despine(ax=panel)
    axes[0, 0].set_ylabel("test accuracy")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    drop = means.pivot_table(index="scored", columns="lm", values="mean", sort=False)
    says = "; ".join(
        f"{name} {', '.join(f'{drop.loc[name, lm]:.2f}' for lm in lms)}" for name in names
    )
    caption = (
        "The texts that each method found, typed into the LM that they were made for, into a judge "
        "(another seed and other widths) and into an LM of another family whose tokenizer cuts "
        "words into pieces. Points are means over seeds, bars their intervals (random prompts: "
        "five draws; the best readable and the empty prompt have one); the dotted line is chance. "
        f"Means over tasks ({', '.join(lms)}): {says}. {ground.stated()}"
    )
    return Drawn(drawn, frame, caption)


def _everywhere(ground: Ground) -> pd.DataFrame:
    runs = turned_up(ground)
    strongest = runs["weight"].max()
    runs = runs[runs["weight"].isin([0.0, strongest]) & (runs["scored"] != "soft")]
    if bare := sorted(set(ground.tasks) - set(runs["task"])):
        raise LeftOutError(f"no run of {', '.join(bare)} is there")
    rows = []
    for lm in (ground.lm, *(load_lm(name) for name in OTHERS)):
        for name, task in ground.tasks.items():
            texts: list[tuple[str, int, str | None]] = [
                (r["method"] + (f" at {strongest:g}" if r["weight"] else ""), r["seed"], r["text"])
                for r in runs[runs["task"] == name].to_dict("records")
            ]
            texts.append((READABLE, 0, str(runs["readable_text"][runs["task"] == name].iloc[0])))
            drawn = [ground.lm.decode(row) for row in random_prompts(ground.lm, 5)]
            texts += [(RANDOM, number, text) for number, text in enumerate(drawn)]
            texts.append((EMPTY, 0, None))
            found = evaluate_all(lm, task, [text for _, _, text in texts])
            rows += [
                {"task": name, "lm": lm.name, "scored": scored, "seed": seed, "text": text or "",
                 "accuracy": one.accuracy, "label_mass": one.label_mass,
                 "chance": 1 / len(task.label_words)}
                for (scored, seed, text), one in zip(texts, found, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows)
