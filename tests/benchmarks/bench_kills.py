"""SIGKILL at random moments of a sweep, serial and with dask: is anything lost, are bits the same?

    python -m tests.benchmarks.bench_kills --kills 20

A sweep of eighteen runs is started in a process of its own and killed after a random time, over and
over, each time on the store that the kill before has left (a new one when it is complete). With
dask, a worker, or the whole process group with its scheduler, is killed in turns. After every kill
each finished cell must be there whole, and be what the undisturbed sweep found.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

import softlens as sl
from softlens.sweeps.store import same_bits

SWEEP = """
import sys
import torch
import softlens as sl

if __name__ == "__main__":
    torch.set_num_threads(1)
    client = None
    if sys.argv[2] == "dask":
        from distributed import Client, LocalCluster
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        )
        client = Client(cluster)
    print("begun", flush=True)
    task = sl.load_task("topic").head(64, 32, 64)
    options = {"pez": {"steps": 60}, "sample": {"evaluations": 3000}, "soft": {"steps": 60}}
    sl.sweep(sl.load_lm(), task, [*options], [{}, {"perplexity": 0.3}], range(3), store=sys.argv[1],
             options=options, progress=False, client=client)
"""


def start(store: Path, how: str) -> subprocess.Popen[str]:
    """The sweep in a process group of its own, once it has begun."""
    script = store.parent / "sweep.py"
    script.write_text(SWEEP)
    process = subprocess.Popen(
        [sys.executable, str(script), str(store), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def kill(process: subprocess.Popen[str], worker: bool) -> None:
    """Kill one dask worker, or everything."""
    if worker:
        below = psutil.Process(process.pid).children(recursive=True)
        workers = [p for p in below if "spawn_main" in " ".join(p.cmdline())]
        if workers:
            random.choice(workers).kill()
            return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(store: Path) -> dict[str, str]:
    """The bits of every finished cell."""
    if not (store / "store.json").is_file():
        return {}
    found = sl.load_sweep(store)
    return {key: same_bits(path / "cells" / key) for key, path in found.stores.items()}


def trial(how: str, kills: int, folder: Path, seed: int) -> dict[str, object]:
    """Kill so many times; what was lost or changed."""
    rng, began = random.Random(seed), time.perf_counter()
    whole = folder / "whole"
    process = start(whole, how)
    running = time.perf_counter()
    process.wait()
    lasted = time.perf_counter() - running
    truth = finished(whole)
    done = lost = changed = rounds = hits = 0
    while done < kills:
        rounds += 1
        store = folder / f"{how}-{rounds}"
        before: dict[str, str] = {}
        while done < kills and len(before) < len(truth):
            process = start(store, how)
            time.sleep(rng.uniform(0, lasted / 2))
            running_still = process.poll() is None
            if running_still:
                done += 1
                kill(process, worker=how == "dask" and done % 2 == 0)
                if process.poll() is None:
                    process.wait()
            now = finished(store)
            hits += running_still and len(now) < len(truth)
            lost += len(set(before) - set(now))
            changed += sum(truth.get(key) != bits for key, bits in now.items())
            before = now
        start(store, how).wait()
        last = finished(store)
        lost += len(set(truth) - set(last))
        changed += sum(truth[key] != bits for key, bits in last.items())
    return {
        "how": how,
        "kills": done,
        "while incomplete": hits,
        "stores completed": rounds,
        "cells lost": lost,
        "cells with other bits": changed,
        "undisturbed (s)": round(lasted, 1),
        "all (s)": round(time.perf_counter() - began),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each way of running."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--how", nargs="+", default=["serial", "dask"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for how in given.how:
        with tempfile.TemporaryDirectory() as folder:
            print(trial(how, given.kills, Path(folder), given.seed), flush=True)


if __name__ == "__main__":
    main()
