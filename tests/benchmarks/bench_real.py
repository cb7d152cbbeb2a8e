"""Every tuner on the real LM and real texts, where nobody knows which prompts are right.

    python -m tests.benchmarks.bench_real --methods soft tandem sample beam --seeds 5 --threads 2

A prompt *passes* if it holds no label word and whole words only, predicts every class for a tenth
to nine tenths of the texts where there are two (three quarters of an even share where there are
more), costs at most 3 nats per token after real texts and at least .2 less there than without
them, and its test accuracy is within .02 of the mean of the soft prompts in the same table.

Whether a reader finds it on task is decided by `on_task`, which was written before any of the texts
was seen. Runs are kept in a table, one row each, and a run that is there is not done again.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

import softlens as sl
from softlens import files
from softlens.constraints import allowed_tokens
from softlens.lm import token_surprisal
from tests.benchmarks.bench_tuners import KEYS, literal

NATS, RELEVANCE, ACCURACY = 3.0, -0.2, 0.02
LINKS = re.compile(
    r"\b(is|was|are|were|be|been|being|seem(s|ed)|feels|felt|look(s|ed)|sound(s|ed)|so|very|really"
    r"|quite|pretty|just|simply|absolutely|truly|how)$"
)
KINDS = re.compile(
    r"\b(about|from|in|for|kind|type|genre|category|sort|called|section|news|article|text|story"
    r"|post|review|piece|source|writing|page|site)\b"
)


def on_task(task: str, text: str) -> bool:
    """Whether a stranger would see what is asked.

    Reviews: what follows the last word must be a judgement, so that word joins one to its subject.
    Genre: one of the words speaks of kinds of text, or of where or what a text is from or about.
    """
    rule = LINKS if task == "reviews" else KINDS
    return rule.search(text.lower().strip()) is not None


def one(
    lm: sl.LM, method: str, task_name: str, seed: int, proxy: str, weight: float, options: str
) -> dict[str, object]:
    """One run as a row, with its gauges."""
    task = sl.load_task(task_name)
    given = {name: literal(value) for name, value in (o.split("=") for o in options.split())}
    proxies = {proxy: weight} if weight else {}
    run = sl.tune(lm, task, method, proxies=proxies, seed=seed, progress=False, **given)
    found = sl.evaluate(lm, task, run.prompt)
    row: dict[str, object] = {
        **dict(zip(KEYS, (method, task_name, seed, proxy, weight, options), strict=True)),
        "accuracy": found.accuracy,
        "calibrated": found.accuracy_calibrated,
        "label_mass": found.label_mass,
        "least_share": min(found.shares.values()),
        "most_share": max(found.shares.values()),
        "evaluations": run.metrics["evaluations"],
        "seconds": run.metrics["seconds"],
    }
    if method == "soft":
        return row
    ids = run.prompt.token_ids
    assert ids is not None
    texts = lm.encode_texts(task.template, task.train.texts[:32])
    after = float(token_surprisal(lm, [ids], texts).mean())
    allowed = allowed_tokens(lm, task, ["labels", "control", "pieces"])
    return row | {
        "text": run.text,
        "nats_after_texts": after,
        "relevance": after - float(token_surprisal(lm, [ids]).mean()),
        "words_only": bool(allowed[list(ids)].all()),
        "on_task": on_task(task_name, run.text),
    }


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, each with what it is compared with and whether it passes."""
    soft = rows[rows["method"] == "soft"].groupby("task")[["accuracy", "calibrated"]].mean()
    rows = rows[rows["method"] != "soft"].copy()
    rows["soft"] = rows["task"].map(soft["accuracy"])
    rows["soft_calibrated"] = rows["task"].map(soft["calibrated"])
    even = rows["task"].map(lambda name: 1 / len(sl.load_task(name).label_words))
    near = rows["accuracy"] >= rows["soft"] - ACCURACY
    near |= rows["calibrated"] >= rows["soft_calibrated"] - ACCURACY
    rows["readable"] = (
        rows["words_only"].astype(bool)
        & (rows["nats_after_texts"] <= NATS)
        & (rows["relevance"] <= RELEVANCE)
        & rows["least_share"].ge((even * 0.25).where(even < 0.5, 0.1))
        & rows["most_share"].le(0.9)
    )
    rows["passed"] = rows["readable"] & near
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and print all runs and their shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["soft", "tandem"])
    parser.add_argument("--tasks", nargs="+", default=["reviews", "genre"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--proxy", default="perplexity", help="a proxy of interpretability")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0])
    parser.add_argument("--option", nargs="+", default=[], help="of the methods: name=value")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--store", type=Path, default=files.cache_dir() / "bench_real.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    lm, options = sl.load_lm("smollm2-135m", dtype="auto"), " ".join(sorted(given.option))
    rows = pd.read_csv(given.store, keep_default_na=False) if given.store.is_file() else None
    for task in given.tasks:
        for method in given.methods:
            for weight in given.weights:
                for seed in range(given.first_seed, given.first_seed + given.seeds):
                    key = (method, task, seed, given.proxy, weight, options)
                    if rows is not None and key in set(rows[KEYS].itertuples(False, None)):
                        continue
                    row = pd.DataFrame([one(lm, *key)])
                    rows = pd.concat([rows, row], ignore_index=True)
                    files.write_atomic(given.store, rows.to_csv(index=False).encode())
    table = judged(pd.read_csv(given.store))
    with pd.option_context("display.width", 260, "display.max_columns", 30):
        print(table.drop(columns="proxy").round(3).to_string(index=False))
        keys = ["method", "task", "weight", "options"]
        numbers = ["passed", "readable", "on_task", "accuracy", "seconds"]
        print(table.groupby(keys, sort=False, dropna=False)[numbers].mean().round(3).to_string())


if __name__ == "__main__":
    main()
