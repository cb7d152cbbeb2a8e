"""What a prompt may not hold."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from softlens import SoftlensError, Split, Task, load_lm, load_task, tune
from softlens.constraints import allowed_tokens
from softlens.lm import LM


@pytest.fixture(scope="module")
def organism() -> LM:
    return load_lm()


def banned(lm: LM, task: Task, ban: Any) -> set[str]:
    """The texts of ordinary tokens that `ban` takes away."""
    kept = allowed_tokens(lm, task, ban)
    return {lm.token(i) for i in lm.ordinary_ids.tolist() if not kept[i]}


def ids_of(lm: LM, texts: Iterable[str]) -> list[int]:
    return [lm.encode(text)[0] for text in texts]


def test_special_and_unused_tokens_are_never_allowed(any_lm: LM, toy_task: Task):
    allowed = allowed_tokens(any_lm, toy_task)
    assert allowed.shape == (any_lm.vocab_size,)
    assert allowed.dtype == torch.bool
    assert not allowed[any_lm.bos_id]
    left_out = any_lm.special_ids | any_lm.unused_ids
    assert int(allowed.sum()) == any_lm.vocab_size - len(left_out)


def test_labels_with_their_variants(tiny: Callable[..., LM], toy_task: Task, organism: LM):
    lm = tiny()
    got = banned(lm, toy_task, "labels")
    assert {" great", " terrible", "great", "terrible"} & got == got & {
        lm.token(i) for i in lm.ordinary_ids.tolist() if "great" in lm.token(i)
    } | {lm.token(i) for i in lm.ordinary_ids.tolist() if "terrible" in lm.token(i)}
    assert " great" in got
    # Pieces that are most of a word are it as well; short beginnings are not.
    assert all(
        token.strip().lower() in "terrible great" and len(token.strip()) > 3 for token in got
    )
    assert " good" not in got
    assert "t" not in got

    task = load_task("sentiment")
    assert {"great", "terrible"} <= banned(organism, task, "labels")
    assert banned(organism, task, ["labels"]) == banned(organism, task, "labels")
    assert len(banned(organism, task, "labels")) < 10


def test_inflections_and_casings_of_a_label():
    from softlens.constraints import _names

    words = ["terrible", "great", "bad"]
    for same in (" terrible", "Terrible", " TERRIBLE", " terribly", " terribles", " terrib",
                 "greater", " Greatest", "bad", " Bad"):  # fmt: skip
        assert _names(same, words), same
    for other in (" terra", "ter", " gre", " grew", " badge", "a", " ", ""):
        assert not _names(other, words), other
    short = ["bad", "sad", "war", "big", "tie", "yes", "no"]
    for same in (" badly", "Baddest", " badness", " sadly", " sadder", " wars", " warring",
                 " bigger", "biggest", " ties", " tied", " Yes"):  # fmt: skip
        assert _names(same, short), same
    for other in (" badge", " Baden", " saddle", " warm", " ward", " bigot", " yesterday", " not",
                  " now", " nod", " tier ii", "'s", ""):  # fmt: skip
        assert not _names(other, short), other


def test_control_is_layout(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = banned(lm, toy_task, "control")
    assert {"\n", "-", "*", "#", "\t"} <= got
    assert not got & {" film", "film", " the", "a", "was"}
    kept = allowed_tokens(lm, toy_task, "control")
    for i in kept.nonzero()[:, 0].tolist():
        assert lm.token(i).strip().isprintable()
        assert "\n" not in lm.token(i)


def test_pieces_leave_whole_words(tiny: Callable[..., LM], toy_task: Task, organism: LM):
    lm = tiny()
    kept = allowed_tokens(lm, toy_task, "pieces")
    texts = {lm.token(i) for i in kept.nonzero()[:, 0].tolist()}
    assert {" film", " was", " good", " bad"} <= texts
    words = {word for text in (*toy_task.train.texts, *toy_task.readable) for word in text.split()}
    assert {text.strip() for text in texts} <= words
    # Where a token is a word there is nothing to take away.
    assert banned(organism, load_task("topic"), "pieces") == set()


def test_a_word_that_is_mostly_cut_is_a_piece(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    cut = tuple(f"filmx film{i} good" for i in range(12)) + ("film good",) * 0
    task = replace(toy_task, train=Split(cut, (0, 1) * 6), readable=(), unlabelled=())
    kept = allowed_tokens(lm, task, "pieces")
    assert not kept[lm.encode(" film")[0]]
    assert kept[lm.encode(" good")[0]]


def test_single_tokens_and_ids(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    assert banned(lm, toy_task, (" film",)) == {" film"}
    assert banned(lm, toy_task, [" film", 70, "\n"]) == {" film", lm.token(70), "\n"}
    # A word that stands only with its space is meant with it.
    word = next(
        w
        for w in ("overall", "story", "film")
        if len(lm.encode(w)) > 1 and len(lm.encode(" " + w)) == 1
    )
    assert banned(lm, toy_task, word) == {" " + word}
    both = banned(lm, toy_task, ["labels", "control", " film"])
    assert both == banned(lm, toy_task, "labels") | banned(lm, toy_task, "control") | {" film"}


def test_bans_that_are_none(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match=r"Got 'lables' to ban: .*Did you mean 'labels'"):
        allowed_tokens(lm, toy_task, "lables")
    with pytest.raises(SoftlensError, match=r"'the film was' .*nor one token.*token by token"):
        allowed_tokens(lm, toy_task, ["the film was"])
    for index in (-1, 320, 10_000):
        with pytest.raises(SoftlensError, match=rf"token id {index} to ban, wanted 0 to 319"):
            allowed_tokens(lm, toy_task, [index])
    shown = r"ban= of 320 entries \(0, 1, 2, 3, 4, \.\.\.\) leaves no token of 'tiny-gpt2-0'.*fewer"
    with pytest.raises(SoftlensError, match=shown) as raised:
        allowed_tokens(lm, toy_task, list(range(320)))
    assert len(str(raised.value)) < 150


def test_every_tuner_says_the_same_of_a_ban(tiny: Callable[..., LM], toy_task: Task):
    for method in ("soft", "pez", "fluentprompt", "gcg"):
        with pytest.raises(SoftlensError, match=r"leaves no token"):
            tune(tiny(), toy_task, method, length=3, steps=1, ban=tuple(range(320)))
        with pytest.raises(SoftlensError, match=r"mean 'control'"):
            tune(tiny(), toy_task, method, length=3, steps=1, ban="controll")


@pytest.mark.real
def test_on_a_real_vocabulary(smollm2: LM):
    task = load_task("reviews")
    kept = allowed_tokens(smollm2, task, ("labels", "control", "pieces"))
    texts = {smollm2.token(i) for i in kept.nonzero()[:, 0].tolist()}
    labels = {word.lower() for word in task.label_words}
    assert not any(text.strip().lower() in labels for text in texts)
    assert not any("\n" in text for text in texts)
    assert {" film", " movie", " the", " is"} <= texts
    # A word has a token with its space and one without: both are the word.
    assert banned(smollm2, task, "good") == {"good", " good"}
    assert banned(smollm2, task, " good") == {" good"}
    assert 500 < len(texts) < 15_000
