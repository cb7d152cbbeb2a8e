"""Gauges of scrutability: one function each, in one registry, with what it can and cannot show.

All of them are proxies, and a proxy that is optimised stops being one (Goodhart's law; for learned
rewards Gao et al. 2022, arXiv 2210.10760). Train on one, report on the others. To add one, write a
function and name it with `gauge`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.constraints import allowed_tokens
from softlens.evaluation import Evaluation, evaluate
from softlens.lm import LM, token_surprisal
from softlens.organism import asks_for as asked_for
from softlens.organism import grammatical as is_sentence
from softlens.organism import speaks
from softlens.prompts import Prompt
from softlens.proposals import Proposals, Setting
from softlens.proxies import PROXIES
from softlens.readings.base import stands_inside
from softlens.tasks import Task

Better = Literal["lower", "higher", "yes", ""]
Value = float | int | bool | str | None


@dataclass(frozen=True)
class Gauged:
    """One version of a reading, and what gauges share about it, computed at most once.

    Attributes:
        lm: the LM that was tuned.
        task: what the prompt is for.
        ids: the tokens that are gauged: as found, or as the text is encoded.
        text: their text.
        round_trip: whether decoding and encoding gives the found tokens.
        judge: another LM, which no tuner saw; None if there is none.
        texts: how many texts must be weighed together; more than one for a mixture.
    """

    lm: LM
    task: Task
    ids: tuple[int, ...]
    text: str
    round_trip: bool
    judge: LM | None
    texts: int = 1

    @cached_property
    def nats(self) -> Float[Tensor, " length"]:
        """Surprisal of each token under the tuned LM, in its default context."""
        return token_surprisal(self.lm, [self.ids])[0, 0]

    @cached_property
    def proposals(self) -> Proposals:
        """The reading as the proxies take it."""
        words = torch.tensor(self.task.answer_ids(self.lm), device=self.lm.device)
        return Proposals.of_ids(Setting(self.lm, words), [self.ids])

    @cached_property
    def evaluation(self) -> Evaluation:
        """How the tuned LM does the task under it, on test texts."""
        return evaluate(self.lm, self.task, Prompt.from_ids(self.lm, self.ids), truncate=True)

    @cached_property
    def transferred(self) -> Evaluation | None:
        """How the judge does the task under its text."""
        if self.judge is None or not self.text.strip():
            return None
        return evaluate(self.judge, self.task, self.text.strip(), truncate=True)


Measure = Callable[[Gauged], Value]


@dataclass(frozen=True)
class Gauge:
    """One gauge: its unit, what it can show, and what it cannot."""

    name: str
    measure: Measure = field(repr=False)
    unit: str
    better: Better
    shows: str
    cannot: str
    held_out: bool
    """Whether no tuner here is trained on it by default."""


GAUGES: dict[str, Gauge] = {}


def gauge(
    unit: str, better: Better, *, shows: str, cannot: str, held_out: bool = True
) -> Callable[[Measure], Measure]:
    """Register the function below under its own name; None means it does not apply."""

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        GAUGES[name] = Gauge(name, measure, unit, better, shows, cannot, held_out)
        return measure

    return register


# fmt: off
@gauge("nats per token", "lower", held_out=False,
       shows="that the LM might say it", cannot="repetition feeds itself; fluent need not be apt")
def nats_per_token(g: Gauged) -> Value:
    """Mean surprisal of its tokens under the tuned LM."""
    return float(g.nats.mean())


@gauge("perplexity", "lower", held_out=False,
       shows="the same, as the literature writes it", cannot="as nats per token")
def perplexity(g: Gauged) -> Value:
    """Exponential of the nats per token."""
    return math.exp(min(float(g.nats.mean()), 700.0))


@gauge("perplexity", "lower",
       shows="that another LM might say it too", cannot="LMs trained alike share blind spots")
def judge_perplexity(g: Gauged) -> Value:
    """Exponential of the mean surprisal under the judge, with its own tokens."""
    if g.judge is None:
        return None
    ids = g.judge.encode(g.text.strip(), leading_space=stands_inside(g.task))
    if not ids:
        return None
    return math.exp(min(float(token_surprisal(g.judge, [ids])[0, 0].mean()), 700.0))


@gauge("nats", "lower",
       shows="one token that does not belong, which a mean hides", cannot="rare names look alike")
def max_surprisal(g: Gauged) -> Value:
    """Surprisal of the worst token."""
    return float(g.nats.max())


@gauge("token", "",
       shows="which token that is", cannot="the first token has no context but the start")
def worst_token(g: Gauged) -> Value:
    """The worst token itself; half a character is U+FFFD, since tables and files take no bytes."""
    return g.lm.token(g.ids[int(g.nats.argmax())])


@gauge("excess count ^ 1.5 per token", "lower",
       shows="loops", cannot="near-synonyms and casing evade it; one token cannot repeat itself")
def repetition(g: Gauged) -> Value:
    """FLRT's penalty (arXiv 2407.17447); None for a single token."""
    return float(PROXIES["repetition"].score(g.proposals)) if len(g.ids) > 1 else None


