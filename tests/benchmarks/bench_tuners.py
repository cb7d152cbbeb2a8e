"""Every tuner on the organism's tasks, where it is known which prompts are right.

    python -m tests.benchmarks.bench_tuners --methods tandem race sample --seeds 20
    python -m tests.benchmarks.bench_tuners --methods rlprompt --option start=random \\
        --proxy perplexity --weights 0 0.1 0.3 1 3 --seeds 5

A run *passes* if it ends in a sentence of the grammar that asks the task's question, within .02 of
the best readable accuracy and .15 nats per token of the cheapest such question on the front. What
it cost stands beside: it is `affordable` with at most 60,000 evaluations, on the rare needle with
200,000. Runs are kept in a table, one row each, and a run that is there is not done again.
"""

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import binomtest

import softlens as sl
from softlens import files
from softlens.organism import TASK_ASKS, asks_for, grammatical, readable_front
from softlens.statistics import mean_interval

ACCURACY, NATS = 0.02, 0.15
EVALUATIONS = dict.fromkeys(TASK_ASKS, 60_000) | {"witness-rare": 200_000}
MEANS = ("accuracy", "nats_per_token", "label_mass")
KEYS = ["method", "task", "seed", "proxy", "weight", "options"]


def judge(task: str, run: sl.Run) -> dict[str, object]:
    """What the grammar and the front say of a run."""
    front = readable_front(task)
    right = front[front["asks_for"] == TASK_ASKS[task]]
    best = right[right["accuracy"] >= right["accuracy"].max() - ACCURACY]
    asked = asks_for(run.text)
    passed = (
        asked == TASK_ASKS[task]
        and run.metrics["accuracy"] >= front["accuracy"].max() - ACCURACY
        and run.metrics["nats_per_token"] <= best["nats_per_token"].min() + NATS
    )
    return {"grammatical": grammatical(run.text), "asks_for": asked, "passed": bool(passed)}


def one(
    lm: sl.LM, method: str, task: str, seed: int, proxy: str, weight: float, options: str
) -> dict[str, object]:
    """One run as a row; options as ``name=value name=value``."""
    given = {name: literal(value) for name, value in (o.split("=") for o in options.split())}
    run = sl.tune(
        lm,
        sl.load_task(task),
        method,
        proxies={proxy: weight} if proxy else {},
        seed=seed,
        progress=False,
        **given,
    )
    numbers = ("accuracy", "label_mass", "nats_per_token", "evaluations", "seconds")
    return {
        **dict(zip(KEYS, (method, task, seed, proxy, weight, options), strict=True)),
        "text": run.text,
        **{key: run.metrics[key] for key in numbers},
        **judge(task, run),
    }


def literal(text: str) -> Any:
    """A number where the text is one."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of seeds with 95% Wilson intervals; means with bootstrap intervals."""
    by = [key for key in KEYS if key != "seed"]
    found = []
    rows = rows.assign(
        right=[a == TASK_ASKS[t] for a, t in zip(rows["asks_for"], rows["task"], strict=True)],
        affordable=rows["evaluations"] <= rows["task"].map(EVALUATIONS),
    )
    for key, group in rows.groupby(by, sort=False):
        found.append(
            {
                **dict(zip(by, key, strict=True)),
                "seeds": len(group),
                "passed": share(group["passed"]),
                "affordable": group["affordable"].mean(),
                "grammatical": share(group["grammatical"]),
                "asks right": share(group["right"]),
                **{name: interval(group, name) for name in MEANS},
                "evaluations": int(group["evaluations"].median()),
                "most": int(group["evaluations"].max()),
                "seconds": group["seconds"].median(),
                "most frequent text": group["text"].mode()[0],
            }
        )
    return pd.DataFrame(found)


def share(held: pd.Series) -> str:
    """Of how many seeds it is true, and its 95% Wilson interval, as text."""
    within = binomtest(int(held.astype(bool).sum()), len(held)).proportion_ci(method="wilson")
    return f"{held.astype(bool).mean():.2f} [{within.low:.2f}, {within.high:.2f}]"


def interval(group: pd.DataFrame, name: str) -> str:
    """Mean over the seeds and its interval, as text."""
    mean = mean_interval(group.assign(all=0), ["all"], name).iloc[0]
    return f"{mean['mean']:.2f} [{mean['low']:.2f}, {mean['high']:.2f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["tandem", "race", "sample"])
    parser.add_argument("--tasks", nargs="+", default=[*TASK_ASKS])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100, help="settings were tried on 0 to 9")
    parser.add_argument("--proxy", default="", help="a proxy of interpretability")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0])
    parser.add_argument("--option", nargs="+", default=[], help="of the methods: name=value")
    parser.add_argument("--store", type=Path, default=files.cache_dir() / "bench_tuners.csv")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lm, options = sl.load_lm(), " ".join(sorted(given.option))
    rows = pd.read_csv(given.store, keep_default_na=False) if given.store.is_file() else None
    done = set() if rows is None else set(rows[KEYS].itertuples(index=False, name=None))
    for weight in given.weights:
        for task in given.tasks:
            for method in given.methods:
                for seed in range(given.first_seed, given.first_seed + given.seeds):
                    key = (method, task, seed, given.proxy, weight, options)
                    if key in done:
                        continue
                    row = one(lm, *key)
                    rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
                    files.write_atomic(given.store, rows.to_csv(index=False).encode())
    assert rows is not None
    asked = rows["method"].isin(given.methods) & rows["task"].isin(given.tasks)
    asked &= rows["options"].eq(options) & rows["proxy"].eq(given.proxy)
    with pd.option_context("display.width", 260, "display.max_columns", 20):
        print(table(rows[asked]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
