"""The cells of a sweep on the workers of a dask client: those of a laptop, or of a cluster.

    from dask.distributed import Client
    client = Client(n_workers=2, threads_per_worker=1)      # a laptop
    sl.sweep(lm, task, ..., store="runs/", client=client)

    from dask_jobqueue import SLURMCluster                  # Slurm; the store on a shared disk
    cluster = SLURMCluster(cores=1, processes=1, memory="8GB"); cluster.scale(20)
    sl.sweep(lm, task, ..., store="/shared/runs", client=Client(cluster))

Workers read and write the store themselves, so that a finished cell is safe whatever happens to
its worker, to the client or to dask. Only the names of cells travel.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.metadata
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm.auto import tqdm

from softlens import files
from softlens.errors import MissingExtraError, SoftlensError
from softlens.lm import LM, load_lm
from softlens.splits import Split
from softlens.sweeps.cells import Cell
from softlens.sweeps.serial import DONE, ELSEWHERE, FAILED, PATIENCE_SECONDS, Work, run_cell
from softlens.sweeps.store import Store, writing
from softlens.tasks import SPLITS, Task, digest

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

TRIES = 3
"""Times a cell is handed out whose workers die; dask itself tries each of them several times."""
INSTALL = "pip install 'softlens[distributed]'"
DASKS_TRIM = "65536"
"""Bytes from which on a worker of dask gives freed memory back; dask sets it in its environment."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MAPPED_BYTES = -1, -3, 32 << 20
"""Of glibc's ``malloc.h``; and the largest size that it maps apart, which it finds by itself where
no threshold is set."""


class Opening(NamedTuple):
    """How a worker comes by an LM, and how it knows that it is the right one."""

    opened_as: str
    name: str
    checksum: str
    bos_id: int | None
    bos: bool
    dtype: str
    device: str


class Job(NamedTuple):
    """`Work`, in words that travel."""

    store: str
    task: str
    lm: Opening
    judge: Opening | None
    gauges_judge: Opening | None
    most_steps: int | None
    version: str


# -- on a worker ----------------------------------------------------------------------------------


def run_there(cell: str, job: Job) -> str:
    """Run one cell, given as JSON, on a worker; what became of it, as `run_cell` says."""
    check_here(job)
    torch.set_num_threads(1)
    keep_freed_memory()
    judge, gauges = (None if o is None else _opened(o) for o in (job.judge, job.gauges_judge))
    work = Work(_opened(job.lm), _read_task(job.store, job.task), judge, gauges, job.most_steps)
    return run_cell(Store.open(job.store), Cell(**json.loads(cell)), work)


def check_here(job: Job) -> None:
    """Raise a `SoftlensError` if this worker cannot do the work; it may have come late."""
    from distributed import get_worker

    try:
        threads = get_worker().state.nthreads
    except ValueError:  # no worker: called by hand
        return
    if threads > 1:
        raise SoftlensError(_threads(1, threads))
    if (version := importlib.metadata.version("softlens")) != job.version:
        raise SoftlensError(_versions(get_worker().address, version, job.version))
    if not (Path(job.store) / "store.json").is_file():
        raise SoftlensError(_unseen(get_worker().address, job.store))


def keep_freed_memory() -> None:
    """Have the allocator keep what a step frees for the next step, as it does outside of dask.

    With dask's own setting every large tensor is mapped and unmapped anew, which makes the steps of
    a small LM up to half as long again (``tests/benchmarks/bench_workers.py``). A threshold that
    the user has set otherwise is left alone, and so are systems without glibc.
    """
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") != DASKS_TRIM:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    mallopt(M_TRIM_THRESHOLD, 2 * MAPPED_BYTES)


@lru_cache(maxsize=4)
def _opened(how: Opening) -> LM:
    lm = load_lm(how.opened_as, dtype=how.dtype, device=how.device, bos=how.bos, bos_id=how.bos_id)
    if lm.checksum != how.checksum or lm.start_id != how.bos_id:
        raise SoftlensError(
            f"A worker opened {how.opened_as!r} and found another LM (checksum {lm.checksum}, "
            f"first token {lm.start_id}) than {how.name!r} (checksum {how.checksum}, first token "
            f"{how.bos_id}). Give the workers the same files, or run without client=."
        )
    lm.name = how.name
    return lm


@lru_cache(maxsize=16)
def _read_task(store: str, key: str) -> Task:
    known = json.loads((Path(store) / "tasks" / f"{key}.json").read_text(encoding="utf-8"))
    splits = {name: Split(*map(tuple, known.pop(name))) for name in SPLITS}
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}
    return Task(**(fields | splits))


# -- on the client --------------------------------------------------------------------------------


