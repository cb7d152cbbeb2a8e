"""The sweep on the real LM that ``data/real_runs/`` carries.

``python -m softlens.sweeps.real`` (``make figures-real``) runs what is missing, in hours on two
cores, or in minutes on a GPU where ten such processes share the store; it may be stopped at any
moment and called again. Its cells are in such an order that what is there when it is stopped is a
balanced table: all methods and seeds without a proxy and with a middling weight come first, on one
task and then on the other, and after them the other weights.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softlens import files
from softlens.catalogue import load_task
from softlens.lm import LM, load_lm
from softlens.sweeps.cells import Cell, make_cells
from softlens.sweeps.serial import Work, run_serially
from softlens.sweeps.store import Store
from softlens.sweeps.table import Sweep
from softlens.tasks import Task

log = logging.getLogger(__name__)

LM_NAME, DTYPE = "smollm2-135m", "float32"
"""float32, for processors that have no bfloat16 must be able to go on with the same store."""
TASKS = ("reviews", "genre")
HARD = ("tandem", "pez", "rlprompt", "race")
WEIGHTS = ((0.0, 0.3), (0.1, 1.0, 3.0))
"""Of the perplexity proxy: those that are run first, and the others."""
SEEDS = (100, 101, 102)
"""Options were chosen on seeds below ten."""
LENGTH, MOST_STEPS = 5, 30
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "tandem": {"evaluations": 14_400},
    "race": {"evaluations": 14_400},
    # 150 steps of 32 texts, forward and (twice as dear) backward, are the same budget ...
    "pez": {"steps": 150, "batch_size": 32},
    "soft": {"steps": 150, "batch_size": 32},
    # ... and so are 28 of 16 prompts on 32 texts.
    "rlprompt": {"steps": 28, "prompts": 16, "texts": 32, "evaluations_of_dev": 7},
}


def folder() -> Path:
    """Where the finished cells are."""
    return files.data_dir() / "real_runs"


def planned(lm: LM, task: Task, weights: Sequence[float]) -> list[Cell]:
    """The cells of one task with some of the weights, in the order in which they are run.

    Soft prompts have no weight, and come with weight 0.
    """
    cells = []
    for seed in SEEDS:
        for name in ("soft", *HARD):
            asked = [w for w in weights if name in HARD or w == 0]
            for proxies in ({"perplexity": weight} if weight else {} for weight in asked):
                options = {name: OPTIONS[name]}
                cells += make_cells(
                    lm, task, [name], [proxies], [seed], [LENGTH], None, None, options
                )
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and say what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, default=folder(), help="where the cells are kept")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("softlens").setLevel(logging.INFO)
    lm = load_lm(LM_NAME, dtype=DTYPE)
    store = Store.create(chosen.store, lm)
    tasks = [load_task(name) for name in TASKS]
    parts = [(task, planned(lm, task, some)) for some in WEIGHTS for task in tasks]
    store.plan([c for _, some in parts for c in some if not store.cell(c.key).is_dir()])
    for task, cells in parts:
        if not run_serially(store, cells, Work(lm, task, most_steps=MOST_STEPS), progress=True):
            break
    log.info("%r", Sweep.of(store))


if __name__ == "__main__":
    main()
