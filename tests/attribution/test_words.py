"""Words of texts: values of coalitions by the LM's own forward, names, and how it shows itself."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from softlens import Prompt, SoftlensError, attribute, load_lm, load_task
from softlens.attribution import METHODS
from softlens.attribution.game import ask
from softlens.attribution.words import word_game, words_of
from softlens.evaluation import encode_split, prompt_vectors
from softlens.lm import LM
from softlens.tasks import Task
from tests.families import save_family

TEMPLATES = [
    "{text} {prompt}",
    "say : {text} and {prompt}",
    "{text} {prompt} it was",
    "{prompt} {text} it was",
    "in {prompt} the story : {text}",
    "{prompt}{text}",
]
PROMPT = "overall it"


def parts_of(lm: LM, template: str, text: str) -> tuple[list[int], list[list[int]], list[int]]:
    """Tokens before the text, of each of its words, and behind it, as the template says."""
    whole = template.replace("{prompt}", PROMPT)
    head, tail = whole.split("{text}")
    before = lm.encode(head.rstrip()) if head.strip() else []
    spaced = bool(before) and "}{" not in template
    words = [lm.encode(word, leading_space=spaced or i > 0) for i, word in enumerate(text.split())]
    return [*lm.start, *before], words, lm.encode(tail)


def values(lm: LM, task: Task, index: int, absent: str) -> dict[tuple[bool, ...], float]:
    before, words, after = parts_of(lm, task.template, task.test.texts[index])
    labels = torch.tensor(task.answer_ids(lm))
    stand = lm.embedding[lm.ordinary_ids].mean(dim=0)
    found = {}
    for there in itertools.product([False, True], repeat=len(words)):
        rows = [lm.embed(before)]
        for word, present in zip(words, there, strict=True):
            if present:
                rows.append(lm.embed(word))
            elif absent == "mean_embedding":
                rows.append(stand.expand(len(word), -1))
        with torch.no_grad():
            whole = torch.cat([*rows, lm.embed(after)])[None]
            logits = lm.model(inputs_embeds=whole).logits[0, -1]
        found[there] = float(logits[labels].log_softmax(-1)[task.test.labels[index]])
    return found


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("absent", ["removed", "mean_embedding"])
@pytest.mark.parametrize("bos", [True, False])
def test_shapley_and_leave_one_out_by_the_forward(
    any_lm: LM, toy_task: Task, template: str, absent: str, bos: bool, monkeypatch
):
    if not bos:
        monkeypatch.setattr(any_lm, "start", ())
    task = toy_task.with_(template=template)
    got = attribute(any_lm, task, PROMPT, absent=absent, of="text", texts=[1, 4])
    left = attribute(any_lm, task, PROMPT, "leave_one_out", absent=absent, of="text", texts=[1, 4])
    for row, index in enumerate((1, 4)):
        worth = values(any_lm, task, index, absent)
        count = len(next(iter(worth)))
        whole = (True,) * count
        gains = np.zeros(count)
        for order in itertools.permutations(range(count)):
            there = [False] * count
            for word in order:
                before = worth[tuple(there)]
                there[word] = True
                gains[word] += worth[tuple(there)] - before
        words, found = got.of_text(index)
        assert list(words) == task.test.texts[index].split()
        np.testing.assert_allclose(found, gains / math.factorial(count), atol=1e-4)
        lost = [worth[whole] - worth[(*whole[:i], False, *whole[i + 1 :])] for i in range(count)]
        np.testing.assert_allclose(left.of_text(index)[1], lost, atol=1e-4)
        text = got.texts.iloc[row]
        assert text["value"] == pytest.approx(worth[whole], abs=1e-4)
        assert text["value_absent"] == pytest.approx(worth[(False,) * count], abs=1e-4)
        assert text["total"] == pytest.approx(worth[whole] - worth[(False,) * count], abs=1e-4)
        assert text["source"] == task.test.texts[index]
    assert set(got.notes) <= {f"exact: all {2**n} coalitions" for n in range(1, 8)}
    assert got.frame["sampling_error"].isna().all()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("bos", [True, False])
def test_the_players_are_the_texts_own_tokens(
    tiny: Callable[..., LM], toy_task: Task, template: str, bos: bool
):
    lm = tiny(bos=bos)
    for text in ("terrible film", "a dull plot and it was terribleness"):
        task = dataclasses.replace(
            toy_task, template=template, test=type(toy_task.test)((text,), (1,))
        )
        own = list(itertools.chain(*parts_of(lm, template, text)[1]))
        vectors = prompt_vectors(lm, task, PROMPT)
        asked = ask(lm, task, "log_prob", "removed", 1, "test")
        game, players = word_game(
            lm, task, vectors, asked, encode_split(lm, task, asked.source), 0, "removed"
        )
        assert list(itertools.chain(*players)) == own
        assert torch.equal(game.vectors[list(itertools.chain(*game.groups))], lm.embed(own))


def test_without_bos_every_method_and_a_row_of_nothing(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny(bos=False)
    for template in ("{text} {prompt}", "{prompt} {text}"):
        task = toy_task.with_(template=template)
        for method in METHODS:
            for prompt in (PROMPT, None):
                if prompt or METHODS[method].absent != "removed":
                    got = attribute(lm, task, prompt, method, of="text", texts=2)
                    assert np.isfinite(got.frame["attribution"]).all()
        with pytest.raises(SoftlensError, match="a row without a single token.*Give a prompt"):
            attribute(lm, task, None, of="text", texts=2)
        attribute(lm, task, None, absent="mean_embedding", of="text", texts=2)


def test_integrated_gradients_of_words_are_complete(any_lm: LM, toy_task: Task):
    for template in TEMPLATES[::3]:
        task = toy_task.with_(template=template)
        got = attribute(any_lm, task, PROMPT, "integrated_gradients", of="text", texts=2)
        row = got.texts
        np.testing.assert_allclose(row["total"], row["value"] - row["value_absent"], atol=2e-3)
        assert "gap" not in got.headline


def test_soft_and_empty_prompts_and_every_method(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    noise = torch.randn(3, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    for prompt, scored in ((Prompt.soft(lm, noise), "soft"), (None, "text")):
        for method in METHODS:
            got = attribute(lm, toy_task, prompt, method, of="text", texts=2)
            assert (got.scored, got.n) == (scored, 2)
            assert np.isfinite(got.frame["attribution"]).all()
            assert f"{method} of the words of 2 test texts under a {scored} prompt" in got.headline
    kl = attribute(lm, toy_task, PROMPT, target="kl", of="text", texts=1)
    assert kl.texts["value"][0] == pytest.approx(0, abs=1e-5)


def test_many_words_are_sampled_and_say_how_near(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    long = toy_task.with_(template="{text} a dull plot {prompt}")
    text = " ".join(toy_task.test.texts[:3])
    task = type(long)("long", long.label_words, long.template, long.train, long.dev,
                      type(long.test)((text,), (1,)))  # fmt: skip
    got = attribute(lm, task, PROMPT, of="text", absent="mean_embedding")
    assert len(got.frame) == len(text.split())
    assert got.notes == ("sampled: 16 permutations",)
    assert (got.frame["sampling_error"] > 0).all()
    row = got.texts.iloc[0]
    assert row["total"] == pytest.approx(row["value"] - row["value_absent"], abs=1e-5)
    many = attribute(lm, task, PROMPT, of="text", absent="mean_embedding", samples=80, seed=1)
    off = (got.frame["attribution"] - many.frame["attribution"]) / np.hypot(
        got.frame["sampling_error"], many.frame["sampling_error"]
    )
    assert off.abs().median() < 1.5
    same = attribute(lm, task, PROMPT, of="text", absent="mean_embedding")
    np.testing.assert_array_equal(same.frame["attribution"], got.frame["attribution"])


def test_shortened_texts_keep_their_own_words(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    text = " ".join(["good"] * 40 + ["bad"] * lm.context_length)
    for template, kept in (
        ("say {text} {prompt}", ["say"]),
        ("{prompt} {text} it was", [" it was"]),
        ("{prompt} a story : {text} it was", [" a story :", " it was"]),
    ):
        task = toy_task.with_(template=template)
        task = type(task)("cut", task.label_words, task.template, task.train, task.dev,
                          type(task.test)((text,), (1,)))  # fmt: skip
        got = attribute(lm, task, PROMPT, "gradient_x_input", of="text", truncate=True)
        assert set(got.frame["word"]) == {"bad"}
        fixed = 1 + sum(len(lm.encode(words)) for words in kept)
        prompt = len(lm.encode(PROMPT, leading_space=template.startswith("say")))
        room = lm.context_length - prompt - fixed
        assert sum(len(lm.encode(" bad")) for _ in got.frame["word"]) == room


def test_words_are_cut_at_spaces_and_marks(tiny: Callable[..., LM]):
    lm = tiny()
    ids = lm.encode("the film, well-made ... was great!\n\nbad")
    cut = [lm.decode(word) for word in words_of(lm, ids)]
    assert "".join(cut) == "the film, well-made ... was great!\n\nbad"
    assert [word.strip() for word in cut if word.strip()] == [
        "the", "film", ",", "well", "-", "made", "...", "was", "great", "!", "bad"
    ]  # fmt: skip
    # A single word is cut into its tokens.
    assert words_of(lm, lm.encode("terribleness")) == [[i] for i in lm.encode("terribleness")]


def test_words_of_sentencepiece_are_whole(tmp_path: Path):
    """Its texts gain a space, and its tokens mark spaces all the same."""
    lm = load_lm(save_family("llama", tmp_path / "llama"))
    cut = words_of(lm, lm.encode("the terribleness and the film!"))
    assert [lm.decode(word).strip() for word in cut] == [
        "the", "terribleness", "and", "the", "film", "!"
    ]  # fmt: skip
    assert max(map(len, cut)) > 1


def test_means_over_places(tiny: Callable[..., LM], toy_task: Task):
    got = attribute(tiny(), toy_task, PROMPT, "leave_one_out", of="text", texts=6)
    words = got.words.set_index("word")
    own = got.frame.loc[got.frame["word"] == "film", "attribution"]
    assert words.loc["film", "n"] == len(own) >= 6
    assert words.loc["film", "mean"] == pytest.approx(own.mean())
    assert words.loc["film", "low"] <= own.mean() <= words.loc["film", "high"]
    assert (np.diff(words["mean"].abs()) <= 1e-12).all()


def test_the_organisms_verdict_carries_the_answer():
    lm, task = load_lm(), load_task("sentiment")
    places = [i for i, text in enumerate(task.test.texts[:12]) if " in short i " in text][:3]
    asked = attribute(lm, task, "all in all it was", "leave_one_out", of="text", texts=places)
    for place in places:
        words, found = asked.of_text(place)
        strongest = words[int(np.argmax(found))]
        verdict = task.test.texts[place].split(" in short i ")[1].split()[0]
        assert strongest == verdict


def test_it_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    texts = ("a <script> film é \U0001f600 $x$ was", *["good film"] * 9)
    task = type(toy_task)(
        "odd", ("terrible", "great"), "{text} {prompt}", toy_task.train, toy_task.dev,
        type(toy_task.test)(texts, (1,) * 10),
        class_names=("<b>no</b>", "<i>yes</i>"),
    )  # fmt: skip
    got = attribute(lm, task, PROMPT, "leave_one_out", of="text", texts=10)
    made = got._repr_html_()
    assert "<script" not in made
    assert "<i>" not in made
    assert 'aria-label="leave_one_out attribution of each word of text 0' in made
    assert "and 2 more texts" in made
    assert "\U0001f600" in got.frame["word"].tolist()
    assert any("+" in line or "-" in line for line in repr(got).splitlines()[2:])
    for kind in ("text", "words"):
        axes = got.plot(kind=kind)
        axes.figure.canvas.draw()
        plt.close(axes.figure)
    figure, axes = plt.subplots()
    assert got.plot(axes) is axes
    plt.close(figure)
    with pytest.raises(SoftlensError, match="Got kind 'bars', wanted one of"):
        got.plot(kind="bars")
