"""Soft prompts, their nearest tokens, and the controls."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd

from softlens import plots
from softlens.controls import controls
from softlens.decode import nearest_tokens
from softlens.evaluation import evaluate_all
from softlens.figures.base import Drawn, Ground, figure
from softlens.figures.real import missing_from, real_runs, scored_on
from softlens.lm import LM
from softlens.prompts import Prompt
from softlens.runs import Run
from softlens.tasks import Task


def soft_and_nearest(lm: LM, task: Task, runs: Sequence[Run]) -> pd.DataFrame:
    """Test accuracy of soft prompts, of their nearest tokens and texts, and of the controls.

    Returns:
        One row for each run and thing scored: ``task, scored, seed, accuracy,
        accuracy_calibrated, accuracy_vocab, label_mass, loss, seconds, chance, text``. Controls do
        not depend on a seed: they have one row, random prompts one for each draw.
    """
    rows: list[dict[str, object]] = []
    chance = 1 / len(task.label_words)

    def add(scored: str, seed: int, numbers: Mapping[str, object], text: str) -> None:
        row = {"task": task.name, "scored": scored, "seed": seed, **numbers, "chance": chance}
        rows.append(row | {"text": text})

    for run in runs:
        nearest = Prompt.from_ids(lm, nearest_tokens(lm, run.prompt, k=1).token_ids)
        tokens, text = evaluate_all(lm, task, [nearest, nearest.text])
        seed, known = run.config.seed, {key: run.metrics[key] for key in tokens.summary()}
        add("soft prompt", seed, known | {"seconds": run.metrics["seconds"]}, "(vectors)")
        add("nearest tokens", seed, tokens.summary(), nearest.text or "")
        add("re-tokenised text", seed, text.summary(), nearest.text or "")
    beside = controls(lm, task, runs[0].config.length)
    if beside.readable is not None:
        add("best readable", 0, beside.readable.summary(), beside.readable.prompt_text or "")
    for number, result in enumerate(beside.random):
        add("random prompt", number, result.summary(), result.prompt_text or "")
    add("empty prompt", 0, beside.empty.summary(), "")
    return pd.DataFrame(rows)


def of_a_sweep(frame: pd.DataFrame, where: str = "") -> pd.DataFrame:
    """The same from the soft runs of a sweep, whose controls are means; `where` heads each task."""
    rows = []
    for task, runs in frame[frame["scored"] == "soft"].groupby("task", sort=False):
        first = runs.iloc[0]
        scored = [("soft prompt", "", runs), ("nearest tokens", "nearest_", runs)]
        for name in ("best readable", "random prompt", "empty prompt"):
            of = f"{name.split()[name.startswith('best')]}_"
            if pd.notna(first[f"{of}accuracy"]):
                scored.append((name, of, runs.iloc[:1]))
        for name, of, part in scored:
            for row in part.to_dict("records"):
                rows.append(
                    {"task": f"{where}{task}", "scored": name, "seed": row["seed"],
                     "accuracy": row[f"{of}accuracy"], "label_mass": row[f"{of}label_mass"],
                     "chance": row["chance"], "text": row["text"]}
                )  # fmt: skip
    return pd.DataFrame(rows)


@figure(1, "A soft prompt, and its nearest tokens")
def soft_vs_nearest(ground: Ground) -> Drawn:
    """On each task, and on the real LM where its store has soft prompts."""
    found = of_a_sweep(ground.sweep.frame, f"{ground.lm.name}: ")
    real = real_runs(ground)
    says = missing_from(real)
    if real is not None and (real.frame["scored"] == "soft").any():
        soft = real.filter(method="soft")
        name, seeds = soft.frame["lm"].iloc[0], soft.frame["seed"].nunique()
        says = f"LM: {name}. {scored_on(soft)}. Seeds: {seeds}. {missing_from(soft)}"
        found = pd.concat([found, of_a_sweep(soft.frame, f"{name}: ")], ignore_index=True)
    tasks = found["task"].nunique()
    _, axes = plt.subplots(figsize=(5.8, 0.6 + 1.5 * tasks))
    plots.plot_controls(found, axes)
    assert axes.figure is not None
    caption = (
        "Test accuracy of soft prompts, of the tokens nearest to them (cosine), and of the "
        "controls: the best of the task's readable prompts (chosen on dev), random tokens (the "
        "mean of five prompts) and no prompt at all, which depend on no seed. Points are seeds, "
        "ticks their means, bars the intervals, the dashed line chance. Label mass: mean "
        "probability of the label words together; where it is small, accuracy is that of a choice "
        f"among words which the LM would hardly say. {ground.stated()} {says}"
    )
    return Drawn(axes.figure, found, caption)  # type: ignore[arg-type]
