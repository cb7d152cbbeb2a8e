"""The fast layouts against the plain forward, written out here once more without softlens."""

import re
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from softlens.errors import SoftlensError
from softlens.lm import (
    LM,
    EncodedTexts,
    answer_chunks,
    answer_logits,
    answer_logits_each,
    score_answers,
)
from tests.conftest import tiny_model

TEXTS = ["the film was good", "a bad story and a dull plot it was", "bright"]
TEMPLATES = ["{text} {prompt}", "{text} {prompt} it was", "in short {prompt} {text} it was"]


def by_hand(lm: LM, prompts: torch.Tensor, template: str) -> torch.Tensor:
    """Logits by one unpadded row at a time, through the model's own call."""
    before, after = (part.strip() for part in template.split("{prompt}"))
    logits = []
    for prompt in prompts:
        for text in TEXTS:
            head = [lm.bos_id] + (lm.encode(before.format(text=text)) if before else [])
            tail = lm.encode(after.format(text=text), leading_space=True) if after else []
            embed = lm.model.get_input_embeddings()
            row = torch.cat([embed(torch.tensor(head)), prompt, embed(torch.tensor(tail).long())])
            logits.append(lm.model(inputs_embeds=row[None]).logits[0, -1])
    return torch.stack(logits).view(len(prompts), len(TEXTS), -1)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("length", [1, 4])
def test_logits_and_gradients_equal_the_plain_forward(any_lm: LM, template: str, length: int):
    assert any_lm.path == "fast"
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randn(3, length, any_lm.hidden_size, generator=generator, requires_grad=True)
    got = answer_logits(any_lm, prompts, any_lm.encode_texts(template, TEXTS))
    wanted = by_hand(any_lm, prompts, template)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)

    weights = torch.randn(got.shape, generator=generator)
    (slope,) = torch.autograd.grad((got * weights).sum(), prompts)
    (reference,) = torch.autograd.grad((wanted * weights).sum(), prompts)
    assert (slope - reference).norm() <= 1e-5 * reference.norm()


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_of_many_lengths_and_the_empty_one(any_lm: LM, template: str):
    texts = any_lm.encode_texts(template, TEXTS)
    rows = [[5, 9, 40], [], [7], [8, 8, 3, 2, 1]]
    together = answer_logits(any_lm, rows, texts)
    for row, logits in zip(rows, together, strict=True):
        alone = by_hand(any_lm, any_lm.embed(row)[None], template)[0]
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("template", TEMPLATES)
def test_plain_path_gives_the_same(tiny: Callable[..., LM], template: str):
    fast = tiny("llama")
    texts, rows = fast.encode_texts(template, TEXTS), [[5, 9, 40], [7]]
    wanted = answer_logits(fast, rows, texts)
    fast.path = "plain"
    try:
        torch.testing.assert_close(answer_logits(fast, rows, texts), wanted, rtol=1e-4, atol=1e-5)
    finally:
        fast.path = "fast"


