"""A store is read by strangers, written by several, killed, damaged and full."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch

import softlens as sl
from softlens import DamagedFileError, SoftlensError, Task
from softlens.lm import LM
from softlens.sweeps import serial
from softlens.sweeps.cells import Cell, make_cells
from softlens.sweeps.store import Store, same_bits
from softlens.tasks import digest
from tests.sweeps.conftest import small


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are tuned from now on."""
    asked: list[str] = []
    tune = serial.tune

    def counting(lm, task, method, *rest, **named):
        asked.append(method)
        return tune(lm, task, method, *rest, **named)

    monkeypatch.setattr(serial, "tune", counting)
    return asked


def bits(folder: Path) -> dict[str, str]:
    return {path.name: same_bits(path) for path in (folder / "cells").iterdir()}


# -- cells ----------------------------------------------------------------------------------------


def cells_of(lm: LM, task: Task, **other) -> list[Cell]:
    given = {
        "methods": ["pez"], "proxies": [{}], "seeds": [0], "lengths": [2], "judge": None,
        "gauges_judge": None, "options": None,
    } | other  # fmt: skip
    return make_cells(lm, task, **given)


def test_the_key_is_of_everything_that_decides_the_result(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    (cell,) = cells_of(lm, toy_task)
    assert cells_of(lm, toy_task)[0].key == cell.key
    assert Cell(**json.loads(cell.model_dump_json())).key == cell.key
    relabelled = toy_task.head(train=20)
    others = [
        cells_of(tiny(seed=1), toy_task)[0],
        cells_of(lm, relabelled)[0],
        cells_of(lm, toy_task.with_("{prompt} {text} it was"))[0],
        cells_of(lm, toy_task, seeds=[1])[0],
        cells_of(lm, toy_task, lengths=[3])[0],
        cells_of(lm, toy_task, proxies=[{"perplexity": 0.1}])[0],
        cells_of(lm, toy_task, options={"pez": {"starts": 2}})[0],
        cells_of(lm, toy_task, options={"pez": {"steps": 7}})[0],
        cells_of(lm, toy_task, gauges_judge=tiny(seed=1))[0],
        cell.model_copy(update={"version": cell.version + 1}),
    ]
    assert len({each.key for each in (cell, *others)}) == 1 + len(others)


def test_options_written_out_are_the_defaults(tiny: Callable[..., LM], toy_task: Task):
    (default,) = cells_of(tiny(), toy_task)
    (told,) = cells_of(tiny(), toy_task, options={"pez": {"batch_size": 32}})
    assert default.key == told.key


def test_one_letter_changes_the_digest_of_a_task(toy_task: Task):
    from dataclasses import replace

    texts = (toy_task.test.texts[0] + ".", *toy_task.test.texts[1:])
    changed = replace(toy_task, test=sl.Split(texts, toy_task.test.labels))
    assert digest(changed) != digest(toy_task)


def test_what_is_there_twice_is_run_once_and_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    asked = [{"perplexity": 0.1}, {}, {"perplexity": 0.1}, {"perplexity": 0.0}]
    cells = cells_of(tiny(), toy_task, proxies=asked)
    assert [cell.run.proxies for cell in cells] == [{"perplexity": 0.1}, {}]
    assert "2 of 4 cells are asked for more than once" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"methods": ["pes"]}, r"Unknown method 'pes'. Did you mean 'pez'"),
        ({"proxies": [{"perplexty": 1}]}, "Unknown proxy 'perplexty'. Did you mean 'perplexity'"),
        ({"proxies": [{"perplexity": -1}]}, "Got weight -1 for the proxy 'perplexity'"),
        ({"proxies": [0.3]}, r"Got 0.3 among the proxies, wanted a mapping"),
        ({"proxies": {"perplexity": [0, 0.1]}}, r"Got weight \[0, 0.1\] for the proxy.*mappings"),
        ({"proxies": [{"perplexity": "0.3"}]}, "Got weight '0.3' for the proxy 'perplexity'"),
        ({"proxies": None}, "Got None among the proxies, wanted a mapping"),
        ({"seeds": [0.7]}, r"Got 0.7 among the seeds, wanted whole numbers: seeds=range\(3\)"),
        ({"lengths": [5.5]}, r"Got 5.5 among the lengths, wanted whole numbers: lengths=\[5, 10"),
        ({"options": {"pez": 3}}, "Got 3 as the options of 'pez', wanted a mapping"),
        ({"proxies": []}, r"Got no proxies: nothing to run.*proxies=\[\{\}\]"),
        ({"seeds": []}, "Got no seeds: nothing to run"),
        ({"methods": []}, "Got no methods"),
        ({"lengths": [0]}, "Got length 0, wanted at least 1"),
        ({"options": {"soft": {}}}, "options for 'soft', which is not among the methods"),
        ({"options": {"pez": {"start": 2}}}, "'start' is no option of the method 'pez'"),
    ],
)
def test_bad_requests(tiny: Callable[..., LM], toy_task: Task, wrong: dict, words: str):
    with pytest.raises(SoftlensError, match=words):
        cells_of(tiny(), toy_task, **wrong)


