"""Readings and their registry; the methods that are quick are tested here."""

import copy
from collections.abc import Callable, Iterator
from inspect import unwrap

import matplotlib.pyplot as plt
import pytest
import torch

import softlens as sl
from softlens import Prompt, Reading, SoftlensError, Task
from softlens.lm import LM
from softlens.readings import READERS, Asked, reader
from softlens.readings.frame import frame_of
from softlens.readings.verbalize import CHAT, _frames


@pytest.fixture
def soft(tiny: Callable[..., LM]) -> Prompt:
    lm = tiny()
    noise = torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(4))
    return Prompt.soft(lm, lm.embed(lm.encode(" it was dull")[:3]) + 0.3 * noise)


@pytest.fixture
def longest() -> Iterator[None]:
    """A method that somebody adds in a test: a function and a name."""

    @reader(source="this test", fails="always", needs_task=False)
    def repeated(asked: Asked, *, token: int = 3) -> Reading:
        """The same token at every position."""
        return asked.reading([token] * asked.prompt.length, "repeated", score=1.0, score_unit="one")

    yield
    del READERS["repeated"]


@pytest.mark.usefixtures("longest")
def test_a_new_method_registers_itself(tiny: Callable[..., LM], soft: Prompt):
    lm = tiny()
    found = sl.read(lm, soft, "repeated", token=5)
    assert found.token_ids == (5, 5, 5)
    assert found.method == "repeated"
    listed = sl.reading_methods().set_index("method").loc["repeated"]
    assert listed["what"] == "The same token at every position."
    assert listed["options"] == "token"
    with pytest.raises(SoftlensError, match="'tokn' is no option .* Did you mean 'token'"):
        sl.read(lm, soft, "repeated", tokn=5)


def test_the_methods_say_how_they_fail():
    table = sl.reading_methods()
    assert set(table["method"]) == {"nearest", "matched", "verbalize", "frame", "mixture"}
    assert all(table["fails"].str.len() > 20)
    assert all(table["source"].str.len() > 5)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_nearest_is_the_view(any_lm: LM, metric: str):
    vectors = torch.randn(4, any_lm.hidden_size, generator=torch.Generator().manual_seed(2))
    prompt = Prompt.soft(any_lm, vectors)
    found = sl.read(any_lm, prompt, metric=metric)
    view = sl.nearest_tokens(any_lm, prompt, metric=metric)
    assert found.token_ids == view.token_ids
    assert found.text == view.text
    first = view.frame[view.frame["rank"] == 1]["score"]
    assert found.score == pytest.approx(first.mean())
    assert found.score_unit == f"mean {metric}"
    found.plot()
    plt.close("all")


def test_a_given_text_and_what_does_not_round_trip(tiny: Callable[..., LM]):
    lm = tiny()
    given = Reading.from_text(lm, "it was dull")
    assert given.token_ids == tuple(lm.encode(" it was dull"))
    assert given.round_trip
    letters = [lm.encode(letter)[0] for letter in "the"]
    broken = Reading.from_ids(lm, [lm.encode(" a")[0], *letters], "by hand")
    assert not broken.round_trip
    assert broken.text_ids != broken.token_ids
    assert "typed in, it has other tokens" in repr(broken)
    one = Reading.from_text(lm, "dull")
    assert one.text == " dull"


def test_a_prompt_at_the_front_has_no_leading_space(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    front = toy_task.with_(template="{prompt} {text}")
    assert Reading.from_text(lm, "it was", task=front).token_ids == tuple(lm.encode("it was"))


def test_its_text_is_inert(tiny: Callable[..., LM]):
    lm = tiny()
    ids = [lm.encode(letter)[0] for letter in "<b>\n"]
    found = Reading.from_ids(lm, ids, "by hand")
    assert "<b>" not in found._repr_html_()
    assert "⏎" in repr(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "nearst"}, "Unknown method 'nearst' .* Did you mean 'nearest'"),
        ({"method": "matched"}, "'matched' watches what the prompt does .* pass task="),
        ({"metrik": "l2"}, "'metrik' is no option of the reading 'nearest'"),
    ],
)
def test_bad_calls(tiny: Callable[..., LM], soft: Prompt, change: dict, words: str):
    with pytest.raises(SoftlensError, match=words):
        sl.read(tiny(), soft, **change)


