"""GCG: the gradient of one-hot vectors, the swaps, and the choice among them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from softlens import SoftlensError, Task, tune
from softlens.lm import LM
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import Problem
from softlens.tuners.gcg import GcgOptions, GcgTuner


def tuner_of(
    lm: LM, task: Task, length: int = 3, weights: Any = None, judge: LM | None = None,
    seed: int = 0, ban: Any = (), **options: Any,
) -> GcgTuner:  # fmt: skip
    problem = Problem.encode(lm, task, length, truncate=False, ban=ban)
    asked = Objective(problem.setting(judge), weights or {})
    return GcgTuner(problem, asked, GcgOptions(batch_size=24, ban=ban, **options), 10, seed)


def totals(tuner: GcgTuner, rows: list[list[int]]) -> np.ndarray:
    """The objective of prompts on all training texts."""
    p, asked = tuner.problem, Objective(tuner.objective.setting, tuner.objective.weights)
    order = range(len(p.train))
    with torch.no_grad():
        proposals = Proposals.of_ids(asked.setting, rows, p.train.subset(order))
        return asked.total(asked.terms(proposals, p.labels)).numpy()


def test_the_gradient_is_that_of_one_hot_vectors(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    tuner = tuner_of(lm, toy_task, top_k=5)
    table = lm.model.get_input_embeddings().weight.detach()
    hot = torch.nn.functional.one_hot(torch.tensor(tuner.token_ids), lm.vocab_size).float()
    hot.requires_grad_()
    words = tuner.problem.words
    losses = []
    for text, label in zip(toy_task.train.texts, toy_task.train.labels, strict=True):
        rows = torch.cat([table[[lm.bos_id, *lm.encode(text)]], hot @ table])
        logits = lm.model(inputs_embeds=rows[None]).logits[0, -1, words]
        losses.append(-logits.log_softmax(0)[label])
    (by_token,) = torch.autograd.grad(torch.stack(losses).mean(), hot)
    proposed: list[torch.Tensor] = []
    original = tuner._promising
    tuner._promising = lambda slope: proposed.append(original(slope)) or proposed[-1]  # type: ignore
    current = tuner.token_ids
    tuner.step()
    by_token[:, [lm.bos_id, *sorted(lm.unused_ids)]] = torch.inf
    for position in range(3):
        by_token[position, current[position]] = torch.inf
        wanted = by_token[position].argsort()[:5].tolist()
        assert proposed[0][position].tolist() == wanted


@pytest.mark.parametrize(
    "weights",
    [{}, {"perplexity": 0.3}, {"repetition": 2.0, "perplexity": 0.1}, {"judge_perplexity": 0.2}],
    ids=lambda w: "+".join(w) or "task",
)
def test_with_every_swap_tried_it_takes_the_best_of_all(
    tiny: Callable[..., LM], toy_task: Task, weights: dict[str, float]
):
    """Proxies without a gradient count where swaps are scored."""
    lm = tiny()
    tuner = tuner_of(
        lm, toy_task, 2, weights, judge=tiny("llama", 3), top_k=10_000, candidates=10_000
    )
    current = tuner.token_ids
    rows = [
        [*current[:position], token, *current[position + 1 :]]
        for position in range(2)
        for token in lm.ordinary_ids.tolist()
        if token != current[position]
    ]
    wanted = totals(tuner, rows)
    row = tuner.step()
    got = totals(tuner, [tuner.token_ids])[0]
    assert got == pytest.approx(wanted.min(), rel=1e-5)
    assert sum(a != b for a, b in zip(current, tuner.token_ids, strict=True)) == 1
    assert row["objective"] == pytest.approx(totals(tuner, [current])[0], rel=1e-4)
    norms = {key for key in row if key.startswith("grad_norm")}
    assert norms == {"grad_norm_task"} | {
        f"grad_norm_{name}" for name in weights if name == "perplexity"
    }
    assert set(row) >= {"task_loss", *weights}


def test_swaps_change_one_allowed_token_and_none_comes_twice(
    tiny: Callable[..., LM], toy_task: Task
):
    tuner = tuner_of(tiny(), toy_task, 4, ban=("labels", " film"), candidates=100, top_k=40)
    slope = torch.randn(4, tuner.problem.lm.hidden_size)
    tokens = tuner._promising(slope)
    assert tokens.shape == (4, 40)
    swaps = tuner._swaps(tokens)
    assert swaps.shape == (100, 4)
    assert len({tuple(row) for row in swaps.tolist()}) == 100
    changed = swaps != torch.tensor(tuner.token_ids)
    assert (changed.sum(dim=1) == 1).all()
    assert (changed.sum(dim=0) > 10).all()
    assert bool(tuner.problem.allowed[swaps].all())
    few = tuner_of(tiny(), toy_task, 2, candidates=100, top_k=3)
    few_slope = torch.randn(2, tuner.problem.lm.hidden_size)
    assert few._swaps(few._promising(few_slope)).shape == (6, 2)


def test_it_may_stay_where_nothing_is_better(tiny: Callable[..., LM], toy_task: Task):
    options = {"candidates": 4, "top_k": 200, "seed": 1}
    stays = tuner_of(tiny(), toy_task, only_better=True, **options)
    walks = tuner_of(tiny(), toy_task, **options)
    objectives, stood = [], 0
    for _ in range(15):
        before = stays.token_ids
        objectives.append(stays.step()["objective"])
        stood += before == stays.token_ids
    # All texts are in a batch here, so that what is better on it is better.
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(objectives))
    assert stood > 0
    for _ in range(15):
        before = walks.token_ids
        walks.step()
        assert before != walks.token_ids


def test_a_vocabulary_of_one_token_has_no_swaps(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    most = tuple(lm.ordinary_ids[1:].tolist())
    with pytest.raises(SoftlensError, match=r"leaves one token, and 'gcg' swaps"):
        tune(lm, toy_task, "gcg", length=2, steps=1, ban=most, progress=False)
    two = tune(lm, toy_task, "gcg", length=2, steps=4, ban=most[1:], progress=False)
    assert set(two.prompt.token_ids or ()) <= set(lm.ordinary_ids[:2].tolist())


def test_the_fluency_term_of_evil_twins(tiny: Callable[..., LM], toy_task: Task):
    """Their gamma times a sum over tokens is gamma x length times our mean."""
    lm = tiny()
    tuner = tuner_of(lm, toy_task, 3, {"perplexity": 0.01 * 3})
    ids = tuner.token_ids
    with torch.no_grad():
        logits = lm.model(torch.tensor([[lm.bos_id, *ids]])).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()
    row = tuner.step()
    assert row["objective"] - row["task_loss"] == pytest.approx(0.01 * nats, rel=1e-3)


def test_more_candidates_find_more(tiny: Callable[..., LM], toy_task: Task):
    few, many = (
        tune(tiny(), toy_task, "gcg", length=4, steps=8, candidates=n, patience=50, progress=False)
        for n in (4, 128)
    )
    assert many.metrics["loss_dev"] < few.metrics["loss_dev"]
    assert many.metrics["evaluations"] > few.metrics["evaluations"]
