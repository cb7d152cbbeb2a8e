"""The whole way on every kind of device: tuned, read, reported, and as on the CPU."""

from pathlib import Path

import pytest
import torch

import softlens as sl
from softlens import Task

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU that torch sees"
        ),
    ),
    pytest.param(
        "mps",
        marks=pytest.mark.skipif(
            not torch.backends.mps.is_available(), reason="this machine has no Apple GPU"
        ),
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_tuned_read_and_reported_there(hub_folder: Path, toy_task: Task, device: str):
    lm, here = sl.load_lm(hub_folder, device=device), sl.load_lm(hub_folder, device="cpu")
    assert (lm.device.type, lm.path) == (device, here.path)
    run = sl.tune(lm, toy_task, length=3, steps=20, progress=False)
    assert run.metrics["accuracy"] >= run.metrics["random_accuracy"]
    assert sl.tune(lm, toy_task, "rlprompt", 2, steps=2, progress=False).prompt.is_hard
    there, again = (sl.evaluate(one, toy_task, run.prompt) for one in (lm, here))
    assert there.loss == pytest.approx(again.loss, abs=1e-4)
    found = sl.report(
        lm,
        toy_task,
        run.prompt,
        methods=["nearest", "matched", "mixture"],
        options={
            "matched": {"evaluations": 900, "ban": ()},
            "mixture": {"dictionary": ("it was", "overall it was good", "in short")},
        },
        progress=False,
    )
    assert list(found.frame["method"]) == ["nearest", "matched", "mixture"]
    for reading, fit in zip(found.readings[:2], found.faithfulness[:2], strict=True):
        same = sl.faithfulness(here, toy_task, run.prompt, reading)
        assert fit.kl_vocab == pytest.approx(same.kl_vocab, abs=1e-3)
    assert sl.estimate(lm, toy_task, length=3, steps=20).peak_bytes > 0
