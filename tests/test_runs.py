"""Runs in folders."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from softlens import DamagedFileError, Prompt, Run, SoftlensError, Task, load_run, tune
from softlens.lm import LM
from softlens.tasks import digest


@pytest.fixture(scope="module")
def run(tiny: Callable[..., LM], toy_task: Task) -> Run:
    return tune(tiny(), toy_task, length=3, steps=4, progress=False)


def test_saved_and_loaded_whole(run: Run, toy_task: Task, tmp_path: Path):
    back = load_run(run.save(tmp_path / "run"))
    assert torch.equal(back.prompt.vectors, run.prompt.vectors)
    assert (back.text, back.config, back.metrics) == (run.text, run.config, run.metrics)
    assert back.task_digest == run.task_digest == digest(toy_task)
    pd.testing.assert_frame_equal(back.history, run.history)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["length"] == 3


def test_a_file_that_does_not_say_its_task_opens(run: Run, tmp_path: Path):
    file = run.save(tmp_path / "run") / "run.json"
    record = json.loads(file.read_text())
    del record["task_digest"]
    file.write_text(json.dumps(record))
    assert load_run(tmp_path / "run").task_digest == ""


def test_controls_are_those_of_one_task_on_one_lm_as_it_is_loaded(
    run: Run, tiny: Callable[..., LM], toy_task: Task
):
    lm = tiny()
    assert run.has_controls_of(lm, toy_task)
    other = replace(toy_task, readable=())
    for task in (other, toy_task.head(test=5), toy_task.with_(template="{prompt} {text}")):
        assert not run.has_controls_of(lm, task)
    assert not run.has_controls_of(tiny(seed=1), toy_task)
    for loaded in ({"bos": False}, {"bos_id": 5}, {"dtype": "float64"}):
        elsewhere = replace(run, config=run.config.model_copy(update=loaded))
        assert not elsewhere.has_controls_of(lm, toy_task)
    unmeasured = run.metrics | dict.fromkeys(("empty_accuracy", "random_accuracy"), math.nan)
    assert not replace(run, metrics=unmeasured).has_controls_of(lm, toy_task)
    assert not replace(run, task_digest="").has_controls_of(lm, toy_task)


def test_kept_vectors_are_saved_with_the_prompt(
    run: Run, tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    kept = tune(tiny(), toy_task, length=3, steps=4, keep_vectors=3, progress=False)
    back = load_run(kept.save(tmp_path / "run"))
    assert back.kept_steps == kept.kept_steps == (3, 4)
    assert torch.equal(back.kept_vectors, kept.kept_vectors)
    assert torch.equal(back.prompt.vectors, kept.prompt.vectors)
    assert back.config == kept.config
    prompt = Prompt.load(tmp_path / "run" / "prompt.safetensors")
    assert torch.equal(prompt.vectors, kept.prompt.vectors)
    plain = load_run(run.save(tmp_path / "run"))
    assert (plain.kept_steps, plain.kept_vectors) == ((), None)


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SoftlensError, match="Cannot save the run into .* still in memory"):
        run.save(tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("softlens.files.os.replace", full)
    with pytest.raises(SoftlensError, match="No space left on device"):
        run.save(tmp_path / "full")
    assert not any((tmp_path / "full").iterdir())


def test_a_save_over_another_run_that_stops_half_way_leaves_no_mixture(
    run: Run, tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, monkeypatch
):
    older = tune(tiny(), toy_task, "pez", length=3, steps=2, progress=False)
    older.save(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("softlens.files.write_json", full)
        with pytest.raises(SoftlensError, match="No space left on device"):
            run.save(tmp_path)
    found = load_run(tmp_path)
    assert (found.config, found.prompt.text) == (older.config, older.prompt.text)

    def stopped(source: Path, target: Path, replace=os.replace):
        if target == tmp_path / "history.parquet":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("softlens.files.os.replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.save(tmp_path)
    with pytest.raises(SoftlensError, match="No run in"):
        load_run(tmp_path)
    assert load_run(run.save(tmp_path)).config == run.config


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into every folder"
)
def test_a_read_only_folder(run: Run, tmp_path: Path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SoftlensError, match="folder you may write to"):
            run.save(tmp_path / "run")
    finally:
        tmp_path.chmod(0o755)


def test_folders_without_a_whole_run(run: Run, tmp_path: Path):
    with pytest.raises(SoftlensError, match=r"it has no run\.json"):
        load_run(tmp_path)
    folder = run.save(tmp_path / "run")
    (folder / "history.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedFileError, match="is damaged"):
        load_run(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(DamagedFileError, match="JSONDecodeError"):
        load_run(folder)
