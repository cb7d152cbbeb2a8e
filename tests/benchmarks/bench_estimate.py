"""Estimates against the truth, on ten runs.

    python -m tests.benchmarks.bench_estimate

In CPU seconds of one thread, so that other jobs do not count. A run that stops early is compared
by the step: its steps are estimated in full, and counted as far as it came.
"""

import time
from typing import Any

import pandas as pd
import torch

import softlens as sl

RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("sentiment", "soft", {}),
    ("topic", "pez", {}),
    ("witness", "race", {"evaluations": 20_000}),
    ("sentiment", "tandem", {"evaluations": 20_000}),
    ("topic", "rlprompt", {"steps": 60}),
    ("sentiment", "fluentprompt", {"steps": 100}),
    ("topic", "sample", {"evaluations": 15_000}),
    ("witness", "gcg", {"steps": 10}),
    ("sentiment", "beam", {}),
    ("witness", "soft", {"proxies": {"perplexity": 0.3}}),
]


def main() -> None:
    """Print a row a run."""
    torch.set_num_threads(1)
    time.perf_counter = time.process_time
    lm, rows = sl.load_lm(), []
    # What is done once in a process (compiling, importing) is not a run's.
    sl.tune(lm, sl.load_task("topic").head(16, 8, 16), "pez", steps=2, progress=False)
    for name, method, options in RUNS:
        task = sl.load_task(name)
        began = time.perf_counter()
        found = sl.estimate(lm, task, method, **options)
        took, began = time.perf_counter() - began, time.perf_counter()
        run = sl.tune(lm, task, method, progress=False, **options)
        truth = time.perf_counter() - began
        share = float(run.metrics["steps"]) / run.config.steps
        steps = found.frame[found.frame["part"].isin(["steps", "looks at dev"])]["seconds"].sum()
        stopped = (1 - share) * steps if "steps" in set(found.frame["part"]) else 0.0
        rows.append(
            {
                "task": name,
                "method": method,
                "estimate": found.seconds,
                "truth": truth,
                "ratio": found.seconds / truth,
                "steps_done": share,
                "ratio_of_steps_done": (found.seconds - stopped) / truth,
                "estimating": took,
            }
        )
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    for column in ("ratio", "ratio_of_steps_done"):
        print(column, "within 1.5:", int(table[column].between(1 / 1.5, 1.5).sum()), "of 10")


if __name__ == "__main__":
    main()
