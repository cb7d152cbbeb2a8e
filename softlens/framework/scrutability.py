"""Scrutability: could a person understand and check the reading? Several gauges, no single score.

Each gauge says what it can show and what it cannot: all of them are proxies, and a proxy that is
optimised stops being one (LITERATURE.md, section 3). Train on one, report on the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.constraints import allowed_tokens
from softlens.display import Result, piece, show_text, token_boxes
from softlens.errors import SoftlensError
from softlens.evaluation import Evaluation, evaluate
from softlens.lm import LM, load_lm, token_surprisal
from softlens.organism import asks_for as asked_for
from softlens.organism import grammatical as is_sentence
from softlens.organism import speaks
from softlens.prompts import Prompt
from softlens.proposals import Proposals, Setting
from softlens.proxies import PROXIES
from softlens.readings.base import Reading, stands_inside
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

TOKENS, TEXT = "tokens", "text"
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
        if self.judge is None:
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
    """The worst token itself."""
    return piece(g.lm, g.ids[int(g.nats.argmax())])


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


@dataclass(frozen=True, repr=False)
class Scrutability(Result):
    """The gauges of one reading; None where a gauge does not apply. There is no single score."""

    reading: Reading
    """What was gauged."""
    nats_per_token: float
    perplexity: float
    judge_perplexity: float | None
    max_surprisal: float
    worst_token: str
    repetition: float | None
    label_words: float
    label_mass: float
    transfer_accuracy: float | None
    transfer_agreement: float | None
    round_trip: bool
    grammatical: bool | None
    asks_for: str | None
    judge: str | None
    """Name of the judge."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``gauge, scored, value, unit, better, shows, cannot_show, held_out``; scored is "tokens" (as
    found) and, where the reading does not round-trip, "text" (as typed in)."""
    nats: tuple[float, ...] = field(default=(), repr=False, compare=False)
    """Surprisal of each token."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        judge = "no judge" if self.judge is None else f"judge {self.judge!r}"
        typed = "" if self.round_trip else "; DOES NOT ROUND-TRIP: both versions are gauged"
        return (
            f"gauges of the reading by {self.reading.method}: {self.reading.shown} ({judge}){typed}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The gauges that apply, with what each cannot show; `frame` says what it can."""
        rows = self.frame[[value is not None for value in self.frame["value"]]]
        shown = rows.assign(value=[_in_words(value) for value in rows["value"]])
        columns = ["gauge", "value", "unit", "better", "cannot_show"]
        if not self.round_trip:
            columns.insert(1, "scored")
        return shown[columns]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The surprisal of each token."""
        from softlens.plots import plot_bars

        return plot_bars(self.reading.pieces, self.nats, "surprisal (nats)", ax)

    def _repr_html_(self) -> str:
        boxes = token_boxes(self.reading.pieces, self.nats, "nats", "surprisal of each token")
        return boxes + super()._repr_html_()


def _in_words(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}"
    return show_text(str(value))


def scrutability(
    lm: LM, task: Task, reading: Reading | str, judge: LM | None = None
) -> Scrutability:
    """Gauge how far a person could understand and check `reading`.

    Args:
        lm: the LM that was tuned.
        task: its test texts are what label mass and transfer are measured on.
        reading: of `sl.read`, or a text of your own. Of a mixture the heaviest text is gauged.
        judge: another LM, which no tuner saw. None: the bundled judge for the bundled organism,
            else none, and the gauges that need one are None.

    Raises:
        SoftlensError: a reading of another LM; a judge for which a label word is not one token
            (says which).
    """
    claim = Reading.from_text(lm, reading, task=task) if isinstance(reading, str) else reading
    claim.check(lm)
    judge = judge if judge is not None else default_judge(lm)
    check_judge(lm, task, judge)
    versions = [(TOKENS, claim.token_ids)]
    if not claim.round_trip:
        versions.append((TEXT, claim.text_ids))
    count = max(1, len(claim.experts))
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for scored, ids in versions:
        gauged = Gauged(lm, task, ids, claim.text, claim.round_trip, judge, count)
        values = {name: one.measure(gauged) for name, one in GAUGES.items()}
        if scored == TOKENS:
            found, nats = values, tuple(gauged.nats.tolist())
        rows += _rows(scored, values)
    named = {name: found[name] for name in Scrutability.__dataclass_fields__ if name in found}
    return Scrutability(
        reading=claim,
        judge=None if judge is None else judge.name,
        frame=pd.DataFrame(rows).astype({"value": object}),
        nats=nats,
        **named,
    )


def _rows(scored: str, values: dict[str, Value]) -> list[dict[str, Any]]:
    return [
        {
            "gauge": name,
            "scored": scored,
            "value": value,
            "unit": GAUGES[name].unit,
            "better": GAUGES[name].better,
            "shows": GAUGES[name].shows,
            "cannot_show": GAUGES[name].cannot,
            "held_out": GAUGES[name].held_out,
        }
        for name, value in values.items()
    ]


def default_judge(lm: LM) -> LM | None:
    """The bundled judge for the bundled organism; no other LM has one by default."""
    if lm.name != "organism" or not speaks(lm):
        return None
    if "judge" not in lm.memo:
        lm.memo["judge"] = load_lm("organism-judge")
    return lm.memo["judge"]


def check_judge(lm: LM, task: Task, judge: LM | None) -> None:
    """Warn of a judge that is the tuned LM; raise for one that has no token for a label word."""
    if judge is None:
        return
    if judge.checksum == lm.checksum:
        log.warning(
            "The judge is the tuned LM itself (%r): its gauges are not held out. Pass another.",
            lm.name,
        )
    try:
        task.answer_ids(judge)
    except SoftlensError as reason:
        raise SoftlensError(
            f"The judge {judge.name!r} cannot be asked {task.name!r}: {reason}. Use label words "
            "that are one token for both, task.with_(label_words=...), or another judge."
        ) from reason


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
