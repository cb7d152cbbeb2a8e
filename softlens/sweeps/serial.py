"""One cell after the other, in this process; other processes may work on the same store."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from softlens.lm import LM
from softlens.runs import Run
from softlens.shortage import shortage_explained
from softlens.sweeps.cells import Cell
from softlens.sweeps.measures import measure
from softlens.sweeps.store import Store, StoreError
from softlens.tasks import Task
from softlens.tuners import TUNERS, tune
from softlens.tuners.loop import INTERRUPTED

log = logging.getLogger(__name__)

DONE, FAILED, ELSEWHERE = "done", "failed", "elsewhere"
PATIENCE_SECONDS = 1.0
"""Between looks at cells that another process is computing."""


@dataclass(frozen=True)
class Work:
    """What every cell of a sweep needs besides its config.

    Attributes:
        lm: the LM that is tuned.
        task: the task.
        judge: handed to the tuner, for proxies that need one.
        gauges_judge: of the held-out gauges.
        most_steps: rows of a history that are kept, spread evenly; those with a look at dev stay
            whatever their number. None keeps all.
    """

    lm: LM
    task: Task
    judge: LM | None = None
    gauges_judge: LM | None = None
    most_steps: int | None = None


def run_cell(store: Store, cell: Cell, work: Work) -> str:
    """Run a cell unless it is finished or being run; what became of it.

    An error is kept in the store, and does not leave this function; one that says that the store
    itself cannot be written does.
    """
    with store.claim(cell.key) as mine:
        if not mine:
            return ELSEWHERE
        if store.usable(cell.key) is not None:
            return DONE
        try:
            with shortage_explained(work.lm):
                run = _tuned(store, cell, work)
                if run.metrics["ended"] == INTERRUPTED:
                    raise KeyboardInterrupt
                row = measure(work.lm, work.task, cell, run, work.gauges_judge)
            store.write(cell, _thinned(run, work.most_steps), row, work.lm.device)
        except StoreError:
            raise
        except Exception as reason:
            error = f"{type(reason).__name__}: {reason}"
            log.warning("Failed: %s (%s). The other cells go on.", cell.title, error[:300])
            store.fail(cell, error)
            return FAILED
    return DONE


def _tuned(store: Store, cell: Cell, work: Work) -> Run:
    config = cell.run
    store.know_controls(work.lm, work.task, config.length, bool(config.options["truncate"]))
    return tune(
        work.lm,
        work.task,
        config.method,
        config.length,
        config.proxies,
        steps=None if TUNERS[config.method].in_evaluations else config.steps,
        seed=config.seed,
        progress=False,
        judge=work.judge,
        description=config.description,
        **config.options,
    )


def _thinned(run: Run, most: int | None) -> Run:
    steps = len(run.history)
    if most is None or steps <= most:
        return run
    kept = run.history["accuracy_dev"].notna().to_numpy(copy=True)
    kept[np.linspace(0, steps - 1, most).round().astype(int)] = True
    return replace(run, history=run.history[kept].reset_index(drop=True))


def run_serially(store: Store, cells: Sequence[Cell], work: Work, progress: bool) -> bool:
    """Run what is missing; Ctrl-C keeps what is finished. False if it was interrupted."""
    todo = [cell for cell in cells if store.usable(cell.key) is None]
    store.plan(todo)
    done = len(cells) - len(todo)
    with tqdm(total=len(cells), initial=done, unit="cell", disable=not progress) as bar:
        try:
            while todo:
                later = []
                for cell in todo:
                    bar.set_description(cell.title)
                    if run_cell(store, cell, work) == ELSEWHERE:
                        later.append(cell)
                    else:
                        done += 1
                        bar.update()
                if len(later) == len(todo):
                    bar.set_description("waiting for another process")
                    time.sleep(PATIENCE_SECONDS)
                todo = later
        except KeyboardInterrupt:
            log.warning(
                "Interrupted: %d of %d cells are done and kept in %s. The same call goes on.",
                done,
                len(cells),
                store.folder,
            )
            return False
    return True
