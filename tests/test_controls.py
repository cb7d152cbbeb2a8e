"""The controls that stand beside every accuracy."""

from dataclasses import replace

import numpy as np
import pytest

from softlens import Task, controls, evaluate, evaluate_all
from softlens.controls import random_prompts
from softlens.lm import LM


def test_controls_stand_beside(any_lm: LM, toy_task: Task):
    beside = controls(any_lm, toy_task, length=3)
    assert beside.empty.summary() == pytest.approx(evaluate(any_lm, toy_task, None).summary())
    assert len(beside.random) == 5
    drawn = random_prompts(any_lm, 3)
    assert [len(ids) for ids in drawn] == [3] * 5
    assert [e.prompt_text for e in beside.random] == [any_lm.decode(ids) for ids in drawn]
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
