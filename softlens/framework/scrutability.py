"""Scrutability: could a person understand and check the reading? Several gauges, no single score.

Each gauge says what it can show and what it cannot (`softlens.framework.gauges`).
"""

from __future__ import annotations

import html
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from softlens.display import Result, show_text, token_boxes
from softlens.errors import SoftlensError
from softlens.framework.gauges import GAUGES, Gauged, Value
from softlens.lm import LM, load_lm
from softlens.organism import speaks
from softlens.readings.base import Reading
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

TOKENS, TEXT = "tokens", "text"


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
    judge_checksum: str | None = None
    """Of the judge's weights, which tells whether it is another LM."""

    @property
    def judged_by_itself(self) -> bool:
        """Whether the judge is the tuned LM: then its gauges are not held out."""
        return self.judge_checksum == self.reading.lm.checksum

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
        return self._shown().drop(columns=["shows"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The surprisal of each token."""
        from softlens.plots import plot_bars

        return plot_bars(self.reading.pieces, self.nats, "surprisal (nats)", ax)

    def _repr_html_(self) -> str:
        boxes = token_boxes(self.reading.pieces, self.nats, "nats", "surprisal of each token")
        # A page has room for what each gauge can show, a terminal has not.
        table = self._shown().to_html(index=False, border=0)
        return f"{boxes}<div>{html.escape(self.headline)}</div>{table}"

    def _shown(self) -> pd.DataFrame:
        rows = self.frame[[value is not None for value in self.frame["value"]]]
        shown = rows.assign(value=[_in_words(value) for value in rows["value"]])
        columns = ["gauge", "value", "unit", "better", "shows", "cannot_show"]
        if not self.round_trip:
            columns.insert(1, "scored")
        return shown[columns]


def _in_words(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}"
    return show_text(str(value))


def scrutability(
    lm: LM, task: Task, reading: Reading | str, judge: LM | str | None = None
) -> Scrutability:
    """Gauge how far a person could understand and check `reading`.

    Args:
        lm: the LM that was tuned.
        task: its test texts are what label mass and transfer are measured on.
        reading: of `sl.read`, or a text of your own. Of a mixture the heaviest text is gauged.
        judge: another LM, which no tuner saw, or its name as `load_lm` takes it. None: the bundled
            judge for the bundled organism, else none, and the gauges that need one are None.

    Raises:
        SoftlensError: a reading of another LM; a judge for which a label word is not one token
            (says which).
    """
    claim = Reading.from_text(lm, reading, task=task) if isinstance(reading, str) else reading
    claim.check(lm)
    judge = judge_of(lm, judge)
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
        judge_checksum=None if judge is None else judge.checksum,
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


def judge_of(lm: LM, given: LM | str | None) -> LM | None:
    """The judge that is meant: an LM, or one by its name.

    None is the bundled judge for the bundled organism; no other LM has one by default.

    Raises:
        SoftlensError: something else; a name that `load_lm` does not know.
    """
    if given is None:
        if lm.name != "organism" or not speaks(lm):
            return None
        given = "organism-judge"
    if isinstance(given, str):
        key = ("judge", given)
        if key not in lm.memo:
            lm.memo[key] = load_lm(given)
        return lm.memo[key]
    if not isinstance(given, LM):
        raise SoftlensError(
            f"Got a {type(given).__name__} as the judge, wanted an LM of softlens.load_lm, or the "
            "name of one."
        )
    return given


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
