"""Faithfulness against computations by hand, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

import softlens as sl
from softlens import Prompt, Reading, SoftlensError, Task
from softlens.controls import random_prompts
from softlens.display import number
from softlens.framework.faithfulness import MEASURES
from softlens.framework.texts import domains_of
from softlens.lm import LM
from softlens.statistics import Resamples


@pytest.fixture
def soft(tiny: Callable[..., LM]) -> Prompt:
    lm = tiny()
    noise = torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(4))
    return Prompt.soft(lm, lm.embed(lm.encode(" it was dull")[:3]) + 0.3 * noise)


def plain(lm: LM, text: str, vectors: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token, by the LM's own forward in float64."""
    row = torch.cat([lm.embed([lm.bos_id, *lm.encode(text)]), vectors])
    logits = lm.model(inputs_embeds=row[None]).logits[0, -1]
    return logits.double().log_softmax(-1)


def test_numbers_by_hand(any_lm: LM, toy_task: Task):
    noise = torch.randn(3, any_lm.hidden_size, generator=torch.Generator().manual_seed(4))
    prompt = Prompt.soft(any_lm, noise)
    reading = Reading.from_text(any_lm, "overall it was")
    found = sl.faithfulness(any_lm, toy_task, prompt, reading)
    words = toy_task.answer_ids(any_lm)
    kls, empties, labels, agree, right = [], [], [], [], []
    for text, label in zip(toy_task.test.texts, toy_task.test.labels, strict=True):
        p = plain(any_lm, text, prompt.vectors)
        q = plain(any_lm, text, any_lm.embed(reading.token_ids))
        e = plain(any_lm, text, torch.empty(0, any_lm.hidden_size))
        kls.append(float((p.exp() * (p - q)).sum()))
        empties.append(float((p.exp() * (p - e)).sum()))
        pw, qw = p[words].log_softmax(-1), q[words].log_softmax(-1)
        labels.append(float((pw.exp() * (pw - qw)).sum()))
        agree.append(int(pw.argmax()) == int(qw.argmax()))
        right.append(int(qw.argmax()) == label)
    assert found.kl_vocab == pytest.approx(np.mean(kls), rel=1e-3)
    assert found.kl_vocab_worst == pytest.approx(np.max(kls), rel=1e-3)
    assert found.kl_labels == pytest.approx(np.mean(labels), rel=1e-3, abs=1e-5)
    assert found.kl_closed == pytest.approx(1 - np.mean(kls) / np.mean(empties), rel=1e-3)
    assert found.gap == pytest.approx(1 - found.kl_closed)
    assert found.agreement == np.mean(agree)
    assert found.accuracy_reading == np.mean(right)
    assert found.accuracy_prompt == pytest.approx(sl.evaluate(any_lm, toy_task, prompt).accuracy)
    assert found.accuracy_empty == pytest.approx(sl.evaluate(any_lm, toy_task, None).accuracy)
    assert found.worst_text == toy_task.test.texts[int(np.argmax(kls))]
    drawn = [Prompt.from_ids(any_lm, row) for row in random_prompts(any_lm, len(reading.token_ids))]
    each = [e.accuracy for e in sl.evaluate_all(any_lm, toy_task, drawn)]
    assert found.accuracy_random == pytest.approx(np.mean(each))


def test_a_prompt_is_faithful_to_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    prompt = Prompt.from_text(lm, "it was dull")
    found = sl.faithfulness(lm, toy_task, prompt, "it was dull")
    assert found.kl_closed == pytest.approx(1, abs=1e-6)
    assert found.agreement == 1
    assert found.kl_vocab == pytest.approx(0, abs=1e-6)
    assert found.interval("kl_closed", "shuffled words")[0] == pytest.approx(1, abs=1e-6)
    assert found.interval("kl_closed", scored="empty")[0] == 0


def test_intervals_are_scipys():
    rng = np.random.default_rng(1)
    values, reference = rng.exponential(size=200), 3 + rng.normal(size=200) ** 2
    drawn = Resamples(200, resamples=4000)
    mean, low, high = drawn.mean(values)
    wanted = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2)
    assert mean == pytest.approx(values.mean())
    np.testing.assert_allclose((low, high), wanted.confidence_interval, atol=0.02)
    shares = drawn.closed(values, reference)
    paired = bootstrap(
        (values, reference),
        lambda a, b, axis: 1 - a.mean(axis) / b.mean(axis),
        paired=True, vectorized=True, method="percentile", n_resamples=4000, rng=2,
    )  # fmt: skip
    assert shares[0] == pytest.approx(1 - values.mean() / reference.mean())
    np.testing.assert_allclose(shares[1:], paired.confidence_interval, atol=0.01)