def run_on(client: Client, store: Store, cells: Sequence[Cell], work: Work, progress: bool) -> None:
    """Run what is missing on the client's workers; Ctrl-C keeps what is finished.

    Raises:
        SoftlensError: the workers lack the package, have several threads each, or do not see the
            store.
    """
    try:
        from distributed import KilledWorker, as_completed
    except ImportError as reason:
        raise MissingExtraError(f"client= needs dask.distributed: {INSTALL}") from reason

    todo = {cell.key: cell for cell in cells if store.usable(cell.key) is None}
    if not todo:
        return
    store.plan([*todo.values()])
    try:
        if not client.nthreads():
            log.warning("The client has no worker yet: waiting for the first.")
            client.wait_for_workers(1)
    except KeyboardInterrupt:
        log.warning("Interrupted before a worker came; nothing was run.")
        return
    check_workers(client, store)
    job = _job(store, work)
    tries = dict.fromkeys(todo, 0)

    futures: dict[str, Any] = {}

    def submit(key: str) -> Any:
        tries[key] += 1
        name = f"softlens-{key}-{time.time_ns()}"
        future = client.submit(run_there, todo[key].model_dump_json(), job, key=name, pure=False)
        futures[name] = future
        return future

    keys = {submit(key).key: key for key in todo}
    running = as_completed([*futures.values()])
    done = len(cells) - len(todo)
    with tqdm(total=len(cells), initial=done, unit="cell", disable=not progress) as bar:
        try:
            for future in running:
                key = keys[future.key]
                cell = todo[key]
                state = future.status
                if state == "finished" and future.result() in (DONE, FAILED):
                    done += 1
                    bar.update()
                    bar.set_description(cell.title)
                    continue
                if state == "finished" and future.result() == ELSEWHERE:
                    bar.set_description("waiting for another process")
                    time.sleep(PATIENCE_SECONDS)
                    tries[key] -= 1
                elif state == "error" and not isinstance(future.exception(), KilledWorker):
                    raise _translated(future.exception())
                elif tries[key] >= TRIES:
                    store.fail(cell, f"its worker died {TRIES} times; is there enough memory?")
                    log.warning("Failed: %s: its workers died. The other cells go on.", cell.title)
                    done += 1
                    bar.update()
                    continue
                again = submit(key)
                keys[again.key] = key
                running.add(again)
        except KeyboardInterrupt:
            log.warning(
                "Interrupted: %d of %d cells are done and kept in %s. The same call goes on.",
                done,
                len(cells),
                store.folder,
            )
        finally:
            client.cancel([*futures.values()])


def check_workers(client: Client, store: Store) -> None:
    """Raise a `SoftlensError` unless the workers that are there can do the work.

    Those that come later are asked by the first cell they get (`check_here`).
    """
    several = {worker: n for worker, n in client.nthreads().items() if n > 1}
    if several:
        raise SoftlensError(_threads(len(several), max(several.values())))
    # Functions of Python itself, so that a worker without the package can run them.
    versions = client.run(importlib.metadata.version, "softlens", on_error="return")
    seen = client.run(os.path.isfile, str((store.folder / "store.json").resolve()))
    ours = importlib.metadata.version("softlens")
    for worker, version in versions.items():
        if isinstance(version, BaseException):
            raise SoftlensError(_lacking(worker, "the package 'softlens'"))
        if version != ours:
            raise SoftlensError(_versions(worker, version, ours))
        if not seen[worker]:
            raise SoftlensError(_unseen(worker, store.folder.resolve()))


def _threads(workers: int, threads: int) -> str:
    return (
        f"{workers} of the client's workers have {threads} threads. One LM is not for several "
        "threads at once: Client(n_workers=2, threads_per_worker=1)."
    )


def _versions(worker: str, theirs: str, ours: str) -> str:
    return (
        f"The worker {worker} has softlens {theirs}, and this is {ours}: their numbers may mean "
        "different things. Install one version everywhere."
    )


def _unseen(worker: str, store: str | Path) -> str:
    return (
        f"The worker {worker} does not see the store {store}. Pass a folder on a disk that all "
        "workers share."
    )


def _lacking(worker: str, what: str) -> str:
    return (
        f"The worker {worker} lacks {what}. Start workers in the environment of this process, or "
        f"install it there: {INSTALL}."
    )


def _translated(reason: BaseException) -> BaseException:
    if isinstance(reason, ImportError) and not isinstance(reason, MissingExtraError):
        return SoftlensError(_lacking("that got the first cell", f"a package ({reason})"))
    return reason


def _job(store: Store, work: Work) -> Job:
    """What workers need, written into the store where they cannot come by it otherwise."""
    key = digest(work.task)
    path = store.folder / "tasks" / f"{key}.json"
    known = {field.name: getattr(work.task, field.name) for field in dataclasses.fields(Task)}
    known |= {n: [getattr(work.task, n).texts, getattr(work.task, n).labels] for n in SPLITS}
    with writing(store.folder):
        files.write_json(path, known)
        judge, gauges = (
            None if lm is None else _opening(store, lm) for lm in (work.judge, work.gauges_judge)
        )
        lm = _opening(store, work.lm)
    ours = importlib.metadata.version("softlens")
    return Job(str(store.folder.resolve()), key, lm, judge, gauges, work.most_steps, ours)


def _opening(store: Store, lm: LM) -> Opening:
    where = lm.opened_as
    if where is None:
        # Put together by hand: workers find it beside the cells, in the hub's format.
        folder = store.folder / "lms" / lm.checksum
        if not folder.is_dir():
            folder.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".lm.", dir=folder.parent) as made:
                lm.model.save_pretrained(Path(made) / "lm")
                lm.tokenizer.save_pretrained(Path(made) / "lm")
                (Path(made) / "lm").rename(folder)
        where = str(folder.resolve())
    dtype = str(lm.dtype).removeprefix("torch.")
    known = (lm.name, lm.checksum, lm.start_id, bool(lm.start))
    return Opening(where, *known, dtype, str(lm.device))
