"""A sweep in one process against the same on dask's workers, and on workers as dask sets them up.

    python -m tests.benchmarks.bench_workers --workers 1 2 --seeds 3

Wall time of the whole call, workers started already, and the mean seconds of a run. A worker gives
freed memory back at once, unless softlens tells it not to: "as dask has it" leaves that out.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence

import pandas as pd
import torch
from distributed import Client, LocalCluster
from distributed.worker import Worker

import softlens as sl
from softlens.sweeps import remote


def take(lm: sl.LM, seeds: int, client: Client | None) -> dict[str, float]:
    """One sweep in a new store: its seconds, and those of a run."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = sl.sweep(
            lm, sl.load_task("topic"), ["pez", "race"], [{}, {"perplexity": 0.3}], range(seeds),
            store=f"{folder}/store", client=client, progress=False,
        )  # fmt: skip
        took = time.perf_counter() - began
    return {"runs": len(found.frame), "s": took, "s_each": float(found.frame["seconds"].mean())}


def leave_as_dask_has_it(dask_worker: Worker) -> None:
    """On a worker: undo what softlens does for its speed."""
    remote.keep_freed_memory = lambda: None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way of running."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lm = sl.load_lm()
    rows = [{"workers": 0, "way": "in this process"} | take(lm, given.seeds, None)]
    for workers in given.workers:
        for way in ("softlens", "as dask has it"):
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=":0",
                    silence_logs=50,
                ) as cluster,
                Client(cluster) as client,
            ):  # fmt: skip
                if way != "softlens":
                    client.run(leave_as_dask_has_it)
                rows.append({"workers": workers, "way": way} | take(lm, given.seeds, client))
    table = pd.DataFrame(rows)
    table["speed_up"] = table["s"].iloc[0] / table["s"]
    table["run_as_long_as"] = table["s_each"] / table["s_each"].iloc[0]
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