def test_the_frame_is_complete_and_shown(tiny: Callable[..., LM], soft: Prompt, toy_task: Task):
    strange = [f"a story and a plot {word}" for word in ("bad", "good", "dull", "it") * 6]
    found = sl.faithfulness(tiny(), toy_task, soft, "it was", other=strange)
    frame = found.frame
    assert set(frame["domain"]) == {"test", "other task", "shuffled words"}
    assert set(frame["scored"]) == {"prompt", "reading", "empty", "random"}
    assert len(frame) == 3 * 4 * len(MEASURES)
    known = frame.dropna(subset="low")
    assert (known["low"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["high"] + 1e-9).all()
    elsewhere = frame[(frame["domain"] != "test") & (frame["measure"] == "accuracy")]
    assert elsewhere["value"].isna().all()
    assert "of 20 test texts" in repr(found)
    assert "shuffled words" in found._repr_html_()
    ax = found.plot()
    drawn = {round(float(x), 6) for line in ax.lines for x in np.asarray(line.get_xdata())}
    for domain in set(frame["domain"]):
        for scored in ("reading", "random"):
            assert round(found.interval("agreement", domain, scored)[0], 6) in drawn
    worst = found.table.set_index(["domain", "scored"]).loc[("test", "reading")]
    for measure in ("kl_labels_worst", "kl_vocab_worst"):
        assert worst[measure] == number(found.interval(measure)[0])
        assert found.interval(measure)[0] >= found.interval(measure.removesuffix("_worst"))[0]
    plt.close("all")
    with pytest.raises(SoftlensError, match="No 'accuracie' of 'reading'"):
        found.interval("accuracie")


def test_what_does_not_round_trip_is_scored_twice(
    tiny: Callable[..., LM], soft: Prompt, toy_task: Task
):
    lm = tiny()
    letters = [lm.encode(letter)[0] for letter in "the"]
    broken = Reading.from_ids(lm, [lm.encode(" a")[0], *letters], "by hand")
    found = sl.faithfulness(lm, toy_task, soft, broken)
    assert "reading, re-tokenised" in set(found.frame["scored"])
    typed = sl.faithfulness(lm, toy_task, soft, Reading.from_ids(lm, broken.text_ids, "typed"))
    again = found.interval("kl_vocab", scored="reading, re-tokenised")
    assert again == pytest.approx(typed.interval("kl_vocab"))


def test_an_unfaithful_reading_shows_off_the_distribution():
    """On `sentiment`, "at the end" is the verdict nine times in ten; on other texts it is not."""
    organism, task = sl.load_lm(), sl.load_task("sentiment")
    prompt = Prompt.from_text(organism, "all in all it was")
    right, near = sl.faithfulness_all(
        organism, task, prompt, ["on the whole it was", "near the end it was"], texts=128
    )
    assert right.kl_closed > 0.99
    assert (
        right.interval("kl_closed", "other task")[0] > near.interval("kl_closed", "other task")[0]
    )
    assert near.agreement < 0.95
    assert near.interval("kl_labels_closed")[0] < 0.6 < right.interval("kl_labels_closed")[0]


def test_bad_input(tiny: Callable[..., LM], soft: Prompt, toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got the empty prompt, which says nothing"):
        sl.faithfulness(lm, toy_task, None, "it was")
    with pytest.raises(SoftlensError, match="The reading is empty"):
        sl.faithfulness(lm, toy_task, soft, "")
    other = Reading.from_text(tiny("gpt2", 1), "it was")
    with pytest.raises(SoftlensError, match="The reading '␣it was' is of 'tiny-gpt2-1'"):
        sl.faithfulness(lm, toy_task, soft, other)
    few = replace(toy_task, test=toy_task.test.take(12))
    with pytest.raises(SoftlensError, match="Got 12 texts, .* needs at least 20. Give .* 8 more"):
        sl.faithfulness(lm, few, soft, "it was")
    with pytest.raises(SoftlensError, match="Got 1 texts, .* Give other= 19 more"):
        sl.faithfulness(lm, toy_task, soft, "it was", other=["a film"])
    narrow = Prompt(torch.randn(2, 8), soft.lm)
    with pytest.raises(SoftlensError, match=r"shape \(2, 8\)"):
        sl.faithfulness(lm, toy_task, narrow, "it was")


def test_a_one_token_reading(tiny: Callable[..., LM], soft: Prompt, toy_task: Task):
    found = sl.faithfulness(tiny(), toy_task, soft, "dull")
    assert len(found.reading.token_ids) == 1
    assert np.isfinite(found.kl_vocab)


@pytest.mark.parametrize("name", ["sentiment", "topic", "reviews", "genre"])
def test_a_file_called_like_a_named_task_has_no_texts_of_its(tmp_path: Path, name: str):
    path = tmp_path / f"{name}.csv"
    rows = [f"a room {'loved' if i % 2 else 'hated'} {i},{'great' if i % 2 else 'terrible'}"
            for i in range(40)]  # fmt: skip
    path.write_text("\n".join(["text,label", *rows]))
    task = sl.load_task(path)
    assert task.name == name
    assert [one.name for one in domains_of(task, 10, None, 0)] == ["test", "shuffled words"]


def test_a_named_task_keeps_the_other_texts_under_another_template(sentiment: Task):
    task = sentiment.with_(template="{prompt} {text}").head(test=30)
    found = {one.name: one.texts for one in domains_of(task, 10, None, 0)}
    assert found["other task"] == sl.load_task("topic").test.texts[:10]
