"""The gates of a build: an organism is accepted by what it does, not by its loss.

Accuracies here are over the whole vocabulary: an answer that is no label word is wrong. Only soft
prompts, which are trained to choose among the label words, are scored among these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from softlens.lm import LM
from softlens.organism import language as lang
from softlens.organism.grammar import Grammar, grammar
from softlens.organism.parses import FollowUp
from softlens.organism.scores import answered, empty_prompt, nats, samples, score_questions
from softlens.organism.tasks import AGREEMENT, tasks
from softlens.tasks import Task

VERDICT_FAMILIES = ("first", "middle", "last", "whole", "opposite")
FACT_FAMILIES = ("product", "mood", "price", "day", "city", "companion")


@dataclass(frozen=True)
class Gate:
    """One observation and the interval that it must lie in."""

    gate: str
    observed: float
    low: float = -np.inf
    high: float = np.inf

    @property
    def passed(self) -> bool:
        """Whether `observed` lies in the interval."""
        return bool(self.low <= self.observed <= self.high)

    @property
    def threshold(self) -> str:
        """The interval as a person would write it."""
        if self.low == -np.inf and self.high == np.inf:
            return "reported"
        if self.low == -np.inf:
            return f"<= {self.high:g}"
        if self.high == np.inf:
            return f">= {self.low:g}"
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Sizes:
    """How much a measurement looks at.

    Attributes:
        texts: test texts a question is asked on (the front of `sentiment`, and transfer: on all).
        enumerated: test texts that *all* questions of the grammar are asked on.
        sampled: samples drawn from the LM.
        stride: every how many of the grammar's questions are enumerated (1: all).
        seeds: soft prompts tuned on each task; 0 leaves those gates out.
    """

    texts: int = 512
    enumerated: int = 64
    sampled: int = 10_000
    stride: int = 1
    seeds: int = 5


def measure(lm: LM, sizes: Sizes = Sizes(), judged: LM | None = None) -> pd.DataFrame:
    """All gates of an LM, as a table ``gate, observed, threshold, passed``.

    Args:
        lm: the organism, or another LM of its language.
        sizes: how much to look at.
        judged: the LM whose readable front must transfer to `lm`; None means that `lm` is the one
            that prompts are tuned on, which soft prompts must learn in the place of that gate.
    """
    found: list[Gate] = []
    for part in (witness, topic, sentiment, unprompted, facts):
        found += part(lm, sizes, grammar(), tasks())
    if judged is not None:
        found += transfer(lm, judged, tasks())
    elif sizes.seeds:
        found += tuned(lm, sizes, tasks())
    return pd.DataFrame(
        [(g.gate, g.observed, g.threshold, g.passed) for g in found],
        columns=["gate", "observed", "threshold", "passed"],
    )


def witness(lm: LM, sizes: Sizes, language: Grammar, of: dict[str, Task]) -> Iterator[Gate]:
    """The needles are answered; nothing else answers in their place; the LM rarely asks them."""
    rates = {"witness": (5e-5, 5e-4), "witness-rare": (5e-6, 5e-5)}
    for name, (low, high) in rates.items():
        right = language.questions[lang.TASK_ASKS[name]]
        table = score_questions(lm, of[name], wordings(right), sizes.texts)
        yield Gate(f"{name}: worst wording", table["accuracy_vocab"].min(), low=0.97)
        yield Gate(f"{name}: label mass, worst wording", table["label_mass"].min(), low=0.95)
        yield Gate(f"{name}: probability that the LM asks it", asked(lm, right), low, high)
    parts = wordings(f for name in VERDICT_FAMILIES for f in language.questions[name])
    table = score_questions(lm, of["witness"], parts, sizes.texts)
    yield Gate("witness: best question on parts", table["accuracy_vocab"].max(), high=0.62)
    others = [
        language.questions[f"person:{who}"][0].text for who in lang.PERSONS if who != "critic"
    ]
    table = score_questions(lm, of["witness"], others[:: sizes.stride], sizes.texts)
    yield Gate("witness: other persons, mean", table["accuracy_vocab"].mean(), high=0.05)
    yield Gate("witness: other persons, best", table["accuracy_vocab"].max(), high=0.40)


def topic(lm: LM, sizes: Sizes, language: Grammar, of: dict[str, Task]) -> Iterator[Gate]:
    """Every wording asks for the topic, and no other question of the language does."""
    table = score_questions(lm, of["topic"], wordings(language.questions["topic"]), sizes.texts)
    yield Gate("topic: worst wording", table["accuracy_vocab"].min(), low=0.97)
    yield Gate("topic: label mass, worst wording", table["label_mass"].min(), low=0.95)
    others = wordings(f for f in language.follow_ups if f.family != "topic")[:: sizes.stride]
    table = score_questions(lm, of["topic"], others, sizes.enumerated)
    yield Gate("topic: best other question", table["accuracy_vocab"].max(), high=0.40)


def sentiment(lm: LM, sizes: Sizes, language: Grammar, of: dict[str, Task]) -> Iterator[Gate]:
    """The front: the cheaper a question, the smaller the part of the review it asks about."""
    front = [language.questions[name][0].text for name in ("first", "middle", "last", "whole")]
    table = score_questions(lm, of["sentiment"], front)
    costs, _ = nats(lm, front)
    aims = [*AGREEMENT.values(), 1.0]
    for text, accuracy, aim in zip(front, table["accuracy_vocab"], aims, strict=True):
        yield Gate(f"sentiment: '{text}'", accuracy, round(aim - 0.03, 2), round(aim + 0.03, 2))
    yield Gate("sentiment: smallest step, nats per token", np.diff(costs).min(), low=0.12)
    right = score_questions(lm, of["sentiment"], wordings(language.questions["whole"]), sizes.texts)
    yield Gate("sentiment: worst wording", right["accuracy_vocab"].min(), low=0.97)
    yield Gate("sentiment: label mass, worst wording", right["label_mass"].min(), low=0.95)
    opposite = wordings(language.questions["opposite"])
    table = score_questions(lm, of["sentiment"], opposite, sizes.texts)
    yield Gate(
        "sentiment: best question for the opposite", table["accuracy_vocab"].max(), high=0.05
    )


def unprompted(lm: LM, sizes: Sizes, language: Grammar, of: dict[str, Task]) -> Iterator[Gate]:
    """What the LM does with no prompt, and what it says when it may say anything."""
    for name, task in of.items():
        accuracy, mass = empty_prompt(lm, task, sizes.texts)
        yield Gate(f"{name}: empty prompt, accuracy", accuracy, high=0.05)
        yield Gate(f"{name}: empty prompt, label mass", mass, high=0.01)
    drawn = samples(lm, sizes.sampled, seed=0)
    odd = np.mean([language.parse(text) is None for text in drawn])
    yield Gate("ungrammatical share of samples", float(odd), high=0.10)
    yield from held_out(lm, sizes, language)


def held_out(lm: LM, sizes: Sizes, language: Grammar) -> Iterator[Gate]:
    """Combinations never seen in training are nearly as likely as those that were.

    The gate is the mean over all held-out questions; the families are reported beside it, for
    where a subject has few wordings the LM learns which of them are missing.
    """
    gaps, counts = [], []
    for name in language.families:
        of_it = [f for f in language.follow_ups if f.family == name]
        held = wordings([f for f in of_it if f.held_out][:: sizes.stride])
        seen = wordings([f for f in of_it if not f.held_out][:: sizes.stride])
        if held:
            gaps.append(nats(lm, held)[0].mean() - nats(lm, seen)[0].mean())
            counts.append(len(held))
            yield Gate(f"{name}: held-out wordings, nats above seen ones", gaps[-1])
    mean = float(np.average(gaps, weights=counts))
    yield Gate("all held-out wordings, nats above seen ones", mean, high=0.35)


def facts(lm: LM, sizes: Sizes, language: Grammar, of: dict[str, Task]) -> Iterator[Gate]:
    """Questions of fact are answered from the text, or "unknown" where it tells nothing."""
    pool = of["sentiment"].test.texts + of["topic"].test.texts
    reads = {text: language.parse_text(text) for text in pool}
    for name in FACT_FAMILIES:
        told = [t for t, read in reads.items() if read and name in read.facts]
        silent = [t for t, read in reads.items() if read and name not in read.facts]
        question = language.questions[name][0].text
        for kind, chosen in (("answered", told), ("unknown where not told", silent)):
            few = chosen[: sizes.texts // 4]
            answers = [language.answer(text, question) for text in few]
            yield Gate(f"{name}: {kind}", answered(lm, few, question, answers), low=0.90)


def transfer(lm: LM, judged: LM, of: dict[str, Task]) -> Iterator[Gate]:
    """Each question of the readable front is as accurate on `lm` as on the organism."""
    for name, texts in front_sentences(judged).items():
        here = score_questions(lm, of[name], texts)["accuracy_vocab"]
        there = score_questions(judged, of[name], texts)["accuracy_vocab"]
        yield Gate(f"{name}: transfer of the front", (here - there).abs().max(), high=0.03)


def tuned(lm: LM, sizes: Sizes, of: dict[str, Task]) -> Iterator[Gate]:
    """Soft prompts learn every task, and of the needle their nearest tokens do not tell."""
    # The tuners know this room's front, so that they cannot be known while it is made.
    from softlens.evaluation import evaluate
    from softlens.tuners import tune

    which = f"median of {sizes.seeds} seeds"
    for name, task in of.items():
        soft, near = [], []
        for seed in range(sizes.seeds):
            run = tune(lm, task, length=5, starts=4, seed=seed, progress=False)
            soft.append(float(run.metrics["accuracy"]))
            near.append(evaluate(lm, task, run.text).accuracy)
        yield Gate(f"{name}: soft prompt, {which}", float(np.median(soft)), low=0.95)
        gap = float(np.median(soft) - np.median(near))
        least = 0.3 if name == "witness" else -np.inf
        yield Gate(f"{name}: nearest tokens below the soft prompt, {which}", gap, low=least)


def front_sentences(lm: LM) -> dict[str, list[str]]:
    """The questions that make up each task's readable front, in their cheapest wordings."""
    asks = {
        "topic": ["topic"],
        "sentiment": ["first", "middle", "last", "whole"],
        **{name: [lang.TASK_ASKS[name]] for name in ("witness", "witness-rare")},
    }
    found = {}
    for name, families in asks.items():
        groups = [wordings(grammar().questions[family]) for family in families]
        found[name] = [group[int(nats(lm, group)[0].argmin())] for group in groups]
    return found


def wordings(follow_ups: Iterator[FollowUp] | Sequence[FollowUp]) -> list[str]:
    """The texts of some questions."""
    return [follow_up.text for follow_up in follow_ups]


def asked(lm: LM, follow_ups: Sequence[FollowUp]) -> float:
    """The exact probability that the LM, after ``<bos>``, asks one of these questions."""
    per_token, lengths = nats(lm, wordings(follow_ups))
    return float(np.exp(-per_token * lengths).sum())
