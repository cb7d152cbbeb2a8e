"""What a prompt does on another LM: texts with their own tokens there, vectors through a bridge."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import softlens as sl
from softlens import Prompt, Reading, SoftlensError, Task
from softlens.lm import LM
from softlens.readings.base import Expert
from softlens.shared_tokens import _shared, carried
from tests.conftest import WORDS
from tests.families import save_family


def word_lm(words: tuple[str, ...] = WORDS, name: str = "words", width: int = 16) -> LM:
    """An LM whose tokens are whole words, and one for all words that it does not know."""
    vocabulary = {word: i for i, word in enumerate(("<s>", "[UNK]", *words))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="[UNK]")
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_embd=width, n_layer=2, n_head=2, n_positions=64
    )
    return LM(GPT2LMHeadModel(config), tokenizer, name=name)


def test_a_text_is_scored_on_each_lm_beside_its_controls(tiny: Callable[..., LM], toy_task: Task):
    source, other, words = tiny("gpt2"), tiny("llama"), word_lm()
    result = sl.transfer("overall it zounds was", source, [other, words], toy_task)
    frame = result.frame.set_index(["lm", "scored"])
    for lm in (source, other, words):
        wanted = sl.evaluate(lm, toy_task, "overall it zounds was")
        row = frame.loc[lm.name, "re-tokenised text"]
        assert row["accuracy"] == pytest.approx(wanted.accuracy)
        assert row["label_mass"] == pytest.approx(wanted.label_mass)
        assert row["low"] <= row["accuracy"] <= row["high"]
        own = sl.evaluate(source, toy_task, "overall it zounds was").frame["predicted"]
        assert row["agreement"] == pytest.approx((own == wanted.frame["predicted"]).mean())
        beside = sl.controls(lm, toy_task, int(row["length"]))
        assert frame.loc[lm.name, "empty prompt"]["accuracy"] == pytest.approx(
            beside.empty.accuracy
        )
        mean = sum(e.accuracy for e in beside.random) / 5
        assert frame.loc[lm.name, "random prompt"]["accuracy"] == pytest.approx(mean)
        assert beside.readable is not None
        assert frame.loc[lm.name, "best readable"]["text"] == beside.readable.prompt_text
    text = frame.xs("re-tokenised text", level="scored")
    assert text["splits_alike"].tolist() == [True, True, False]
    assert text["unknown"].tolist() == [0, 0, 1]
    assert text.loc["words", "length"] == 4 < text.loc["tiny-gpt2-0", "length"]
    assert result.tokens["words"] == ("overall", "it", "[UNK]", "was")
    assert "other pieces, 1 unknown" in repr(result)
    assert "overall it zounds was" in result.headline
    assert result.chance == 0.5
    drawn = result.plot()
    shown = [text.get_text() for text in drawn.texts]
    assert {"on tiny-gpt2-0", "on tiny-llama-0", "on words"} <= set(shown)


def test_tokens_that_a_text_does_not_give_back_are_scored_as_found(
    tiny: Callable[..., LM], toy_task: Task
):
    source = tiny("gpt2")
    ids = [*source.encode(" f"), *source.encode("ilm")]
    reading = Reading.from_ids(source, ids, "found")
    assert not reading.round_trip
    frame = sl.transfer(reading, source, tiny("llama"), toy_task).frame
    assert frame["scored"].tolist()[:2] == ["tokens as found", "re-tokenised text"]
    exact = sl.evaluate(source, toy_task, Prompt.from_ids(source, ids))
    assert frame["accuracy"][0] == pytest.approx(exact.accuracy)
    assert frame["length"][0] == len(ids)
    assert frame["agreement"][0] == 1
    assert (frame[frame["lm"] == "tiny-llama-0"]["scored"] != "tokens as found").all()


def linear_copy(lm: LM) -> LM:
    """The same LM in another basis of its embedding: rows are multiplied by a matrix."""
    model = copy.deepcopy(lm.model)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(2)))[0]
    rows: Any = model.get_input_embeddings()
    rows.weight.data = rows.weight.data @ basis
    made = LM(model, lm.tokenizer, name="in another basis")
    made.memo["basis"] = basis
    return made


def test_of_a_mixture_the_heaviest_text_goes_alone_and_it_says_so(
    tiny: Callable[..., LM], toy_task: Task
):
    source, other = tiny("gpt2"), tiny("llama")
    light, heavy = (
        Expert(text, tuple(source.encode(text, True)), weight, weight, weight)
        for text, weight in (("in short it was", -0.4), ("overall it was", 1.2))
    )
    mixture = dataclasses.replace(
        Reading.from_text(source, "overall it was", task=toy_task),
        method="mixture",
        experts=(heavy, light),
    )
    moved = sl.transfer(mixture, source, other, toy_task)
    alone = sl.transfer("overall it was", source, other, toy_task)
    assert moved.text is not None
    assert moved.text.strip() == "overall it was"
    text = [one.frame.query("scored == 're-tokenised text'") for one in (moved, alone)]
    assert text[0]["accuracy"].tolist() == text[1]["accuracy"].tolist()
    assert (moved.mixed, alone.mixed) == (2, 1)
    assert "(of a mixture of 2 texts, the heaviest alone)" in moved.headline
    assert "mixture" not in alone.headline


def test_vectors_go_through_shared_tokens(tiny: Callable[..., LM], toy_task: Task):
    source = tiny("gpt2")
    target = linear_copy(source)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    prompt, fit = carried(Prompt.soft(source, vectors), source, target)
    again, _ = carried(Prompt.soft(source, vectors), source, target)
    assert torch.equal(again.vectors, prompt.vectors)
    torch.testing.assert_close(prompt.vectors, vectors @ target.memo["basis"], atol=0.02, rtol=0.02)
    assert fit["found"] == 1
    assert fit["shared"] == len(source.ordinary_ids)
    result = sl.transfer(Prompt.soft(source, vectors), source, target, toy_task)
    soft = result.frame[result.frame["scored"] == "soft prompt"].set_index("lm")
    assert soft.loc[target.name, "accuracy"] == pytest.approx(
        sl.evaluate(target, toy_task, prompt).accuracy
    )
    assert result.maps.to_dict("records") == [{"lm": target.name, **fit}]
    assert result.text is None
    assert "a soft prompt from 'tiny-gpt2-0'" in repr(result)


def test_shared_tokens_agree_on_the_space_before_them(tiny: Callable[..., LM], tmp_path: Path):
    pieces = sl.load_lm(save_family("llama", tmp_path / "llama"))
    for one, other in ((tiny("gpt2"), pieces), (pieces, tiny("gpt2"))):
        shared = [ids.tolist() for ids in _shared(one, other)]
        texts = [(one.token(i), other.token(j)) for i, j in zip(*shared, strict=True)]
        assert all(mine == theirs for mine, theirs in texts)
        starts = {mine.startswith(" ") for mine, _ in texts}
        assert starts == {True, False}
    # Where tokens are whole words, the space is understood.
    ours, theirs = _shared(word_lm(), pieces)
    assert all(pieces.token(i).startswith(" ") for i in theirs.tolist())
    assert "film" in {word_lm().token(i) for i in ours.tolist()}


def test_vectors_are_refused_where_the_bridge_does_not_hold(
    tiny: Callable[..., LM], toy_task: Task
):
    source = tiny("gpt2")
    prompt = Prompt.soft(source, torch.zeros(2, 32))
    with pytest.raises(SoftlensError, match=r"takes only \d+% of \d+ others to themselves"):
        sl.transfer(prompt, source, tiny("gpt2", seed=1), toy_task)
    with pytest.raises(SoftlensError, match=r"share \d+ tokens, and a map from 32 .* needs 64"):
        sl.transfer(prompt, source, word_lm(), toy_task)


def test_transfers_that_make_no_sense(tiny: Callable[..., LM], toy_task: Task):
    source = tiny("gpt2")
    with pytest.raises(SoftlensError, match="Got no target LM"):
        sl.transfer("it was", source, [], toy_task)
    with pytest.raises(SoftlensError, match="is the LM that the prompt is from"):
        sl.transfer("it was", source, source, toy_task)
    twin = word_lm(), word_lm()
    with pytest.raises(SoftlensError, match="Two LMs are called 'words'"):
        sl.transfer("it was", source, twin, toy_task)
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0'"):
        sl.transfer(Prompt.from_text(source, "it"), tiny("llama"), source, toy_task)
    with pytest.raises(SoftlensError, match="is of 'tiny-gpt2-0'"):
        sl.transfer(Reading.from_text(source, "it"), tiny("llama"), source, toy_task)
    with pytest.raises(SoftlensError, match=r"'   ' has no tokens for 'tiny-gpt2-0'"):
        sl.transfer("   ", source, tiny("llama"), toy_task)
    few = dataclasses.replace(toy_task, test=toy_task.test.take(10))
    with pytest.raises(SoftlensError, match="Got 10 texts, and an interval over texts needs"):
        sl.transfer("it was", source, tiny("llama"), few)


def test_a_label_word_of_one_token_here_and_two_there(tiny: Callable[..., LM], toy_task: Task):
    words = word_lm((*WORDS, "gruesome"))
    task = toy_task.with_(label_words=("gruesome", "great"))
    assert len(task.answer_ids(words)) == 2
    with pytest.raises(
        SoftlensError, match=r"'tiny-gpt2-0' cannot be asked 'toy'.*'gruesome' is \d tokens"
    ):
        sl.transfer("it was", words, tiny("gpt2"), task)
