"""Accuracy, label mass, calibration and controls against a few lines of numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from softlens import Prompt, SoftlensError, Task, evaluate, evaluate_all, load_lm, load_task
from softlens.evaluation import encode_split
from softlens.lm import LM, answer_logits


def log_probs(lm: LM, task: Task, ids: list[int], split: str) -> np.ndarray:
    texts = encode_split(lm, task, getattr(task, split))
    logits = answer_logits(lm, [ids], texts)[0]
    return logits.log_softmax(-1).numpy()


def test_every_number_is_what_its_name_says(any_lm: LM, toy_task: Task):
    prompt = Prompt.from_text(any_lm, "in short it was")
    got = evaluate(any_lm, toy_task, prompt)
    words = toy_task.answer_ids(any_lm)
    nats = log_probs(any_lm, toy_task, list(prompt.token_ids), "test")
    labels = np.array(toy_task.test.labels)
    among = nats[:, words]

    assert got.accuracy == pytest.approx((among.argmax(1) == labels).mean())
    prior = log_probs(any_lm, toy_task, list(prompt.token_ids), "train")[:, words].mean(0)
    assert got.accuracy_calibrated == pytest.approx(((among - prior).argmax(1) == labels).mean())
    assert got.accuracy_vocab == pytest.approx((nats.argmax(1) == np.array(words)[labels]).mean())
    assert got.label_mass == pytest.approx(np.exp(among).sum(1).mean(), rel=1e-4)
    share = np.exp(among) / np.exp(among).sum(1, keepdims=True)
    right = share[np.arange(len(labels)), labels]
    assert got.loss == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert sum(got.shares.values()) == pytest.approx(1)
    assert got.shares["great"] == pytest.approx((among.argmax(1) == 1).mean())
    assert (got.n, got.split, got.scored) == (20, "test", "tokens")

    assert list(got.frame.columns) == ["text", "label", "predicted", "p_label"]
    np.testing.assert_allclose(got.frame["p_label"], right, rtol=1e-4)
    assert (got.frame["label"] == np.array(["terrible", "great"])[labels]).all()


def test_a_text_a_prompt_and_its_vectors_score_the_same(any_lm: LM, toy_task: Task):
    hard = Prompt.from_text(any_lm, "overall it was")
    soft = Prompt.soft(any_lm, hard.vectors)
    results = evaluate_all(any_lm, toy_task, ["overall it was", hard, soft, None], split="dev")
    assert [r.scored for r in results] == ["text", "tokens", "soft", "text"]
    assert results[0].summary() == pytest.approx(results[1].summary(), rel=1e-4)
    assert results[1].summary() == pytest.approx(results[2].summary(), rel=1e-4)
    assert results[3].summary() == pytest.approx(
        evaluate(any_lm, toy_task, None, split="dev").summary(), rel=1e-4
    )
    assert results[3].prompt_text == ""


def test_a_prompt_in_front_of_the_text_has_no_leading_space(any_lm: LM, toy_task: Task):
    front = toy_task.with_(template="{prompt} {text} it was")
    text = evaluate(any_lm, front, "the film")
    ids = evaluate(any_lm, front, Prompt.from_text(any_lm, "the film", leading_space=False))
    assert text.summary() == pytest.approx(ids.summary(), rel=1e-4)


def test_words_that_the_lm_does_not_have_are_said_once(caplog: pytest.LogCaptureFixture):
    lm, task = load_lm("organism"), load_task("sentiment").head(test=2)
    for prompt in ("all in all it was", "<unk> it was"):  # the token itself is meant
        evaluate(lm, task, prompt)
    assert "does not have" not in caplog.text
    for prompt in ("Overall It was", "It was"):
        evaluate(lm, task, prompt)
    Prompt.from_text(lm, "Overall it")
    said = "'organism' does not have 'Overall', 'It', and is fed its token for unknown words, '<unk"
    assert said in caplog.text
    assert caplog.text.count("does not have") == 1


def test_wrong_splits_and_things_that_are_no_prompt(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match=r"Got split 'tets', wanted one of .* mean 'test'"):
        evaluate(lm, toy_task, None, split="tets")
    with pytest.raises(
        SoftlensError, match="Got a Tensor, wanted a Prompt, a text, a Reading or a Run"
    ):
        evaluate(lm, toy_task, torch.zeros(2, 32))  # type: ignore[arg-type]
    other = Prompt.from_text(tiny("gpt2", seed=1), "film")
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-1'"):
        evaluate(lm, toy_task, other)
