"""A sweep on the workers of a dask client: the same bits, whatever becomes of a worker."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import softlens as sl
from softlens import SoftlensError, Task
from softlens.lm import LM
from softlens.sweeps.remote import (
    _job,
    _opened,
    _read_task,
    _translated,
    check_here,
    keep_freed_memory,
)
from softlens.sweeps.serial import Work
from softlens.sweeps.store import Store
from softlens.tasks import digest
from tests.sweeps.conftest import small
from tests.sweeps.test_store import bits

distributed = pytest.importorskip("distributed", reason="pip install 'softlens[distributed]'")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes of one thread each, as on a laptop."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_the_bits_of_a_serial_sweep_though_a_worker_is_killed(client: Any, tmp_path: Path):
    lm, task = sl.load_lm(), sl.load_task("topic").head(16, 8, 16)
    given = {"seeds": range(3), "lengths": (5,)}
    pids = client.run(os.getpid)

    def kill_one() -> None:
        # In the middle of its first cells: the table is complete all the same.
        cells = tmp_path / "dask" / "cells"
        until = time.monotonic() + 240
        while not [*cells.glob("[0-9a-f]*")]:
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    killer = Thread(target=kill_one)
    killer.start()
    found = small(lm, task, tmp_path / "dask", client=client, **given)
    killer.join()
    assert found.missing().empty
    assert set(client.run(os.getpid).values()) != set(pids.values()), "one was killed"
    alone = small(lm, task, tmp_path / "alone", **given)
    assert bits(tmp_path / "dask") == bits(tmp_path / "alone")
    assert list(found.frame["cell"]) == list(alone.frame["cell"])
    # Nothing is left to do, and no worker is asked.
    again = small(lm, task, tmp_path / "dask", client=None, **given)
    assert list(again.frame["seconds"]) == list(found.frame["seconds"])


def test_errors_come_back_from_a_worker(
    client: Any, tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    """An LM put together by hand travels through the store; what fails is kept as in a serial."""
    wrong = [{"prior_kl": 1}, {}]
    found = small(tiny(), toy_task, tmp_path, methods=["pez"], proxies=wrong, client=client)
    assert list(found.frame["proxy"]) == ["none"]
    assert "The proxy 'prior_kl' has no gradient" in found.failed["error"][0]


def test_workers_that_cannot_do_the_work_are_named(
    client: Any, tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    def without() -> None:
        import importlib.metadata as metadata

        def version(name: str) -> str:
            raise metadata.PackageNotFoundError(name)

        metadata.true_version = metadata.version  # type: ignore[attr-defined]
        metadata.version = version

    def with_it_again() -> None:
        import importlib.metadata as metadata

        metadata.version = metadata.true_version  # type: ignore[attr-defined]

    worker = next(iter(client.nthreads()))
    client.run(without, workers=[worker])
    try:
        with pytest.raises(SoftlensError, match=f"worker {worker} lacks the package 'softlens'. S"):
            small(tiny(), toy_task, tmp_path, client=client)
    finally:
        client.run(with_it_again, workers=[worker])


def test_one_thread_a_worker(tiny: Callable[..., LM], toy_task: Task, tmp_path: Path):
    class Threaded:
        def nthreads(self) -> dict[str, int]:
            return {"tcp://here": 4}

    with pytest.raises(SoftlensError, match=r"workers have 4 threads.*threads_per_worker=1"):
        small(tiny(), toy_task, tmp_path, client=Threaded())


def test_the_first_worker_is_waited_for_and_asked_by_its_first_cell(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """As on a cluster, whose workers come when the queue lets them."""
    with (
        distributed.LocalCluster(
            n_workers=0, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as late,
    ):
        Thread(target=lambda: (time.sleep(1), cluster.scale(1))).start()
        found = small(tiny(), toy_task, tmp_path / "one", methods=["pez"], client=late)
        assert found.missing().empty
        assert "waiting for the first" in caplog.text
        job = _job(Store.open(tmp_path / "one"), Work(tiny(), toy_task))
        for wrong, words in (
            (job._replace(version="0.0.1"), r"and this is 0\.0\.1"),
            (job._replace(store=str(tmp_path / "nowhere")), "does not see the store"),
        ):
            with pytest.raises(SoftlensError, match=words):
                late.submit(check_here, wrong, pure=False).result()
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as threaded,
        pytest.raises(SoftlensError, match="have 2 threads"),
    ):
        threaded.submit(check_here, job).result()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("0.0.1", True), r"has softlens 0\.0\.1, and this is"),
        ((sl.__version__, False), "does not see the store .* all workers share"),
    ],
)
def test_workers_of_another_kind(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, answer: tuple, words: str
):
    class Elsewhere:
        def nthreads(self) -> dict[str, int]:
            return {"tcp://there": 1}

        def run(self, asked: Any, *given: str, **how: str) -> dict[str, Any]:
            return {"tcp://there": answer[asked is os.path.isfile]}

    with pytest.raises(SoftlensError, match=words):
        small(tiny(), toy_task, tmp_path, client=Elsewhere())


def test_a_worker_that_comes_late_and_lacks_a_package():
    said = str(_translated(ModuleNotFoundError("No module named 'softlens'")))
    assert "lacks a package (No module named 'softlens'). Start workers in the env" in said
    other = ValueError("no import")
    assert _translated(other) is other


@pytest.mark.parametrize(("set_by", "told"), [("65536", 2), ("131072", 0), (None, 0)])
def test_only_what_dask_has_set_is_changed_in_the_allocator(
    monkeypatch: pytest.MonkeyPatch, set_by: str | None, told: int
):
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, which: int, size: int) -> int:
            calls.append((which, size))
            return 1

    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if set_by is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", set_by)
    monkeypatch.setattr("ctypes.CDLL", lambda name: Libc())
    keep_freed_memory()
    assert len(calls) == told
    assert all(which in (-1, -3) and size > int(set_by or 0) for which, size in calls)


def test_a_system_without_glibc_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory()


def test_dask_still_sets_what_is_undone(client: Any):
    assert set(client.run(os.getenv, "MALLOC_TRIM_THRESHOLD_").values()) == {"65536"}


def test_what_travels_is_the_task_and_the_lm(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    lm = tiny()
    job = _job(Store.create(tmp_path, lm), Work(lm, toy_task))
    assert _read_task(job.store, job.task) == toy_task
    assert digest(_read_task(job.store, job.task)) == job.task
    back = _opened(job.lm)
    assert (back.name, back.checksum, back.bos_id) == (lm.name, lm.checksum, lm.bos_id)
    with pytest.raises(SoftlensError, match="A worker opened .* and found another LM"):
        _opened(job.lm._replace(checksum="0" * 16))