def test_bad_prompts(tiny: Callable[..., LM], soft: Prompt, toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got a str to read, wanted a Prompt"):
        unwrap(sl.read)(lm, "it was")
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0' .* Load the LM"):
        sl.read(tiny("gpt2", 1), soft)
    long = Prompt.soft(lm, torch.randn(128, lm.hidden_size))
    with pytest.raises(SoftlensError, match="Got a prompt of 128 positions, .* has 128"):
        sl.read(lm, long)
    with pytest.raises(SoftlensError, match="The reading is empty"):
        Reading.from_text(lm, "")
    narrow = Prompt(torch.randn(2, 8), soft.lm)
    with pytest.raises(SoftlensError, match=r"shape \(2, 8\), .* width 32"):
        sl.read(lm, narrow)


def test_a_reading_is_in_words_of_its_lm():
    organism = sl.load_lm()
    lacks = "has words that 'organism' does not have:"
    with pytest.raises(
        SoftlensError, match=f"The reading 'Xyzzy it was' {lacks} 'Xyzzy'. Use words"
    ):
        Reading.from_text(organism, "Xyzzy it was")
    with pytest.raises(SoftlensError, match=f"{lacks} 'On', 'The'. In lower case it has them"):
        Reading.from_text(organism, "On The whole it was")
    assert Reading.from_text(organism, "on the whole it was").round_trip
    unknown = organism.tokenizer.unk_token
    as_found = Reading.from_text(organism, f"{unknown} it was")
    assert as_found.token_ids[0] == organism.tokenizer.unk_token_id


def test_a_reading_knows_its_lm(tiny: Callable[..., LM]):
    found = Reading.from_text(tiny(), "it was dull")
    found.check(tiny())
    with pytest.raises(SoftlensError, match="is of .tiny-gpt2-0. .* sl.Reading.from_text"):
        found.check(tiny("gpt2", 1))


def test_frames():
    assert frame_of("{text} in short , {prompt} was") == ("in short ,", "was")
    assert frame_of("{text} {prompt}") == ("", "")
    assert frame_of("so {prompt} was {text} it is") == ("so", "was")


# -- verbalize ----------------------------------------------------------------------------------


def test_verbalize_continues_the_frames(any_lm: LM, toy_task: Task):
    prompt = Prompt.from_text(any_lm, "the film was great")
    found = sl.read(any_lm, prompt, "verbalize", toy_task, length=4, draws=2)
    assert list(found.frame.columns) == ["asked", "text", "nats_per_token", "kl_vocab", "closed"]
    assert {"means", "asks", "repeat"} <= set(found.frame["asked"])
    best = found.frame.loc[found.frame["kl_vocab"].idxmin()]
    assert found.text == best["text"]
    assert found.score == pytest.approx(best["closed"])
    assert 1 <= len(found.token_ids) <= 4
    again = sl.read(any_lm, prompt, "verbalize", toy_task, length=4, draws=2)
    assert again.frame.equals(found.frame)
    found.plot()
    plt.close("all")


def test_verbalize_is_greedy_first(tiny: Callable[..., LM]):
    lm = tiny()
    prompt = Prompt.from_text(lm, "the film was great")
    found = sl.read(lm, prompt, "verbalize", length=3, draws=0, frames=['so "__" is'])
    ids = [lm.bos_id, *lm.encode(' so "'), *prompt.token_ids, *lm.encode('" is', True)]
    left = [lm.bos_id, *lm.encode('so "', True), *prompt.token_ids, *lm.encode('" is', True)]
    assert ids == left
    logits = lm.model(input_ids=torch.tensor([left])).logits[0, -1]
    logits[list(lm.special_ids | lm.unused_ids)] = -torch.inf
    assert found.token_ids[0] == int(logits.argmax())
    assert found.score_unit == "nats per token"


def test_verbalize_asks_an_instructed_lm_in_its_chat_frame(tiny: Callable[..., LM]):
    plain = tiny()
    tokenizer = copy.deepcopy(plain.tokenizer)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for turn in messages %}{{ turn.role }} __ : {{ turn.content }} ."
        "{% endfor %}{% if add_generation_prompt %} it was{% endif %}"
    )
    lm = LM(plain.model, tokenizer, name="tiny instructed")
    prompt = Prompt.from_text(lm, "the film was great")
    found = sl.read(lm, prompt, "verbalize", length=3, draws=0)
    assert "chat" in {name for name, *_ in _frames(lm, None)}
    assert "chat" not in {name for name, *_ in _frames(plain, None)}
    before, after = CHAT.split('"__"')
    sides = {name: (left, right) for name, left, right in _frames(lm, None)}["chat"]
    assert sides == (lm.encode(f'user __ : {before}"'), lm.encode(f'"{after} . it was'))
    row = [
        lm.bos_id, *lm.encode(f'user __ : {before}"'), *(prompt.token_ids or ()),
        *lm.encode(f'"{after} . it was'),
    ]  # fmt: skip
    logits = lm.model(input_ids=torch.tensor([row])).logits[0, -1]
    logits[list(lm.special_ids | lm.unused_ids)] = -torch.inf
    first = lm.token(int(logits.argmax()))
    assert any(text.startswith(first) for text in found.frame["text"])


def test_verbalize_refuses_frames_it_cannot_use():
    organism = sl.load_lm()
    prompt = Prompt.from_text(organism, "all in all it was")
    with pytest.raises(SoftlensError, match="holds '__' 0 times, wanted once"):
        sl.read(organism, prompt, "verbalize", frames=["what is it"])
    with pytest.raises(SoftlensError, match="words that 'organism' does not have"):
        sl.read(organism, prompt, "verbalize", frames=["the meaning of __"])
    found = sl.read(organism, prompt, "verbalize", length=2, draws=1)
    assert set(found.frame["asked"]) == {"repeat"}
