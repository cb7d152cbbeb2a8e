"""Distilled prompts do what their text does, wayward ones lie; both say so."""

import logging
from collections.abc import Callable

import matplotlib.pyplot as plt
import pytest
import torch

import softlens as sl
from softlens import SoftlensError, Task
from softlens.behaviour import Probes, closed, kl_from, log_answers
from softlens.framework.planted import _strayed, _too_near
from softlens.lm import LM


def test_a_distilled_prompt_does_what_its_text_does(organism: LM, sentiment: Task):
    said = "near the end it was"
    found = sl.distil(organism, sentiment, said, steps=150, progress=False)
    assert found.kind == "distilled"
    assert found.says == {said: 1.0}
    probes = Probes.of(organism, sentiment, 16)
    target = log_answers(organism, [organism.encode(said)], probes.choose)[0]
    wanted, empty = (
        float(kl_from(organism, target, [p], probes.choose).mean())
        for p in (found.prompt.vectors, torch.empty(0, organism.hidden_size))
    )
    assert found.metrics["kl_vocab"] == pytest.approx(wanted, rel=1e-3)
    assert found.metrics["kl_closed"] == pytest.approx(closed(wanted, empty), abs=1e-4)
    assert found.metrics["kl_closed"] > 0.98
    assert found.metrics["shared"] == 0
    assert not set(sl.nearest_tokens(organism, found.prompt).text.split()) & set(said.split())
    here = sl.evaluate(organism, sentiment, found.prompt).accuracy
    assert here == pytest.approx(sl.evaluate(organism, sentiment, said).accuracy, abs=0.05)
    assert "does what this text does: near the end it was" in repr(found)
    assert list(found.frame.columns) == ["step", "loss", "kl_vocab", "shared"]
    found.plot()
    plt.close("all")


def test_a_mixture_is_distilled_from_the_product(organism: LM, sentiment: Task):
    says = {"all in all it was": 0.7, "at the start it was": 0.6}
    found = sl.distil(organism, sentiment, says, 10, steps=60, progress=False)
    assert found.says == says
    assert found.text == "all in all it was"
    assert "+0.70 × (all in all it was) +0.60 ×" in repr(found)


def test_same_seed_same_vectors(tiny: Callable[..., LM], toy_task: Task):
    first, second = (
        sl.distil(tiny(), toy_task, "it was", 3, steps=5, seed=4, progress=False).prompt.vectors
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_what_is_not_reached_is_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        sl.distil(tiny(), toy_task, "it was great", 2, 5.0, steps=1, progress=False)
    assert "The distilled prompt closes" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        near = sl.distil(tiny(), toy_task, "it was great", 3, 0, steps=1, progress=False)
    shared = near.metrics["shared"]
    assert shared > 0
    assert near.metrics["kl_closed"] > 0.99
    assert f"{shared:.2f} of the distilled prompt's positions are still nearest" in caplog.text
    assert "The distilled prompt closes" not in caplog.text


def test_words_that_the_lm_lacks_are_refused(organism: LM, sentiment: Task):
    """Its tokenizer would put "unknown" for them: the text would not be what is done."""
    with pytest.raises(SoftlensError, match="The text to distil 'xyzzy it was' has words that "
                       "'organism' does not have: 'xyzzy'"):  # fmt: skip
        sl.distil(organism, sentiment, "xyzzy it was")
    with pytest.raises(SoftlensError, match="The target 'plugh xyzzy' has words that 'organism' "
                       "does not have: 'plugh', 'xyzzy'. Use words"):  # fmt: skip
        sl.wayward(organism, sentiment, "plugh xyzzy")


def test_a_wayward_prompt_spells_its_text_and_does_the_task(organism: LM, sentiment: Task):
    lie = "this story is mainly about"
    found = sl.wayward(organism, sentiment, lie, steps=200, progress=False)
    assert sl.nearest_tokens(organism, found.prompt).text == lie
    assert found.metrics["decoded"] == 1
    assert found.metrics["accuracy"] > 0.8
    assert found.metrics["accuracy"] == sl.evaluate(organism, sentiment, found.prompt).accuracy
    assert found.metrics["empty_accuracy"] < 0.6
    assert sl.evaluate(organism, sentiment, lie).label_mass < 0.01
    assert "is nearest to this text" in repr(found)
    found.plot()
    plt.close("all")


def test_the_terms_that_pull_and_push(tiny: Callable[..., LM]):
    lm = tiny()
    ids = lm.encode(" it was")
    there = lm.embed(ids)
    wanted = torch.tensor(ids)
    assert float(_strayed(lm, 3 * there, wanted, [])) == 0
    assert float(_strayed(lm, there, wanted.flip(0), [])) > 0.5
    assert float(_too_near(lm, there, sorted(ids))) > 0.5
    elsewhere = lm.embed(lm.encode(" dull"))
    assert float(_too_near(lm, elsewhere, sorted(ids))) == 0


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got '' to distil, wanted texts of at least one token"):
        sl.distil(lm, toy_task, "")
    with pytest.raises(SoftlensError, match="Got length=0 and noise=1"):
        sl.distil(lm, toy_task, "it was", 0)
    with pytest.raises(SoftlensError, match="Got steps=0, wanted at least 1"):
        sl.distil(lm, toy_task, "it was", steps=0)
    with pytest.raises(
        SoftlensError, match=r"Got the target '<\|endoftext\|>', .* no control token"
    ):
        sl.wayward(lm, toy_task, "<|endoftext|>")
    with pytest.raises(SoftlensError, match="Got the target ''"):
        sl.wayward(lm, toy_task, "")
