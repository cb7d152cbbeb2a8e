"""The pool of candidates that all searches share."""

from collections.abc import Callable

import pytest
import torch

from softlens import Prompt, Task, evaluate
from softlens.lm import LM
from softlens.objectives import Objective, task_loss
from softlens.tuners.base import Problem
from softlens.tuners.pool import Pool, in_turns


@pytest.fixture
def problem(tiny: Callable[..., LM], toy_task: Task) -> Problem:
    return Problem.encode(tiny(), toy_task, 3, truncate=False)


def pool_of(problem: Problem, rows: int = 12, **options: object) -> Pool:
    objective = Objective(problem.setting(), **({"weights": {}} | options))  # type: ignore[arg-type]
    pool = Pool(problem, objective, seed=0)
    ids = problem.lm.ordinary_ids
    pool.add([tuple(ids[[i, i + 5, 2 * i + 1]].tolist()) for i in range(rows)])
    return pool


def test_classes_take_turns():
    labels = torch.tensor([0] * 30 + [1] * 10 + [2] * 20)
    order = in_turns(labels, seed=3)
    assert sorted(order.tolist()) == list(range(60))
    for stop in (6, 12, 30):
        counts = labels[order[:stop]].bincount(minlength=3) / stop
        torch.testing.assert_close(counts, torch.tensor([3, 1, 2]) / 6, atol=1 / stop, rtol=0)
    assert not torch.equal(order, in_turns(labels, seed=4))


@pytest.mark.parametrize("options", [{}, {"mass": 0.5}, {"over": "vocabulary"}])
def test_totals_are_the_objective_however_they_were_asked(
    problem: Problem, options: dict[str, object]
):
    whole, parts = pool_of(problem, **options), pool_of(problem, **options)
    whole.ask(16)
    for texts in (2, 2, 7, 16):
        parts.ask(texts)
    torch.testing.assert_close(whole.totals, parts.totals, rtol=1e-5, atol=1e-5)
    assert whole.objective.evaluations == parts.objective.evaluations == 12 * 16
    if not options:
        order = whole.order[:16]
        texts = problem.train.subset(order.tolist())
        wanted = task_loss(problem.lm, whole.rows, texts, problem.labels[order], problem.words)
        torch.testing.assert_close(whole.totals, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(whole.losses.mean(dim=1), wanted, rtol=1e-5, atol=1e-5)


def test_nothing_is_asked_twice(problem: Problem):
    pool = pool_of(problem)
    pool.ask(4)
    assert pool.add(pool.rows[:3]) == 0
    new = tuple(problem.lm.ordinary_ids[[40, 41, 42]].tolist())
    assert pool.add([new, new]) == 1
    assert pool.asked.tolist() == [4] * 12 + [0]
    pool.ask(6)
    assert pool.objective.evaluations == 12 * 6 + 6


def test_a_race_ends_with_the_best_and_asks_less(problem: Problem):
    full = pool_of(problem, 24)
    full.ask(len(problem.train))
    pool = pool_of(problem, 24)
    pool.race([len(problem.train)], lambda texts, n: 5)
    assert pool.rows == [full.rows[i] for i in full.totals.argsort(stable=True)[:5].tolist()]
    raced = pool_of(problem, 24)
    raced.race([4, 24], lambda texts, n: 6 if texts == 4 else 2)
    assert len(raced) == 2
    assert raced.objective.evaluations == 24 * 4 + 6 * 20
    empty = pool_of(problem, 24)
    empty.race([4, 24], lambda texts, n: 6, narrow=lambda p: p.keep(torch.zeros(24) > 0))
    assert len(empty) == 0


def test_shares_and_proxies(problem: Problem):
    pool = pool_of(problem, weights={"perplexity": 0.1, "repetition": 0.0})
    pool.ask(24)
    lm, task = problem.lm, problem.task
    for i in (0, 7):
        shares = evaluate(lm, task, Prompt.from_ids(lm, pool.rows[i]), split="train").shares
        assert float(pool.largest_share[i]) == pytest.approx(max(shares.values()))
    assert set(pool.proxies) == {"perplexity", "repetition"}
    loss = pool.losses.mean(dim=1)
    torch.testing.assert_close(pool.totals, loss + 0.1 * pool.proxies["perplexity"])
