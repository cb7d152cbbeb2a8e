"""Every tuner on the real LM and real texts, where nobody knows which prompts are right.

    python -m tests.benchmarks.bench_real --methods soft tandem sample beam --seeds 5 --threads 2
    python -m tests.benchmarks.bench_real --sweep data/real_runs

The second runs nothing: it judges the runs of a sweep's store by the same rules.

A prompt is *readable* if it holds no label word and whole words only, costs at most 3 nats per
token after real texts and at least .2 less there than without them, and answers no more than nine
tenths of the texts with one label word and at least a tenth with each of two (of more classes: a
quarter of an even share with each). It *passes* if it is readable and its test accuracy is within
.02 of the mean of the soft prompts in the table that were trained without a proxy and with the same
options (those that soft prompts do not know left aside): `passed_raw` of raw accuracies,
`passed_calibrated` of calibrated ones, `passed` of both. Without such soft prompts none is said to
pass or not.

Cost stands beside: a prompt is `affordable` if it took no more evaluations than a published PEZ
run, 150 steps x 32 texts x 3. Seconds are those of this machine, with `--threads`.

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
from softlens.tuners import TUNERS
from tests.benchmarks.bench_tuners import KEYS, literal

NATS, RELEVANCE, ACCURACY = 3.0, -0.2, 0.02
TENTH, QUARTER_OF_EVEN, MOST = 0.1, 0.25, 0.9
EVALUATIONS = 150 * 32 * 3
SWEPT = (
    "method", "task", "seed", "proxy", "weight", "accuracy", "label_mass", "least_share",
    "most_share", "evaluations", "seconds",
)  # fmt: skip
"""Columns of a sweep's table that are read as they are."""
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
    return row | gauges(lm, task, ids, run.text)


def gauges(lm: sl.LM, task: sl.Task, ids: Sequence[int], text: str) -> dict[str, object]:
    """What decides whether a text is readable, and whether a reader finds it on task."""
    texts = lm.encode_texts(task.template, task.train.texts[:32])
    after = float(token_surprisal(lm, [ids], texts).mean())
    allowed = allowed_tokens(lm, task, ["labels", "control", "pieces"])
    return {
        "text": text,
        "nats_after_texts": after,
        "relevance": after - float(token_surprisal(lm, [ids]).mean()),
        "words_only": bool(allowed[list(ids)].all()),
        "on_task": on_task(task.name, text),
    }


def swept(lm: sl.LM, store: Path) -> pd.DataFrame:
    """The runs of a sweep's store as rows."""
    found = sl.load_sweep(store)
    tasks = {name: sl.load_task(name) for name in found.frame["task"].unique()}
    rows = []
    for row in found.frame.to_dict("records"):
        read = {key: row[key] for key in SWEPT}
        ids = [int(index) for index in str(row["token_ids"]).split()]
        of_text = gauges(lm, tasks[row["task"]], ids, row["text"]) if ids else {}
        rows.append(read | {"options": "", "calibrated": row["accuracy_calibrated"]} | of_text)
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, each with what it is compared with, whether it passes and what it may cost."""
    rows = rows.assign(_as=[shared(options) for options in rows["options"].fillna("")])
    soft = rows[(rows["method"] == "soft") & (rows["weight"] == 0)]
    soft = soft.groupby(["task", "_as"])[["accuracy", "calibrated"]].mean()
    soft = soft.rename(columns={"accuracy": "soft", "calibrated": "soft_calibrated"})
    rows = rows[rows["method"] != "soft"].join(soft, on=["task", "_as"]).drop(columns="_as")
    even = rows["task"].map(lambda name: 1 / len(sl.load_task(name).label_words))
    rows["readable"] = (
        rows["words_only"].astype(bool)
        & (rows["nats_after_texts"] <= NATS)
        & (rows["relevance"] <= RELEVANCE)
        & rows["least_share"].ge((even * QUARTER_OF_EVEN).where(even < 0.5, TENTH))
        & rows["most_share"].le(MOST)
    )
    compared = rows["soft"].notna()
    raw = rows["accuracy"] >= rows["soft"] - ACCURACY
    calibrated = rows["calibrated"] >= rows["soft_calibrated"] - ACCURACY
    for name, near in (
        ("passed_raw", raw),
        ("passed_calibrated", calibrated),
        ("passed", raw & calibrated),
    ):
        rows[name] = (rows["readable"] & near).astype("boolean").where(compared)
    rows["affordable"] = rows["evaluations"] <= EVALUATIONS
    return rows


def shared(options: str) -> str:
    """Those of the options that soft prompts have, too."""
    known = {"length", "steps", *TUNERS["soft"].Options.model_fields}
    return " ".join(one for one in options.split() if one.split("=")[0] in known)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Of each method, task, weight and options: shares that pass, mean accuracies and cost."""
    keys = ["method", "task", "weight", "options"]
    passing = ["passed_raw", "passed_calibrated", "passed", "readable", "on_task", "affordable"]
    numbers = [*passing, "accuracy", "soft", "calibrated", "soft_calibrated"]
    groups = table.astype(dict.fromkeys(passing, "Float64")).groupby(keys, sort=False, dropna=False)
    cost = groups.agg(
        runs=("seed", "size"), most_evaluations=("evaluations", "max"), seconds=("seconds", "mean"),
        most_seconds=("seconds", "max"),
    )  # fmt: skip
    return groups[numbers].mean().join(cost)


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
    parser.add_argument("--sweep", type=Path, help="judge the runs of this store, and run nothing")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.sweep is not None:
        report(swept(sl.load_lm("smollm2-135m", dtype="float32"), given.sweep))
        return
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
    report(pd.read_csv(given.store))


def report(rows: pd.DataFrame) -> None:
    """Print all runs and their shares."""
    table = judged(rows)
    with pd.option_context("display.width", 260, "display.max_columns", 30):
        print(table.drop(columns="proxy").round(3).to_string(index=False))
        print(shares(table).round(3).to_string())


if __name__ == "__main__":
    main()
