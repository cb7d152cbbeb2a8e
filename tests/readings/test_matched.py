"""Searches for what does as the prompt does: on known texts, and their parts by hand."""

from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import softlens as sl
from softlens import Prompt, SoftlensError, Task
from softlens.behaviour import Probes, kl_from, log_answers
from softlens.lm import LM
from softlens.proposals import Proposals, Setting
from softlens.readings.matched import LEAST, Agreement, match_options, telling

QUICK = {"progress": False, "evaluations": 6000}


@pytest.fixture(scope="module")
def organism() -> LM:
    return sl.load_lm()


@pytest.fixture(scope="module")
def sentiment() -> Task:
    return sl.load_task("sentiment")


def test_it_finds_what_a_known_text_does(organism: LM, sentiment: Task):
    said = "on the whole it was"
    prompt = Prompt.soft(organism, Prompt.from_text(organism, said).vectors)
    found = sl.read(organism, prompt, "matched", sentiment, seed=1, **QUICK)
    assert sl.organism.asks_for(found.text) == "whole"
    assert found.score > 0.99
    frame = found.frame
    assert list(frame.columns) == [
        "text", "kl_vocab", "closed", "nats_per_token", "nats_after_texts", "on_path", "chosen",
        "token_ids",
    ]  # fmt: skip
    assert frame["nats_per_token"].is_monotonic_increasing
    assert frame["chosen"].sum() == 1
    assert found.text == frame.loc[frame["chosen"], "text"].item()
    # Dearer texts on the path are nearer: that is what makes it a path.
    costs = np.maximum(frame["nats_per_token"], frame["nats_after_texts"])
    path = frame[frame["on_path"]].assign(costs=costs).sort_values("costs")
    assert path["kl_vocab"].is_monotonic_decreasing
    assert len(path) > 1
    found.plot()
    plt.close("all")


def test_the_weight_moves_along_the_path(organism: LM, sentiment: Task):
    prompt = Prompt.from_text(organism, "all in all it was")
    free, dear = (
        sl.read(organism, prompt, "matched", sentiment, weight=w, **QUICK) for w in (0.0, 50.0)
    )
    cost = {r.text: r.frame.loc[r.frame["chosen"], "nats_per_token"].item() for r in (free, dear)}
    assert free.text != dear.text
    assert cost[dear.text] < cost[free.text]
    assert dear.score <= free.score


def test_same_seed_same_path(tiny: Callable[..., LM], toy_task: Task):
    prompt = Prompt.from_text(tiny(), "it was great")
    first, second = (
        sl.read(tiny(), prompt, "matched", toy_task, length=3, seed=2, ban=(), **QUICK)
        for _ in range(2)
    )
    assert first.token_ids == second.token_ids
    assert first.frame.equals(second.frame)


@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text}", "{text} {prompt} was"])
def test_every_template(tiny: Callable[..., LM], toy_task: Task, template: str):
    task = toy_task.with_(template=template)
    prompt = Prompt.from_text(tiny(), "it was great")
    found = sl.read(tiny(), prompt, "matched", task, length=2, ban=(), **QUICK)
    assert len(found.token_ids) == 2
    assert found.score > 0


def test_no_label_word_and_no_label_is_used(tiny: Callable[..., LM], toy_task: Task):
    prompt = Prompt.from_text(tiny(), "great great")
    found = sl.read(tiny(), prompt, "matched", toy_task, length=3, ban="labels", **QUICK)
    words = toy_task.answer_ids(tiny())
    assert not {i for row in found.frame["token_ids"] for i in row} & set(words)
    flipped = {
        name: replace(split, labels=tuple(1 - label for label in split.labels))
        for name, split in (("train", toy_task.train), ("dev", toy_task.dev))
    }
    task = replace(toy_task, **flipped)
    again = sl.read(tiny(), prompt, "matched", task, length=3, ban="labels", **QUICK)
    assert again.frame.equals(found.frame)


def test_agreement_is_the_kl_and_is_counted(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    probes = Probes.of(lm, toy_task, 8)
    target = log_answers(lm, [lm.encode(" it was")], probes.search)[0]
    words = torch.tensor(toy_task.answer_ids(lm))
    objective = Agreement(Setting(lm, words[:1]), {})
    objective.know(probes.search, target)
    rows, part = [[3, 4], [5, 6]], probes.search.subset([2, 0, 5])
    scores = objective.word_scores(Proposals.of_ids(objective.setting, rows, part))
    wanted = kl_from(lm, target[[2, 0, 5]], rows, part)
    torch.testing.assert_close(scores[..., 0], wanted)
    assert objective.evaluations == 6
    torch.testing.assert_close(objective.loss(scores, torch.zeros(3)), wanted.mean(dim=1))


def test_a_filler_is_found_in_its_frame(organism: LM, sentiment: Task):
    framed = sentiment.with_(template="{text} {prompt} it was")
    prompt = Prompt.from_text(organism, "on the whole")
    found = sl.read(organism, prompt, "frame", framed, **QUICK)
    assert len(found.token_ids) == 3
    assert sl.organism.asks_for(f"{found.text} it was") == "whole"
    assert list(found.frame["phrase"]) == [f"{text} it was" for text in found.frame["text"]]
    chosen = found.frame[found.frame["chosen"]]
    whole = organism.encode(chosen["phrase"].item())
    nats = sl.lm.token_surprisal(organism, [whole], "bos")[0, 0].mean()
    assert chosen["nats_per_token"].item() == pytest.approx(float(nats), abs=1e-5)


def test_bad_options(organism: LM, sentiment: Task):
    prompt = Prompt.from_text(organism, "on the whole")
    with pytest.raises(SoftlensError, match="has no frame, no words of its own"):
        sl.read(organism, prompt, "frame", sentiment)
    with pytest.raises(SoftlensError, match="Got length 0 of the reading, wanted 1 to 16"):
        sl.read(organism, prompt, "matched", sentiment, length=0)
    with pytest.raises(SoftlensError, match="Got weight=-1.* wanted a weight of at least 0"):
        sl.read(organism, prompt, "matched", sentiment, weight=-1.0)


def test_most_of_a_large_lms_budget_goes_to_candidates(
    tiny: Callable[..., LM], monkeypatch: pytest.MonkeyPatch
):
    lm = tiny()
    small = match_options(lm, 0.3, None)
    assert (small.first, small.finalists, small.evaluations) == (1, 32, 30_000)
    monkeypatch.setattr(LM, "is_small", False)
    large = match_options(lm, 0.3, None)
    assert (large.first, large.finalists, large.evaluations) == (2, 8, 14_400)
    # Without that bound, surprisals are asked of a race's survivors only.
    assert large.most_relevance is None
    assert large.temperature == 1


def test_searched_on_texts_that_tell_a_prompt_apart():
    seldom = torch.tensor([7, 7, 5] + [7] * 60 + [6])
    kept = telling(seldom)
    assert {2, 63} <= set(kept.tolist())
    assert (seldom[kept] == 7).sum() == LEAST
    often = torch.arange(80) % 2
    assert telling(often).tolist() == list(range(80))
    assert telling(torch.zeros(80, dtype=torch.long)).tolist() == list(range(LEAST))
