"""Gauges: by hand on tiny LMs, and with the grammar on the organism."""

import logging
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import softlens as sl
from softlens import Reading, SoftlensError, Task
from softlens.framework import GAUGES, gauge
from softlens.framework.gauges import Gauged
from softlens.lm import LM


def test_every_gauge_says_what_it_cannot_show():
    table = sl.gauges()
    assert {"perplexity", "judge_perplexity", "grammatical", "asks_for"} <= set(table["gauge"])
    assert all(table["shows"].str.len() > 3)
    assert all(table["cannot_show"].str.len() > 3)
    assert not table.set_index("gauge").loc["perplexity", "held_out"]


def test_by_hand(any_lm: LM, toy_task: Task):
    reading = Reading.from_text(any_lm, "it was was dull")
    found = sl.scrutability(any_lm, toy_task, reading)
    start = [any_lm.bos_id, *(any_lm.encode(".") if any_lm.sink else [])]
    ids = torch.tensor([[*start, *reading.token_ids]])
    logits = any_lm.model(input_ids=ids).logits[0, len(start) - 1 : -1]
    log_probs = logits.double().log_softmax(-1)
    nats = -log_probs[torch.arange(len(reading.token_ids)), list(reading.token_ids)].numpy()
    np.testing.assert_allclose(found.nats, nats, rtol=1e-3)
    assert found.nats_per_token == pytest.approx(nats.mean(), rel=1e-3)
    assert found.perplexity == pytest.approx(np.exp(nats.mean()), rel=1e-3)
    assert found.max_surprisal == pytest.approx(nats.max(), rel=1e-3)
    assert found.worst_token == any_lm.token(reading.token_ids[int(nats.argmax())])
    counts = np.unique(reading.token_ids, return_counts=True)[1]
    assert found.repetition == pytest.approx(((counts - 1) ** 1.5).sum() / len(reading.token_ids))
    mass = sl.evaluate(any_lm, toy_task, reading.text).label_mass
    assert found.label_mass == pytest.approx(mass)
    assert found.round_trip
    nothing = (found.judge, found.judge_perplexity, found.transfer_accuracy, found.grammatical)
    assert nothing == (None,) * 4
    assert found.asks_for is None


def test_half_a_character_as_the_worst_token_is_text_that_files_take(any_lm: LM, toy_task: Task):
    halves = [i for i in any_lm.ordinary_ids.tolist() if "\ufffd" in any_lm.token(i)]
    value = GAUGES["worst_token"].measure(
        Gauged(any_lm, toy_task, (halves[0],), "\ufffd", round_trip=False, judge=None)
    )
    assert value == "\ufffd"
    assert str(value).encode()


def test_label_words_are_seen(tiny: Callable[..., LM], toy_task: Task):
    found = sl.scrutability(tiny(), toy_task, "great great")
    assert found.label_words == 1
    assert sl.scrutability(tiny(), toy_task, "overall it was").label_words == 0


def test_the_judge(tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture):
    lm, judge = tiny(), tiny("llama")
    found = sl.scrutability(lm, toy_task, "overall it was", judge)
    assert found.judge == "tiny-llama-0"
    there = sl.evaluate(judge, toy_task, "overall it was")
    here = sl.evaluate(lm, toy_task, "overall it was")
    assert found.transfer_accuracy == there.accuracy
    same = there.frame["predicted"] == here.frame["predicted"]
    assert found.transfer_agreement == same.mean()
    own = sl.scrutability(judge, toy_task, "overall it was")
    assert found.judge_perplexity == pytest.approx(own.perplexity)
    with caplog.at_level(logging.WARNING):
        sl.scrutability(lm, toy_task, "overall it was", lm)
    assert "The judge is the tuned LM itself" in caplog.text


def test_a_judge_with_other_tokens(tiny: Callable[..., LM], toy_task: Task):
    organism = sl.load_lm()
    task = toy_task.with_(label_words=("dull", "story"))
    with pytest.raises(
        SoftlensError, match="judge 'organism' cannot be asked 'toy': label word 'dull' is"
    ):
        sl.scrutability(tiny(), task, "overall it was", organism)


def test_on_the_organism_the_grammar_speaks():
    organism, task = sl.load_lm(), sl.load_task("witness").head(test=64)
    right = sl.scrutability(organism, task, "the critic said it was")
    assert right.grammatical is True
    assert right.asks_for == "person:critic"
    assert right.judge == "organism-judge"
    assert right.transfer_accuracy > 0.9
    alias = sl.scrutability(organism, task, "oscar lawyer summit it was")
    assert alias.grammatical is False
    assert alias.asks_for == "nothing"
    assert alias.max_surprisal > right.max_surprisal
    assert "grammatical" in repr(alias)
    assert "NO" in repr(alias)
    right.plot()
    plt.close("all")


def test_one_token_cannot_repeat_itself(tiny: Callable[..., LM], toy_task: Task):
    found = sl.scrutability(tiny(), toy_task, "dull")
    assert found.round_trip
    assert found.repetition is None
    assert "repetition" not in set(found.table["gauge"])


def test_what_does_not_round_trip_is_gauged_twice(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    letters = [lm.encode(letter)[0] for letter in "the"]
    broken = Reading.from_ids(lm, [lm.encode(" a")[0], *letters], "by hand")
    found = sl.scrutability(lm, toy_task, broken)
    assert not found.round_trip
    assert set(found.frame["scored"]) == {"tokens", "text"}
    assert "DOES NOT ROUND-TRIP" in repr(found)


def test_a_new_gauge_registers_itself(tiny: Callable[..., LM], toy_task: Task):
    @gauge("tokens", "lower", shows="how long it is", cannot="anything else")
    def tokens(g: Gauged) -> int:
        """How many tokens it has."""
        return len(g.ids)

    try:
        found = sl.scrutability(tiny(), toy_task, "it was")
        assert found.frame.set_index("gauge").loc["tokens", "value"] == 2
    finally:
        del GAUGES["tokens"]


def test_its_tokens_are_inert(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    ids = [lm.encode(letter)[0] for letter in "<b>"]
    shown = sl.scrutability(lm, toy_task, Reading.from_ids(lm, ids, "<i>"))._repr_html_()
    assert "<b>" not in shown
    assert "<i>" not in shown


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    other = Reading.from_text(tiny("gpt2", 1), "it was")
    with pytest.raises(SoftlensError, match="is of 'tiny-gpt2-1'"):
        sl.scrutability(tiny(), toy_task, other)
    with pytest.raises(SoftlensError, match="The reading is empty"):
        sl.scrutability(tiny(), toy_task, "")