# -- going on -------------------------------------------------------------------------------------


def test_what_is_finished_is_not_run_again(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = counted(monkeypatch)
    first = small(tiny(), toy_task, tmp_path)
    assert asked == ["pez", "sample"] * 2
    again = small(tiny(), toy_task, tmp_path)
    assert len(asked) == 4
    pd.testing.assert_frame_equal(first.frame, again.frame)
    more = small(tiny(), toy_task, tmp_path, seeds=[0, 1])
    assert len(asked) == 8
    assert list(more.frame["seed"]) == [0] * 4 + [1] * 4
    assert len(sl.load_sweep(tmp_path).frame) == 8


def test_controls_are_measured_once_and_kept(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The package shows the function of that name, which hides the module.
    module = importlib.import_module("softlens.controls")
    measured = []
    controls = module.controls

    def counting(*given, **named):
        measured.append(given)
        return controls(*given, **named)

    monkeypatch.setattr(module, "controls", counting)
    lm = tiny("llama")
    lm.memo.clear()
    first = small(lm, toy_task, tmp_path)
    assert len(measured) == 1
    lm.memo.clear()
    more = small(lm, toy_task, tmp_path, seeds=[3])
    assert len(measured) == 1, "a new process takes them from the store"
    names = ["empty_accuracy", "random_label_mass", "readable_accuracy", "readable_text"]
    assert first.frame[names].drop_duplicates().equals(more.frame[names].drop_duplicates())
    # Texts that begin with another token have other controls.
    other = tiny("llama", bos_id=5)
    assert other.start_id != lm.start_id
    other.memo.clear()
    small(other, toy_task, tmp_path, seeds=[3])
    assert len(measured) == 2


def test_a_description_among_the_options_reaches_the_tuner(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    options = {"sample": {"description": "whether it is good", "evaluations": 200}}
    found = small(
        tiny(), toy_task, tmp_path, methods=["sample"], proxies=[{"description": 1}],
        options=options,
    )  # fmt: skip
    assert found.failed.empty, found.failed["error"].tolist()
    assert list(found.frame["proxy"]) == ["description"]


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(
    tiny: Callable[..., LM],
    toy_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    tune = serial.tune

    def failing(lm, task, method, *rest, **named):
        if method == "pez":
            raise RuntimeError("no luck today")
        return tune(lm, task, method, *rest, **named)

    monkeypatch.setattr(serial, "tune", failing)
    found = small(tiny(), toy_task, tmp_path)
    assert list(found.frame["method"]) == ["sample", "sample"]
    assert list(found.failed["error"]) == ["RuntimeError: no luck today"] * 2
    assert list(found.failed["weight"]) == [0.0, 0.3]
    assert list(found.missing()["failed"]) == [True, True]
    assert "Failed: toy pez" in caplog.text
    loaded = sl.load_sweep(tmp_path)
    pd.testing.assert_frame_equal(loaded.missing(), found.missing())
    assert len(loaded.failed) == 2
    monkeypatch.setattr(serial, "tune", tune)
    assert small(tiny(), toy_task, tmp_path).failed.empty
    assert sl.load_sweep(tmp_path).failed.empty


def test_a_proxy_that_a_tuner_cannot_use_is_a_failed_cell(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    found = small(tiny(), toy_task, tmp_path, methods=["pez"], proxies=[{"prior_kl": 1}, {}])
    assert list(found.frame["proxy"]) == ["none"]
    assert "The proxy 'prior_kl' has no gradient, and 'pez' follows" in found.failed["error"][0]


def test_ctrl_c_keeps_what_is_finished(
    tiny: Callable[..., LM],
    toy_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    tune, calls = serial.tune, []

    def interrupted(*given, **named):
        run = tune(*given, **named)
        calls.append(given)
        if len(calls) == 3:
            # What a tuner makes of Ctrl-C: it returns the best so far, which is no finished run.
            run.metrics["ended"] = "interrupted"
        return run

    monkeypatch.setattr(serial, "tune", interrupted)
    found = small(tiny(), toy_task, tmp_path)
    assert len(calls) == 3
    assert len(found.frame) == 2
    assert len(found.missing()) == 2
    assert not found.missing()["failed"].any()
    assert "Interrupted: 2 of 4 cells are done" in caplog.text
    assert len(small(tiny(), toy_task, tmp_path).frame) == 4


def test_histories_may_be_kept_thin(tiny: Callable[..., LM], toy_task: Task, tmp_path: Path):
    lm = tiny()
    (cell,) = cells_of(lm, toy_task, options={"pez": {"steps": 40, "evaluations_of_dev": 3}})
    for most in (None, 5):
        store = Store.create(tmp_path / str(most), lm)
        assert serial.run_cell(store, cell, serial.Work(lm, toy_task, most_steps=most)) == "done"
    whole, thin = (sl.load_sweep(tmp_path / name).run(cell.key).history for name in ("None", "5"))
    assert len(whole) == 40
    assert len(thin) <= 5 + 4
    assert {1, 40} | set(whole["step"][whole["accuracy_dev"].notna()]) <= set(thin["step"])
    kept = whole[whole["step"].isin(thin["step"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, thin)


# -- stores that cannot be used -------------------------------------------------------------------


def test_another_lm_version_or_folder_is_refused(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    store = tmp_path / "store"
    small(tiny(), toy_task, store, methods=["sample"])
    with pytest.raises(
        SoftlensError, match=r"holds runs of 'tiny-gpt2-0' .* this is 'tiny-gpt2-1'"
    ):
        small(tiny(seed=1), toy_task, store)
    known = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(known | {"version": 99}))
    for use in (lambda: small(tiny(), toy_task, store), lambda: sl.load_sweep(store)):
        with pytest.raises(SoftlensError, match="has version 99 .* wanted version 1"):
            use()
    (store / "store.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"store\.json is damaged"):
        sl.load_sweep(store)
    with pytest.raises(SoftlensError, match=r"No sweep in .*: it has no store\.json"):
        sl.load_sweep(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(SoftlensError, match="is not empty and no store of a sweep"):
        small(tiny(), toy_task, tmp_path / "full")


@pytest.mark.parametrize("file", ["cell.json", "run.json", "prompt.safetensors", "history.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "changed"])
def test_a_damaged_cell_is_set_aside_run_again_and_said(
    tiny: Callable[..., LM],
    toy_task: Task,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: str,
):
    once = small(tiny(), toy_task, tmp_path, methods=["sample"])
    before = bits(tmp_path)
    key = once.frame["cell"][0]
    path = tmp_path / "cells" / key / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        swapped = content.replace(b"sample", b"simple", 1)
        path.write_bytes(swapped if swapped != content else content[:-1] + b"!")
    assert len(sl.load_sweep(tmp_path).frame) == 1
    assert f"Left out: The cell {key}" in caplog.text
    # Killed before it is computed again, it is missing and not forgotten.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serial, "run_cell", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        small(tiny(), toy_task, tmp_path, methods=["sample"])
    assert list(sl.load_sweep(tmp_path).missing()["seed"]) == [once.frame["seed"][0]]
    again = small(tiny(), toy_task, tmp_path, methods=["sample"])
    assert f"Set aside as {tmp_path / 'damaged' / key}-1, to be run again" in caplog.text
    assert (tmp_path / "damaged" / f"{key}-1").is_dir()
    assert bits(tmp_path) == before
    assert list(again.frame["cell"]) == list(once.frame["cell"])


def test_a_number_changed_by_hand_is_damage(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    key = small(tiny(), toy_task, tmp_path, methods=["sample"]).frame["cell"][0]
    path = tmp_path / "cells" / key / "cell.json"
    record = json.loads(path.read_text())
    # Laid out anew it is the same cell; with another number it is not.
    path.write_text(json.dumps(record))
    assert key in set(sl.load_sweep(tmp_path).frame["cell"])
    record["row"]["accuracy"] -= 0.01
    path.write_text(json.dumps(record, indent=2))
    assert key not in set(sl.load_sweep(tmp_path).frame["cell"])
    assert "cell.json is not what was written" in caplog.text


def test_a_full_disk_stops_with_what_to_do(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    replace, written = os.replace, []

    def full(source: Path, target: Path) -> None:
        written.append(Path(target).name)
        if written.count("history.parquet") > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("softlens.files.os.replace", full)
        with pytest.raises(SoftlensError, match="No space left on device. Finished cells are safe"):
            small(tiny(), toy_task, tmp_path)
    assert len(sl.load_sweep(tmp_path).frame) == 2
    assert not [path for path in (tmp_path / "cells").iterdir() if path.name.startswith(".")]
    assert len(small(tiny(), toy_task, tmp_path).frame) == 4


# -- several at once, and killed ------------------------------------------------------------------


def test_two_processes_share_the_work(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threads with file descriptors of their own: locks hold between these as between processes."""
    monkeypatch.setattr(serial, "PATIENCE_SECONDS", 0.02)
    asked = counted(monkeypatch)
    lms = [tiny(cache_memory=size) for size in (1 << 24, 1 << 25)]
    with ThreadPoolExecutor(2) as both:
        work = [both.submit(small, lm, toy_task, tmp_path, seeds=range(3)) for lm in lms]
        tables = [each.result() for each in work]
    assert len(asked) == 12, "no cell was run twice"
    assert [len(table.frame) for table in tables] == [12, 12]
    small(tiny(), toy_task, tmp_path / "alone", seeds=range(3))
    assert bits(tmp_path) == bits(tmp_path / "alone")


def test_without_locks_the_first_to_rename_wins(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from softlens.sweeps import store as module

    monkeypatch.setattr(module, "fcntl", None)
    lm = tiny()
    kept = Store.create(tmp_path, lm)
    (cell,) = cells_of(lm, toy_task, options={"pez": {"steps": 2}})
    write, order = Store.write, []

    def overtaken(self, *told):
        if not order:
            order.append("the other one")
            write(self, *told)
        order.append("this one")
        write(self, *told)

    monkeypatch.setattr(Store, "write", overtaken)
    assert serial.run_cell(kept, cell, serial.Work(lm, toy_task)) == "done"
    assert order == ["the other one", "this one"]
    assert len(sl.load_sweep(tmp_path).frame) == 1
    assert [path.name for path in (tmp_path / "cells").iterdir()] == [cell.key]


KILLED = """
import sys, torch
torch.set_num_threads(1)
import softlens as sl
task = sl.load_task("topic").head(16, 8, 16)
sl.sweep(sl.load_lm(), task, ["pez", "sample"], [{}, {"perplexity": 0.3}], range(3),
         store=sys.argv[1], options={"pez": {"steps": 20}, "sample": {"evaluations": 500}},
         progress=False)
"""


def test_killed_it_goes_on_and_gives_the_same_bits(tmp_path: Path):
    """One kill; `tests/benchmarks/bench_kills.py` does it at twenty random moments."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(store: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(store)], env=environment)

    process = start(tmp_path / "killed")
    cells = tmp_path / "killed" / "cells"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if len([*cells.glob("[0-9a-f]*")]) >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = sl.load_sweep(tmp_path / "killed")
    finished = bits_of(found)
    assert 3 <= len(finished) < 12, "killed in the middle"
    assert len(found.missing()) == 12 - len(finished)
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    whole = bits(tmp_path / "whole")
    assert bits(tmp_path / "killed") == whole
    assert finished.items() <= whole.items()


def bits_of(found: sl.Sweep) -> dict[str, str]:
    return {key: same_bits(path / "cells" / key) for key, path in found.stores.items()}


def test_threads_and_device_are_part_of_the_environment(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    found = small(tiny(), toy_task, tmp_path, methods=["sample"], proxies=[{}])
    record = Store.open(tmp_path).read(found.frame["cell"][0])
    assert record is not None
    assert record["environment"]["threads"] == torch.get_num_threads()
    assert record["environment"]["torch"].startswith(torch.__version__.split("+")[0])
    assert record["environment"]["device"] == "cpu"