@gauge("share of tokens", "lower",
       shows="words that answer for the prompt", cannot="some questions name their answers rightly")
def label_words(g: Gauged) -> Value:
    """Share of its tokens that are label words or forms of them."""
    answers_free = allowed_tokens(g.lm, g.task, "labels")
    ordinary = set(g.lm.ordinary_ids.tolist())
    return sum(i in ordinary and not bool(answers_free[i]) for i in g.ids) / len(g.ids)


@gauge("probability", "higher",
       shows="whether it asks the task's question at all", cannot="label words in it raise it")
def label_mass(g: Gauged) -> Value:
    """Mean probability of all label words together, on test texts."""
    return g.evaluation.label_mass


@gauge("share of texts", "higher",
       shows="that it says the same to another LM", cannot="the other LM may be right by itself")
def transfer_accuracy(g: Gauged) -> Value:
    """The judge's accuracy under its text, on test texts, among the label words."""
    return None if g.transferred is None else g.transferred.accuracy


@gauge("share of texts", "higher",
       shows="that the two LMs take it alike, right or wrong", cannot="they may share a bias")
def transfer_agreement(g: Gauged) -> Value:
    """Share of test texts on which the judge names the same label word as the tuned LM."""
    if g.transferred is None:
        return None
    same = g.transferred.frame["predicted"] == g.evaluation.frame["predicted"]
    return float(same.mean())


@gauge("yes or no", "yes",
       shows="that what is read is what was found", cannot="nothing about its meaning")
def round_trip(g: Gauged) -> Value:
    """Whether its text, typed in, has the tokens that were found."""
    return g.round_trip


@gauge("texts", "lower",
       shows="how much a person must hold together", cannot="nothing about each of them")
def texts(g: Gauged) -> Value:
    """How many texts must be weighed together; the other gauges are of the heaviest."""
    return g.texts


@gauge("yes or no", "yes",
       shows="that it is a sentence of the organism's language", cannot="nothing off the organism")
def grammatical(g: Gauged) -> Value:
    """Whether the organism's grammar can write it; None off the organism."""
    return is_sentence(g.text) if speaks(g.lm) else None


@gauge("attribute", "",
       shows="what it asks for, exactly", cannot="nothing off the organism")
def asks_for(g: Gauged) -> Value:
    """What it asks for in the organism's language, or "nothing"; None off the organism."""
    return (asked_for(g.text) or "nothing") if speaks(g.lm) else None
# fmt: on


def gauges(which: Sequence[str] | None = None) -> pd.DataFrame:
    """All gauges: ``gauge, what, unit, better, shows, cannot_show, held_out``."""
    return pd.DataFrame(
        [
            {
                "gauge": g.name,
                "what": (g.measure.__doc__ or "").strip().split("\n")[0],
                "unit": g.unit,
                "better": g.better,
                "shows": g.shows,
                "cannot_show": g.cannot,
                "held_out": g.held_out,
            }
            for g in GAUGES.values()
            if which is None or g.name in which
        ]
    )
