"""Soft prompt tuning, and the loop that every tuner shares."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from softlens import Prompt, SoftlensError, Split, Task, evaluate, load_run, nearest_tokens, tune
from softlens.lm import LM, answer_logits, score_answers
from softlens.objectives import Objective, task_loss
from softlens.tuners import TUNERS
from softlens.tuners.base import Problem
from softlens.tuners.soft import SoftTuner


def quick(lm: LM, task: Task, **changes: Any) -> Any:
    return tune(lm, task, **({"length": 4, "steps": 30, "progress": False} | changes))


@pytest.mark.parametrize("over", ["labels", "vocabulary"])
def test_task_loss_is_cross_entropy(any_lm: LM, toy_task: Task, over: Any):
    texts = any_lm.encode_texts(toy_task.template, toy_task.train.texts)
    labels = torch.tensor(toy_task.train.labels)
    words = torch.tensor(toy_task.answer_ids(any_lm))
    prompts = torch.randn(2, 3, any_lm.hidden_size)
    logits = answer_logits(any_lm, prompts, texts)
    for got, scores in zip(
        task_loss(any_lm, prompts, texts, labels, words, over), logits, strict=True
    ):
        if over == "labels":
            wanted = torch.nn.functional.cross_entropy(scores[:, words], labels)
        else:
            wanted = torch.nn.functional.cross_entropy(scores, words[labels])
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_it_learns_and_says_what_it_did(any_lm: LM, toy_task: Task):
    run = quick(any_lm, toy_task, steps=60, patience=10)
    untrained = Prompt.from_ids(any_lm, run.prompt.start_ids)
    before = evaluate(any_lm, toy_task, untrained, split="dev")
    assert run.metrics["loss_dev"] < before.loss - 0.02
    assert run.metrics["accuracy_dev"] >= before.accuracy
    after = evaluate(any_lm, toy_task, run.prompt, split="dev")
    assert after.accuracy == pytest.approx(run.metrics["accuracy_dev"])
    assert after.loss == pytest.approx(run.metrics["loss_dev"], rel=1e-4)
    for key, value in evaluate(any_lm, toy_task, run.prompt).summary().items():
        assert run.metrics[key] == pytest.approx(value, rel=1e-4)
    assert run.metrics["scored"] == "soft"
    assert {"empty_accuracy", "random_accuracy", "readable_accuracy"} <= set(run.metrics)

    history = run.history
    assert list(history.columns) == [
        "step", "objective", "task_loss", "grad_norm_task",
        "tokens_changed", "token_ids", "accuracy_dev", "loss_dev", "evaluations",
    ]  # fmt: skip
    assert (history["grad_norm_task"] > 0).all()
    assert history["tokens_changed"].between(0, 4).all()
    looks = history["accuracy_dev"].notna()
    assert looks.sum() == 10
    assert run.metrics["evaluations"] == len(history) * 3 * 24 + 12 * (looks.sum() + 1)


def test_the_best_iterate_on_dev_is_kept(tiny: Callable[..., LM], toy_task: Task):
    run = quick(tiny(), toy_task, learning_rate=3.0, schedule="constant", patience=50)
    seen = run.history.dropna()
    best = max(zip(seen["accuracy_dev"], -seen["loss_dev"], strict=True))
    start = evaluate(tiny(), toy_task, Prompt.from_ids(tiny(), run.prompt.start_ids), split="dev")
    best = max(best, (start.accuracy, -start.loss))
    assert (run.metrics["accuracy_dev"], -run.metrics["loss_dev"]) == pytest.approx(best, rel=1e-4)


def test_same_seed_same_bits(tiny: Callable[..., LM], toy_task: Task):
    first, second, other = (quick(tiny(), toy_task, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.prompt.vectors, second.prompt.vectors)
    pd.testing.assert_frame_equal(first.history, second.history)
    assert first.config == second.config
    assert not torch.equal(first.prompt.vectors, other.prompt.vectors)


def test_starts(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    run = quick(lm, toy_task, init_text="in short it was", steps=1, learning_rate=1e-9)
    assert run.prompt.start_ids == tuple(lm.encode("in short it was", leading_space=True))
    assert run.text == " in short it was"
    noise = quick(lm, toy_task, init="noise", steps=1)
    assert noise.prompt.start_ids is None
    with pytest.raises(SoftlensError, match="has 4 tokens .* but the length is 3"):
        quick(lm, toy_task, init_text="in short it was", length=3)
    with pytest.raises(SoftlensError, match="init='text' without a text"):
        quick(lm, toy_task, init="text")


def test_it_stops_early(tiny: Callable[..., LM], toy_task: Task):
    run = quick(tiny(), toy_task, steps=100, learning_rate=1e-12, patience=2)
    assert run.metrics["ended"] == "stopped early: dev no longer improved"
    assert run.metrics["steps"] < 100


def test_ctrl_c_keeps_the_best_so_far(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    steps = []

    def interrupted(self, original=SoftTuner.step):
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(SoftTuner, "step", interrupted)
    run = quick(tiny(), toy_task)
    assert (run.metrics["ended"], run.metrics["steps"], len(run.history)) == ("interrupted", 7, 7)
    assert np.isfinite(run.metrics["accuracy"])


def test_a_loss_that_is_no_number_stops_and_keeps_the_best(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    def broken(self, original=SoftTuner.step):
        row = original(self)
        if self._rate.last_epoch == 5:
            self._vectors.data.fill_(float("nan"))
            return row | {"objective": float("nan")}
        return row

    monkeypatch.setattr(SoftTuner, "step", broken)
    with caplog.at_level(logging.WARNING):
        run = quick(tiny(), toy_task)
    assert run.metrics["ended"] == "stopped: the loss was not a number"
    assert torch.isfinite(run.prompt.vectors).all()
    assert "lower learning rate" in caplog.text


def test_a_gradient_that_is_no_number_stops_and_keeps_the_best(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    def broken(self, *rest, original=Objective.gradients):
        terms, gradients = original(self, *rest)
        return terms, {name: gradient * float("nan") for name, gradient in gradients.items()}

    monkeypatch.setattr(Objective, "gradients", broken)
    run = quick(tiny(), toy_task)
    assert run.metrics["ended"] == "stopped: the loss was not a number"
    assert torch.isfinite(run.prompt.vectors).all()


@pytest.mark.parametrize("where", ["evaluate", "control_metrics", "_scores"])
def test_ctrl_c_while_the_test_texts_are_asked_keeps_the_prompt(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    where: str,
):
    alone = quick(tiny(), toy_task)

    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"softlens.tuners.{where}", interrupted)
    run = quick(tiny(), toy_task)
    assert torch.equal(run.prompt.vectors, alone.prompt.vectors)
    assert run.metrics["ended"] == "interrupted"
    assert run.metrics["accuracy_dev"] == alone.metrics["accuracy_dev"]
    assert "sl.evaluate(lm, task, run.prompt)" in caplog.text
    saved = load_run(run.save(tmp_path))
    assert "NaN" not in (tmp_path / "run.json").read_text()
    for each in (run, saved):
        assert np.isnan(each.metrics["accuracy"])
        assert np.isnan(each.metrics["empty_accuracy"])
        assert each.table["accuracy"].iloc[0] == ""
        assert "interrupted after" in each.headline


def test_ctrl_c_before_a_later_start_keeps_the_earlier_ones(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    made = []

    def interrupted(self, *given, original=SoftTuner.__init__):
        made.append(1)
        if len(made) == 2:
            raise KeyboardInterrupt
        original(self, *given)

    alone = quick(tiny(), toy_task)
    monkeypatch.setattr(SoftTuner, "__init__", interrupted)
    run = quick(tiny(), toy_task, starts=3)
    assert (run.metrics["ended"], run.metrics["starts"]) == ("interrupted", 1)
    assert torch.equal(run.prompt.vectors, alone.prompt.vectors)
    assert "Interrupted before start 2" in caplog.text


def test_unknown_methods_options_and_budgets(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match=r"Unknown method 'sfot'.*mean 'soft'"):
        quick(lm, toy_task, method="sfot")
    with pytest.raises(SoftlensError, match=r"'learning_rat' is no option.*mean 'learning_rate'"):
        quick(lm, toy_task, learning_rat=0.1)
    with pytest.raises(SoftlensError, match="learning_rate=-1: Input should be greater than 0"):
        quick(lm, toy_task, learning_rate=-1)
    with pytest.raises(SoftlensError, match="'repetition' has no gradient, and 'soft' follows"):
        quick(lm, toy_task, proxies={"repetition": 0.1})
    with pytest.raises(SoftlensError, match="Got steps=0, wanted at least 1"):
        quick(lm, toy_task, steps=0)
    with pytest.raises(SoftlensError, match="Got length 0, wanted at least 1"):
        quick(lm, toy_task, length=0)
    with pytest.raises(SoftlensError, match="Got length 500, but .* has 128 positions"):
        quick(lm, toy_task, length=500)
    with pytest.raises(SoftlensError, match=r"Text 0 is too long: .* truncate=True"):
        quick(lm, toy_task, length=124)
    assert set(TUNERS) >= {"soft"}


def test_texts_too_long_may_be_shortened(tiny: Callable[..., LM], toy_task: Task):
    from dataclasses import replace

    long = tuple("film " * 150 + text for text in toy_task.train.texts)
    task = replace(toy_task, train=Split(long, toy_task.train.labels))
    with pytest.raises(SoftlensError, match="Text 0 is too long"):
        quick(tiny(), task)
    run = quick(tiny(), task, truncate=True, steps=2)
    assert run.config.options["truncate"] is True


def test_a_budget_is_picked_and_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="softlens"):
        run = quick(tiny(), toy_task, steps=None, patience=1, learning_rate=1e-12)
    assert run.config.steps == 400
    assert "400 steps for an LM of" in caplog.text


def test_more_starts_keep_the_best_on_dev(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    alone = quick(lm, toy_task, steps=5)
    many = quick(lm, toy_task, steps=5, starts=3)
    best = (many.metrics["accuracy_dev"], -many.metrics["loss_dev"])
    assert best >= (alone.metrics["accuracy_dev"], -alone.metrics["loss_dev"])
    assert many.metrics["starts"] == 3
    assert many.metrics["evaluations"] == 3 * alone.metrics["evaluations"]


def test_dev_selects_in_calibrated_accuracy_where_the_loss_is(any_lm: LM, toy_task: Task):
    problem = Problem.encode(any_lm, toy_task, 4, truncate=False)
    ids = problem.start_ids(None, 3)
    vectors = any_lm.embed(ids)
    # The formula again, with the same texts' means as the prior.
    scores = score_answers(any_lm, vectors[None], problem.dev, problem.words).log_probs[0]
    free = (scores - scores.mean(dim=0)).double().numpy()
    labels = problem.dev_labels.numpy()
    nats = np.log(np.exp(free).sum(axis=1)) - free[np.arange(len(labels)), labels]
    got = problem.on_dev(vectors, calibrated=True)
    assert got[0] == pytest.approx((free.argmax(axis=1) == labels).mean())
    assert got[1] == pytest.approx(nats.mean(), rel=1e-4)
    assert got != problem.on_dev(vectors)

    run = quick(any_lm, toy_task, steps=20, calibrated=True)
    wanted = problem.on_dev(run.prompt.vectors.to(any_lm.device), calibrated=True)
    assert run.metrics["accuracy_dev"] == pytest.approx(wanted[0])
    assert run.metrics["loss_dev"] == pytest.approx(wanted[1], rel=1e-4)
    plain = quick(any_lm, toy_task, steps=20)
    wanted = problem.on_dev(plain.prompt.vectors.to(any_lm.device))
    assert plain.metrics["loss_dev"] == pytest.approx(wanted[1], rel=1e-4)


def test_how_far_a_soft_prompt_is_from_its_tokens_is_its_own(
    tiny: Callable[..., LM], toy_task: Task
):
    run = quick(tiny(), toy_task, proxies={"embedding_distance": 0.0})
    nearest = nearest_tokens(tiny(), run.prompt, k=1)
    units = torch.nn.functional.normalize(run.prompt.vectors, dim=1)
    cosines = (units * tiny().unit_embedding[list(nearest.token_ids)]).sum(dim=1)
    assert run.metrics["embedding_distance"] == pytest.approx(1 - float(cosines.mean()), rel=1e-4)
    assert run.metrics["embedding_distance"] > 1e-3


def test_bans_in_a_set_are_written_in_one_order():
    """Words hash anew in every process."""
    words = {f"word{i}" for i in range(50)}
    assert TUNERS["soft"].Options(ban=words).ban == tuple(sorted(words))
    assert TUNERS["soft"].Options(ban={3, "labels"}).ban == (3, "labels")
