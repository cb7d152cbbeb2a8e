"""FluentPrompt: the Langevin step, its cooling, and AutoPrompt_SGD without noise."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from softlens import Task, load_lm, load_task, tune
from softlens.lm import LM
from softlens.objectives import Objective
from softlens.tuners.base import Problem
from softlens.tuners.fluentprompt import FluentPromptOptions, FluentPromptTuner


def tuner_of(lm: LM, task: Task, steps: int = 10, weights: Any = None, **options: Any):
    problem = Problem.encode(lm, task, 4, truncate=False)
    asked = Objective(problem.setting(), weights or {})
    settings = FluentPromptOptions(batch_size=24, **options)
    return FluentPromptTuner(problem, asked, settings, steps, seed=0)


def energy_gradient(lm: LM, task: Task, ids: list[int], weight: float) -> torch.Tensor:
    """Of task loss + weight x nats per token, by plain forward passes."""
    table = lm.model.get_input_embeddings().weight.detach()
    rows = table[ids].clone().requires_grad_()
    words = [lm.encode(word, leading_space=True)[0] for word in task.label_words]
    losses = []
    for text, label in zip(task.train.texts, task.train.labels, strict=True):
        before = table[[lm.bos_id, *lm.encode(text)]]
        logits = lm.model(inputs_embeds=torch.cat([before, rows])[None]).logits[0, -1, words]
        losses.append(-logits.log_softmax(0)[label])
    logits = lm.model(inputs_embeds=torch.cat([table[[lm.bos_id]], rows])[None]).logits[0, :-1]
    fluency = torch.nn.functional.cross_entropy(logits, torch.tensor(ids))
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean() + weight * fluency, rows)
    return gradient


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_step_is_the_equation(tiny: Callable[..., LM], toy_task: Task, clip: float | None):
    lm = tiny()
    tuner = tuner_of(
        lm, toy_task, weights={"perplexity": 0.2}, learning_rate=0.4, clip=clip, beta_start=0.5
    )
    noise = torch.Generator().manual_seed(0)
    for step in range(10):
        ids = tuner.token_ids
        slope = energy_gradient(lm, toy_task, ids, 0.2)
        if clip is not None and slope.norm() > clip:
            slope *= clip / slope.norm()
        beta = 0.5 * (1e-4 / 0.5) ** (step / 9)
        z = torch.randn(4, lm.hidden_size, generator=noise)
        moved = lm.embedding[ids] - 0.4 * slope + math.sqrt(2 * 0.4 * beta) * z
        row = tuner.step()
        assert row["beta"] == pytest.approx(beta)
        distance = torch.cdist(moved, lm.embedding[lm.ordinary_ids])
        assert tuner.token_ids == lm.ordinary_ids[distance.argmin(dim=1)].tolist()


def test_the_noise_cools_geometrically(tiny: Callable[..., LM], toy_task: Task):
    options = {"steps": 30, "patience": 50, "learning_rate": 2.0, "progress": False}
    run = tune(tiny(), toy_task, "fluentprompt", length=3, **options)
    beta = run.history["beta"].to_numpy()
    assert beta[0] == 1
    assert beta[-1] == pytest.approx(1e-4)
    np.testing.assert_allclose(beta[1:] / beta[:-1], (1e-4) ** (1 / 29), rtol=1e-6)
    # While it is hot it goes anywhere.
    assert run.history["prompts_visited"].iloc[9] > 8


def test_without_noise_it_is_autoprompt_sgd(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    tuner = tuner_of(lm, toy_task, beta_start=0, learning_rate=20.0, clip=None)
    for _ in range(3):
        ids = tuner.token_ids
        moved = lm.embedding[ids] - 20 * energy_gradient(lm, toy_task, ids, 0)
        row = tuner.step()
        assert row["beta"] == 0
        distance = torch.cdist(moved, lm.embedding[lm.ordinary_ids])
        assert tuner.token_ids == lm.ordinary_ids[distance.argmin(dim=1)].tolist()


def test_what_is_projected_is_kept(tiny: Callable[..., LM], toy_task: Task):
    """Unlike PEZ: steps that are too short to reach another token leave no trace."""
    tuner = tuner_of(tiny(), toy_task, beta_start=0, learning_rate=1e-3)
    start = tuner.token_ids
    for _ in range(20):
        row = tuner.step()
    assert tuner.token_ids == start
    assert row["prompts_visited"] == 1


def test_one_step_is_enough_of_a_schedule(tiny: Callable[..., LM], toy_task: Task):
    run = tune(tiny(), toy_task, "fluentprompt", length=3, steps=1, progress=False)
    assert run.history["beta"].tolist() == [1.0]


def test_on_the_organism_it_learns():
    run = tune(load_lm(), load_task("topic"), "fluentprompt", steps=280, progress=False)
    assert run.metrics["accuracy"] > run.metrics["empty_accuracy"] + 0.2
