"""The controls that stand beside every accuracy."""

from dataclasses import replace

import numpy as np
import pytest

from softlens import Task, controls, evaluate, evaluate_all
from softlens.lm import LM


def test_controls_stand_beside(any_lm: LM, toy_task: Task):
    beside = controls(any_lm, toy_task, length=3)
    assert beside.empty.summary() == pytest.approx(evaluate(any_lm, toy_task, None).summary())
    assert len(beside.random) == 5
    assert {len(any_lm.encode(e.prompt_text or "")) > 0 for e in beside.random} == {True}
    on_dev = evaluate_all(any_lm, toy_task, toy_task.readable, split="dev")
    best = max(on_dev, key=lambda e: (e.accuracy, -e.loss)).prompt_text
    assert beside.readable is not None
    assert beside.readable.prompt_text == best
    assert beside.readable.split == "test"
    assert list(beside.frame["control"]) == ["empty", *["random"] * 5, "readable"]
    flat = beside.metrics()
    assert flat["random_accuracy"] == pytest.approx(np.mean([e.accuracy for e in beside.random]))
    assert controls(any_lm, toy_task, length=3) is beside
    assert controls(any_lm, replace(toy_task, readable=()), length=3).readable is None
