"""The paper's figures, each from nothing to PDF, PNG, CSV and a caption.

``python -m softlens.figures figures`` (``make figures``) draws them all.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from softlens import corpora, files, plots
from softlens.catalogue import load_task
from softlens.decode import nearest_tokens
from softlens.evaluation import RANDOM_PROMPTS, controls, evaluate_all
from softlens.lm import LM, available, load_lm
from softlens.prompts import Prompt
from softlens.runs import Run
from softlens.tasks import Task
from softlens.tuners import tune

log = logging.getLogger(__name__)

REAL_TASKS = ("reviews", "genre")


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


def soft_vs_nearest(
    lm: LM, tasks: Sequence[Task], folder: Path, seeds: Sequence[int] = (0, 1, 2), length: int = 5
) -> pd.DataFrame:
    """Figure: a soft prompt that works, whose nearest tokens do not."""
    parts = []
    for task in tasks:
        runs = []
        for seed in seeds:
            runs.append(tune(lm, task, method="soft", length=length, seed=seed))
            log.info("%s", runs[-1].headline)
        parts.append(soft_and_nearest(lm, task, runs))
    frame = pd.concat(parts, ignore_index=True)
    with plots.style():
        figure, axes = plt.subplots(figsize=(5.8, 0.55 + 1.7 * len(tasks)))
        plots.plot_controls(frame, axes)
        plots.save(figure, folder / "soft_vs_nearest", frame)
        plt.close(figure)
    sizes = "; ".join(
        f"{task.name}: {len(task.train)} training, {len(task.dev)} dev, {len(task.test)} test texts"
        for task in tasks
    )
    caption = (
        f"**A soft prompt that works, and its nearest tokens.** Test accuracy on {lm.name} "
        f"({frame_dtype(lm)}) of soft prompts of length {length}, of the tokens nearest to them "
        "(cosine), of those tokens' text encoded anew, and of the controls: the best of the "
        "task's readable prompts (chosen on dev), random tokens and no prompt at all. Points are "
        f"the {len(seeds)} seeds (random prompts: {RANDOM_PROMPTS} draws); ticks are "
        "means, bars their 95% bootstrap intervals, the dashed line is chance. Label mass: mean "
        "probability of the label words together; where it is small, accuracy is that of a choice "
        "among words which the LM would hardly say. The best readable and the empty prompt depend "
        f"on no seed and have one point. {sizes}.\n"
    )
    files.write_atomic(folder / "soft_vs_nearest.md", caption.encode())
    return frame


def frame_dtype(lm: LM) -> str:
    """The LM's type as a caption says it."""
    return str(lm.dtype).removeprefix("torch.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw every figure that what is installed allows; say which are left out, and why."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the figures go")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each run (3)")
    parser.add_argument("--dtype", default="auto", help="of the real LM: the faster here (auto)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("softlens").setLevel(logging.INFO)
    if not (available("smollm2-135m") and corpora.available()):
        log.warning("Left out: soft_vs_nearest needs the real LM and its texts (`make real`).")
        return
    lm = load_lm("smollm2-135m", dtype=chosen.dtype)
    tasks = [load_task(name) for name in REAL_TASKS]
    frame = soft_vs_nearest(lm, tasks, chosen.folder, range(chosen.seeds))
    means = frame.groupby(["task", "scored"], sort=False)[["accuracy", "label_mass"]].mean()
    log.info("%s\n%s", chosen.folder / "soft_vs_nearest.{pdf,png,csv,md}", means.round(3))


if __name__ == "__main__":
    main()
