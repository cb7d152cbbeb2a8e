"""Estimates against the truth, on ten runs.

    python -m tests.benchmarks.bench_estimate [--minutes 6]

In CPU seconds of one thread, so that other jobs do not count. A run that stops early is compared
by the step: its steps are estimated in full, and counted as far as it came. Memory is the most that
the process holds while the run goes on, and what that is above what it held before the estimate.
"""

import argparse
import time
from typing import Any

import pandas as pd
import psutil
import torch

import softlens as sl
from softlens.sweeps.memory import MemoryWatch

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no run after so many")
    most, started = parser.parse_args().minutes, time.monotonic()
    torch.set_num_threads(1)
    time.perf_counter = time.process_time
    lm, rows = sl.load_lm(), []
    # What is done once in a process (compiling, importing) is not a run's.
    sl.tune(lm, sl.load_task("topic").head(16, 8, 16), "pez", steps=2, progress=False)
    for name, method, options in RUNS:
        if time.monotonic() - started > 60 * most:
            break
        task = sl.load_task(name)
        held, began = psutil.Process().memory_info().rss, time.perf_counter()
        found = sl.estimate(lm, task, method, **options)
        took, memory, began = time.perf_counter() - began, MemoryWatch(lm), time.perf_counter()
        with memory:
            run = sl.tune(lm, task, method, progress=False, **options)
        truth = time.perf_counter() - began
        share = float(run.metrics["steps"]) / run.config.steps
        steps = found.frame[found.frame["part"].isin(["steps", "looks at dev"])]["seconds"].sum()
        stopped = (1 - share) * steps if "steps" in set(found.frame["part"]) else 0.0
        rows.append(
            {
                "task": name,
                "method": method,
                "seconds_estimate": found.seconds,
                "seconds": truth,
                "ratio": found.seconds / truth,
                "steps_done": share,
                "ratio_of_steps_done": (found.seconds - stopped) / truth,
                "mb_estimate": found.peak_bytes / 1e6,
                "mb": memory.peak / 1e6,
                "ratio_of_memory": found.peak_bytes / memory.peak,
                "mb_grown_estimate": (found.peak_bytes - held) / 1e6,
                "mb_grown": (memory.peak - held) / 1e6,
                "estimating": took,
            }
        )
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    for column in ("ratio", "ratio_of_steps_done", "ratio_of_memory"):
        near = int(table[column].between(1 / 1.5, 1.5).sum())
        print(column, "within 1.5:", near, "of", len(table))


if __name__ == "__main__":
    main()
