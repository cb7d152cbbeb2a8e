"""Sweeps: many runs over methods, proxies, seeds and lengths, kept in a store as they finish.

`cells` says what a run is before it is run, `store` keeps what is finished, `serial` and `remote`
run what is missing, `measures` makes a row of a run, and `table` is the result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softlens.framework.scrutability import check_judge, judge_of
from softlens.lm import LM
from softlens.sweeps.cells import make_cells
from softlens.sweeps.estimate import Estimate, estimate, forecast, in_words
from softlens.sweeps.remote import run_on
from softlens.sweeps.serial import Work, run_serially
from softlens.sweeps.store import Store
from softlens.sweeps.table import Sweep, concat_sweeps
from softlens.tasks import Task

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

__all__ = ["Estimate", "Sweep", "concat_sweeps", "estimate", "load_sweep", "sweep"]

log = logging.getLogger(__name__)

WORTH_A_FORECAST = 5
"""Runs on a large LM before which it is worth a minute to measure what they will take."""
LONG_SECONDS = 600
"""From which on a forecast is a warning, which is seen without any set-up of logging."""


def say_forecast(costs: pd.DataFrame, workers: int) -> None:
    """Say what a long sweep will take, loudly enough that it can still be thought better of."""
    pairs = zip(costs["method"], costs["seconds_each"], strict=True)
    told = ", ".join(f"{method} {in_words(seconds)}" for method, seconds in pairs)
    whole = in_words(costs["seconds"].sum() / workers)
    by = f" on {workers} workers as fast as this process" if workers > 1 else ""
    say = log.warning if costs["seconds"].sum() / workers > LONG_SECONDS else log.info
    say("%d runs: about %s%s (each: %s).", costs["cells"].sum(), whole, by, told)


def sweep(
    lm: LM,
    task: Task,
    methods: Sequence[str] | str,
    proxies: Sequence[Mapping[str, float | int]] | Mapping[str, float | int] = ({},),
    seeds: Iterable[int] | int = range(3),
    lengths: Iterable[int] | int = (5,),
    *,
    store: str | Path,
    client: Client | None = None,
    judge: LM | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = True,
) -> Sweep:
    """Tune and measure every combination of methods, proxies, seeds and lengths, once.

    What is finished is in the store, whole, and is not run again: a call that was killed goes on
    where it stopped, and one with more seeds runs those. Several processes may work on one store at
    once. A run that fails is kept with its error, and tried again by the next call. On a large LM
    a few steps of each method are measured first; what the whole will take is logged, from ten
    minutes on as a warning (`sl.estimate` says it of one run), and a run that would not fit into
    the memory is refused.

    Args:
        lm: the frozen LM.
        task: what to train for. For several tasks, call again with the same store.
        methods: names of tuners.
        proxies: one mapping from proxies to weights for each setting; ``{}`` is no proxy. Weights
            of 0 are left out, so that all proxies share one run without any.
        seeds: of the runs. Give at least three where an interval is wanted.
        lengths: of the prompts, in positions.
        store: the folder of the finished runs, made if it is not there; one for each LM.
        client: a ``dask.distributed.Client`` whose workers run the cells, on this machine or on a
            cluster that shares the store's disk; `softlens.sweeps.remote` has the lines to type.
            None: this process runs them, one after the other.
        judge: another LM, for held-out gauges and for proxies that need one. None: for the gauges
            of the bundled organism the bundled judge, else none.
        options: options of the methods, by method: ``{"pez": {"starts": 3}}``.
        progress: show a bar with the time left.

    Returns:
        A `Sweep` of the runs that were asked for; ``.missing()`` and ``.failed`` say what is not in
        its table. Ctrl-C returns what is finished.

    Raises:
        SoftlensError: an unknown method, proxy or option; nothing to run; a store of another
            version or LM, or one that cannot be written (what is finished in it is safe); a client
            whose workers lack the package, have several threads, or do not see the store; runs that
            need more memory than there is.
        MissingExtraError: a client is given, and dask.distributed is not there.
    """
    gauges_judge = judge_of(lm, judge)
    check_judge(lm, task, gauges_judge)
    task.answer_ids(lm)
    cells = make_cells(lm, task, methods, proxies, seeds, lengths, judge, gauges_judge, options)
    kept = Store.create(store, lm)
    todo = [cell for cell in cells if not kept.cell(cell.key).is_dir()]
    kept.plan(todo)
    if len(todo) >= WORTH_A_FORECAST and not lm.is_small:
        workers = max(1, len(client.nthreads())) if client else 1
        say_forecast(forecast(lm, task, todo, judge), workers)
    work = Work(lm, task, judge, gauges_judge)
    if client is None:
        run_serially(kept, cells, work, progress)
    else:
        run_on(client, kept, cells, work, progress)
    return Sweep.of(kept, cells)


def load_sweep(store: str | Path) -> Sweep:
    """All runs of a store, finished and asked for; no LM is needed.

    A damaged run is left out, with a warning; the `sweep` that made it runs it again.

    Raises:
        SoftlensError: there is no store, or it is of another version.
    """
    return Sweep.of(Store.open(store))