@pytest.mark.parametrize("head", [(), (7, 2)])
def test_prompts_with_nothing_behind_them_answer_at_their_own_ends(
    any_lm: LM, head: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    """Without BOS nothing need stand before a prompt, either; lengths differ all the same."""
    afters = ((), (5, 3)) if head else ((),)
    texts = EncodedTexts((head,) * len(afters), afters, ("",) * len(afters), any_lm.cache)
    rows = [[5, 9, 40], [7], [8, 8, 3, 2, 1], *([[]] if head else [])]
    found = [logits for *_, logits in answer_chunks(any_lm, rows, texts)]
    monkeypatch.setattr(any_lm, "path", "plain")
    torch.testing.assert_close(
        torch.cat(found), answer_logits(any_lm, rows, texts), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_a_row_without_any_token_is_refused(any_lm: LM, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(any_lm, "path", path)
    texts = EncodedTexts(((),), ((),), ("",), any_lm.cache)
    with pytest.raises(SoftlensError, match="a row without a single token.*Give a prompt"):
        answer_logits(any_lm, [[5], []], texts)


def test_scores_in_chunks_equal_scores_at_once(any_lm: LM, monkeypatch: pytest.MonkeyPatch):
    texts = any_lm.encode_texts("{text} {prompt}", [f"{t} {w}" for t in TEXTS for w in ("a", "it")])
    words = torch.tensor([9, 30, 31])
    rows = [[i, i + 1, i + 2] for i in range(9)]
    logits = answer_logits(any_lm, rows, texts)
    monkeypatch.setattr("softlens.lm.answers.CHUNK_TOKENS", 16)
    monkeypatch.setattr("softlens.lm.answers.FOLD_TOKENS", 6)
    scores = score_answers(any_lm, rows, texts, words)
    torch.testing.assert_close(
        scores.log_probs, logits.log_softmax(-1)[..., words], rtol=1e-4, atol=1e-5
    )
    assert torch.equal(scores.top_ids, logits.argmax(-1))


def test_words_are_columns_of_the_whole(any_lm: LM):
    texts = any_lm.encode_texts("{text} {prompt}", TEXTS)
    words = torch.tensor([31, 9])
    whole = answer_logits(any_lm, [[4, 5]], texts)
    torch.testing.assert_close(answer_logits(any_lm, [[4, 5]], texts, words), whole[..., words])


@pytest.mark.parametrize("limit", [0, 3000, 1 << 30])
def test_streamed_and_evicted_texts_score_the_same(
    tiny: Callable[..., LM], limit: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="softlens")
    lm, small = tiny("gpt2"), tiny("gpt2", cache_memory=limit)
    wanted = answer_logits(lm, [[4, 5]], lm.encode_texts("{text} {prompt}", TEXTS))
    for _ in range(2):
        texts = small.encode_texts("{text} {prompt}", TEXTS)
        torch.testing.assert_close(answer_logits(small, [[4, 5]], texts), wanted)
        assert small.cache.used <= limit
    total = small.cache.estimate(texts.befores)
    assert ("streamed" in caplog.text) == (total > limit)
    assert small.cache.used == (0 if total > limit else total)


def test_bits_do_not_depend_on_what_was_asked_before(bpe_tokenizer: PreTrainedTokenizerFast):
    many = [f"{text} {word}" for text in TEXTS for word in ("a", "it", "was", "dull")]
    results = []
    for asked_before in ([], [3, 7, 5]):
        lm = LM(tiny_model("llama").bfloat16(), bpe_tokenizer, name="fresh")
        texts = lm.encode_texts("{text} {prompt}", many)
        for index in asked_before:
            answer_logits(lm, [[4, 5]], texts.subset([index]))
        answer_logits(lm, [[6]], lm.encode_texts("{text} {prompt}", many[:2]))
        results.append(answer_logits(lm, [[4, 5]], texts))
    assert torch.equal(*results)


def test_a_second_use_of_the_cache_changes_nothing(any_lm: LM):
    texts = any_lm.encode_texts("{text} {prompt}", TEXTS)
    first = answer_logits(any_lm, [[4, 5]], texts)
    answer_logits(any_lm, [[6, 7, 8]], texts)
    assert torch.equal(answer_logits(any_lm, [[4, 5]], texts), first)


def test_vectors_of_another_width_are_refused(tiny: Callable[..., LM]):
    lm = tiny()
    texts = lm.encode_texts("{text} {prompt}", TEXTS)
    with pytest.raises(SoftlensError, match=r"shape \(2, 7\), wanted \(length, 32\)"):
        answer_logits(lm, torch.zeros(1, 2, 7), texts)
    with pytest.raises(SoftlensError, match=r"token ids \[999\], wanted 0 to 319"):
        answer_logits(lm, [[999]], texts)
    with pytest.raises(SoftlensError, match="Got no prompts"):
        answer_logits(lm, [], texts)
    with pytest.raises(SoftlensError, match="exceed the 128 positions"):
        answer_logits(lm, [[1] * 127], texts)


def test_texts_that_are_empty_or_too_long_are_named(tiny: Callable[..., LM]):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Text 1 is empty"):
        lm.encode_texts("{text} {prompt}", ["the film", "  "])
    long = " ".join(["film"] * 200)
    with pytest.raises(SoftlensError, match=r"Text 0 is too long: .* truncate=True"):
        lm.encode_texts("{text} {prompt}", [long], reserve=4)
    for template in ("{text} {prompt}", "{prompt} {text} it was"):
        cut = lm.encode_texts(template, [long + " dull"], reserve=4, truncate=True)
        assert cut.longest == 124
        assert cut.befores[0][0] == lm.bos_id
        assert "dull" in lm.decode([*cut.befores[0], *cut.afters[0]])
    with pytest.raises(SoftlensError, match="Got no texts"):
        lm.encode_texts("{text} {prompt}", [])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("template", "kept"),
    [
        ("a story : {text} {prompt}", "a story :( film)+"),
        ("a story : {text} it was {prompt} so", "a story :( film)+ it was so"),
        ("{prompt} a story : {text} it was", " a story :( film)+ it was"),
        ("in {prompt} a story:{text}", "in a story:( film)+"),
    ],
)
def test_the_templates_words_stay_where_a_text_is_cut(
    tiny: Callable[..., LM], template: str, kept: str, bos: bool
):
    lm = tiny("gpt2", bos=bos)
    texts = ["good film", " ".join(["bad"] * 100 + ["film"] * 130)]
    rows = lm.encode_texts(template, texts, reserve=4, truncate=True)
    whole = lm.encode_texts(template, texts[:1])
    assert (rows.befores[0], rows.afters[0]) == (whole.befores[0], whole.afters[0])
    assert rows.befores[1][: len(lm.start)] == lm.start
    ids = [*rows.befores[1][len(lm.start) :], *rows.afters[1]]
    assert re.fullmatch(kept, lm.decode(ids))
    assert rows.longest == 124
    fixed = len(whole.befores[0]) + len(whole.afters[0]) - len(lm.encode(" good film"))
    for room in (1, 0):
        cut = lm.encode_texts(template, texts, reserve=128 - fixed - room, truncate=True)
        assert cut.longest == fixed + room
    with pytest.raises(
        SoftlensError, match=f"Text 0 .*: without a word of it, {fixed} tokens of the template"
    ):
        lm.encode_texts(template, texts, reserve=129 - fixed, truncate=True)


@pytest.mark.parametrize("template", ["{text} {prompt}", "{text} {prompt} so", "{prompt} {text}"])
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_each_text_with_prompts_of_its_own(any_lm: LM, template: str, path: str, monkeypatch):
    monkeypatch.setattr(any_lm, "path", path)
    texts = any_lm.encode_texts(template, ["the film was good", "dull"], reserve=4)
    prompts = torch.randn(2, 3, 4, any_lm.hidden_size, generator=torch.Generator().manual_seed(5))
    prompts.requires_grad_()
    got = answer_logits_each(any_lm, prompts, texts)
    for t in range(2):
        wanted = answer_logits(any_lm, prompts[t], texts.subset([t]))[:, 0]
        torch.testing.assert_close(got[t], wanted, rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(got[0].sum(), prompts)
    assert slope[0].abs().sum() > 0
    assert slope[1].abs().sum() == 0
