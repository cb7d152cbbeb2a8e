"""The view of surprisal against the model's own loss, and what people wrote."""

import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from softlens import Prompt, SoftlensError, load_lm, load_task, nearest_tokens, surprisal
from softlens.lm import LM, next_token_entropy
from softlens.tasks import Task
from tests.conftest import WORDS


def log_probs(lm: LM, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def by_hand(lm: LM, before: list[int], row: list[int]) -> np.ndarray:
    table = log_probs(lm, [*before, *row])
    return np.array([-float(table[len(before) + i - 1, t]) for i, t in enumerate(row)])


def test_equal_to_the_models_own_loss(any_lm: LM):
    text = "overall the film was great"
    row = any_lm.encode(text, leading_space=True)
    for context, before in (
        ("bos", [any_lm.bos_id]),
        ("bos.", [any_lm.bos_id, *any_lm.encode(".")]),
    ):
        got = surprisal(any_lm, text, context=context)
        wanted = by_hand(any_lm, before, row)
        np.testing.assert_allclose(got.frame["surprisal_nats"], wanted, rtol=1e-4)
        assert got.nats_per_token == pytest.approx(wanted.mean(), rel=1e-4)
        assert got.perplexity == pytest.approx(np.exp(wanted.mean()), rel=1e-3)
        after = log_probs(any_lm, [*before, *row])[len(before) :]
        np.testing.assert_allclose(
            got.frame["entropy_nats"], -(after.exp() * after).sum(-1), rtol=1e-4
        )
    assert got.of == "text"
    assert list(got.frame) == ["position", "token", "surprisal_nats", "entropy_nats"]


def test_after_real_texts_is_the_mean_over_them(any_lm: LM, toy_task: Task):
    row = any_lm.encode("it was", leading_space=True)
    got = surprisal(any_lm, "it was", toy_task)
    texts = any_lm.encode_texts("{text} {prompt}", toy_task.train.texts[:8])
    wanted = np.mean([by_hand(any_lm, list(before), row) for before in texts.befores], axis=0)
    np.testing.assert_allclose(got.frame["after_text_nats"], wanted, rtol=1e-4)
    assert got.nats_after_texts == pytest.approx(wanted.mean(), rel=1e-4)
    stands = surprisal(any_lm, "it was", toy_task, context="text")
    np.testing.assert_allclose(stands.frame["surprisal_nats"], wanted, rtol=1e-4)
    assert (stands.context, got.context) == ("text", "bos")


def test_a_soft_prompt_has_two_quantities(any_lm: LM):
    starts = any_lm.encode("the film was", leading_space=True)
    vectors = any_lm.embed(starts) + 0.3 * torch.randn(
        len(starts), any_lm.hidden_size, generator=torch.Generator().manual_seed(0)
    )
    prompt = Prompt.soft(any_lm, vectors)
    got = surprisal(any_lm, prompt)
    ids = nearest_tokens(any_lm, prompt, k=1).token_ids
    assert got.of == "nearest tokens"
    assert got.token_ids == ids
    hard = surprisal(any_lm, Prompt.from_ids(any_lm, ids))
    np.testing.assert_array_equal(got.frame["surprisal_nats"], hard.frame["surprisal_nats"])
    assert hard.of == "tokens"
    # The vectors themselves are fed for the entropy, through the LM's own forward.
    start = any_lm.embed([any_lm.bos_id])
    with torch.no_grad():
        logits = any_lm.model(inputs_embeds=torch.cat([start, vectors])[None]).logits[0, 1:]
    table = logits.double().log_softmax(-1)
    np.testing.assert_allclose(got.frame["entropy_nats"], -(table.exp() * table).sum(-1), rtol=1e-4)
    assert not np.allclose(got.frame["entropy_nats"], hard.frame["entropy_nats"])


def test_the_plain_path_gives_the_same_entropy(any_lm: LM):
    vectors = torch.randn(2, 3, any_lm.hidden_size, generator=torch.Generator().manual_seed(1))
    fast = next_token_entropy(any_lm, vectors, "bos")
    any_lm.path = "plain"
    try:
        torch.testing.assert_close(next_token_entropy(any_lm, vectors, "bos"), fast, rtol=1e-4,
                                   atol=1e-5)  # fmt: skip
    finally:
        any_lm.path = "fast"


def test_the_quantile_among_given_sentences(tiny: Callable[..., LM]):
    lm = tiny()
    whole = [f"{a} film was {b}" for a in ("the", "a", "it", "great") for b in WORDS[:6]]
    # Cut to four tokens, each of the second half is one of the first again.
    people = [*whole, *[f"{text} plot" for text in whole], "short"]
    got = surprisal(lm, "a film was dull", people=people)
    each = [surprisal(lm, text).nats_per_token for text in whole]
    np.testing.assert_allclose(sorted(got.people), sorted(each), rtol=1e-5)
    assert got.quantile == pytest.approx(np.mean(np.array(got.people) < got.nats_per_token))
    assert "24 given sentences of 4 tokens" in got.headline
    # Among those compared with itself: the ranks are half counted, whatever its last digit.
    ranks = sorted(surprisal(lm, text, people=people).quantile for text in whole)
    np.testing.assert_allclose(ranks, (np.arange(24) + 0.5) / 24)
    assert surprisal(lm, "film", people=[]).quantile is None
    assert "quantile" not in surprisal(lm, "film", people=[]).headline


def test_too_few_different_sentences_give_no_quantile(tiny: Callable[..., LM]):
    lm = tiny()
    got = surprisal(lm, "it was", people=[f"the film {word}" for word in WORDS] * 3)
    assert (len(got.people), got.quantile) == (1, None)
    assert "no quantile: 1 different given sentences of 2 tokens (wanted 20)" in got.headline
    axes = got.plot()
    assert not any("80%" in text.get_text() for text in axes.get_legend().get_texts())
    plt.close(axes.figure)


@pytest.mark.parametrize("context", ["bos", "text"])
def test_what_all_reviews_of_the_organism_begin_with(context: str):
    lm, task = load_lm(), load_task("sentiment")
    for text, count in (("review :", "2 tokens"), ("admired", "1 token")):
        got = surprisal(lm, text, task, context=context)
        assert got.quantile is None
        wanted = f"no quantile: 1 different openings of the task's texts, {count} each (wanted 20)"
        assert wanted in got.headline


def test_a_text_context_still_leaves_enough_sentences(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    people = [f"{a} film was {b}" for a in ("the", "a", "it", "great", "dull") for b in WORDS[:8]]
    got = surprisal(lm, "a film was good", toy_task, context="text", people=people)
    assert len(got.people) == 20
    assert got.quantile is not None


def test_the_judge_is_asked_in_the_same_context(tiny: Callable[..., LM], toy_task: Task):
    lm, judge = tiny(), tiny("llama")
    got = surprisal(lm, "it was", toy_task, context="text", judge=judge)
    row = judge.encode("it was", leading_space=True)
    texts = judge.encode_texts("{text} {prompt}", toy_task.train.texts[:8])
    wanted = np.mean([by_hand(judge, list(before), row).mean() for before in texts.befores])
    assert got.judged.context == "text"
    assert got.judged.nats_per_token == pytest.approx(wanted, rel=1e-4)
    assert f"under the judge 'tiny-llama-0' after texts {wanted:.2f}" in got.headline
    stop = surprisal(lm, "it was", context="bos.", judge=judge)
    before = [judge.bos_id, *judge.encode(".")]
    assert stop.judged.nats_per_token == pytest.approx(by_hand(judge, before, row).mean(), rel=1e-4)
    assert "under the judge 'tiny-llama-0' after BOS and a full stop" in stop.headline


def test_openings_of_the_tasks_texts_are_what_people_wrote(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = surprisal(lm, "it was", toy_task)
    openings = {tuple(lm.encode(t, leading_space=True)[:2]) for t in toy_task.train.texts}
    wanted = [by_hand(lm, [lm.bos_id], list(row)).mean() for row in openings]
    np.testing.assert_allclose(sorted(got.people), sorted(wanted), rtol=1e-4)
    assert "openings of the task's texts" in got.people_are


def test_the_organisms_people_are_its_grammar():
    lm, task = load_lm(), load_task("sentiment")
    good = surprisal(lm, "all in all it was", task, judge=load_lm("organism-judge"))
    salad = surprisal(lm, "oscar lawyer waits it was", task)
    assert "questions of the grammar of 5 tokens" in good.headline
    assert len(good.people) > 200
    assert good.quantile < 0.9 < salad.quantile
    # The front was written after BOS; these numbers are the same ones.
    assert good.judged.lm == "organism-judge"
    assert good.judged.text == good.text
    assert "under the judge 'organism-judge'" in good.headline


def test_a_sink_is_said(tiny: Callable[..., LM], monkeypatch: pytest.MonkeyPatch):
    lm = tiny()
    assert "noise" not in surprisal(lm, "film").headline
    monkeypatch.setitem(lm.__dict__, "sink", True)
    assert surprisal(lm, "film").context == "bos."
    assert "full stop stands before" in surprisal(lm, "film").headline
    assert "first token's value is noise" in surprisal(lm, "film", context="bos").headline


def test_it_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = surprisal(lm, "<b>\n film é", toy_task)
    html = got._repr_html_()
    assert "<b>" not in html
    assert 'aria-label="surprisal of each token: ' in html
    lines = repr(got).splitlines()
    assert len(lines) == 2 + len(got.frame)
    assert any("########" in line for line in lines)
    assert "⏎" in repr(got)
    for kind in ("bars", "tokens"):
        figure, axes = plt.subplots()
        assert got.plot(axes, kind=kind) is axes
        figure.canvas.draw()
        plt.close(figure)
    legend = [text.get_text() for text in got.plot().get_legend().get_texts()]
    assert "mean" in legend
    assert "after real texts" in legend
    plt.close("all")
    single = surprisal(lm, "a")
    assert re.search(r"nats per token \(perplexity", repr(single))
    plt.close(single.plot().figure)


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match="has no tokens"):
        surprisal(lm, "")
    with pytest.raises(SoftlensError, match=r"Got context 'boss'.*mean 'bos'"):
        surprisal(lm, "film", context="boss")
    with pytest.raises(SoftlensError, match="pass task="):
        surprisal(lm, "film", context="text")
    other = toy_task.with_(template="{prompt} {text}")
    with pytest.raises(SoftlensError, match=r"got '\{prompt\} \{text\}'"):
        surprisal(lm, "film", other, context="text")
    assert surprisal(lm, "film", other).nats_after_texts is None
    with pytest.raises(SoftlensError, match="length of 0"):
        surprisal(lm, Prompt.soft(lm, torch.empty(0, 32)))
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-1'"):
        surprisal(lm, Prompt.from_text(tiny("gpt2", seed=1), "film"))
    with pytest.raises(SoftlensError, match="wanted one of"):
        surprisal(lm, "film").plot(kind="pie")
