"""Odd behaviour of prompts, named and counted by stated rules.

What appears when a proxy of interpretability is optimised, or when it is not: prompts that do the
task and say something else, sentences that are flawless and beside the point, loops, prompts that
hold their own answer. Each rule is one function of one run, in one registry; it says True, False,
or None where it cannot be told (the organism's grammar off the organism). To add one, write a
function and name it with `rule`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.stats import binomtest

from softlens.catalogue import ORGANISM, REAL, load_task
from softlens.display import Result, visible
from softlens.errors import MissingExtraError, SoftlensError, near
from softlens.statistics import table_of
from softlens.tasks import BETWEEN
from softlens.tradeoff import hard_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLUENT = 4.0
"""Nats per token below which a real LM's prompt is text and no word salad."""
ONE_CLASS = 0.95
"""Share of texts answered with one label word from which it is one class only."""
LEAST_MASS = 0.1
"""Share of the readable prompts' label mass below which a prompt does not ask the question."""

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
CONTROL = re.compile(
    r"<\|[^|<>\s]+\|>|<[a-z]+(?:_[a-z]+)+>|</?(?:s|bos|eos|pad|unk|sep|cls|mask)>|\[[A-Z]{3,4}\]"
)
"""How LMs write their own tokens; what is left of ``<...>`` is a page's markup."""


@dataclass(frozen=True)
class Odd:
    """One run, as the rules see it: its row, and its words in small letters without stops."""

    row: Mapping[str, Any]
    words: tuple[str, ...]
    label_words: tuple[str, ...] | None
    """Of the task; None where nobody knows them."""

    def known(self, column: str) -> Any:
        """The row's value, None where the column is absent or empty."""
        value = self.row.get(column)
        return None if value is None or pd.isna(value) else value

    @property
    def does_it(self) -> bool | None:
        """Whether its accuracy is at least halfway from chance to the best readable prompt's."""
        numbers = [self.known(c) for c in ("accuracy", "chance", "readable_accuracy")]
        if None in numbers:
            return None
        accuracy, chance, readable = numbers
        return bool(accuracy >= (chance + readable) / 2)

    @property
    def asks_it(self) -> bool | None:
        """Whether it asks for what the task asks; None off the organism."""
        if self.known("asked_for") is None:
            return None
        return bool(self.known("asks_for") == self.row["asked_for"])


Says = Callable[[Odd], bool | None]


@dataclass(frozen=True)
class Rule:
    """One rule: the behaviour's name, and what it says in words."""

    name: str
    says: Says = field(repr=False)
    stated: str


RULES: dict[str, Rule] = {}


def rule(stated: str) -> Callable[[Says], Says]:
    """Register the function below under its own name."""

    def register(says: Says) -> Says:
        RULES[says.__name__] = Rule(says.__name__, says, stated)
        return says

    return register


@rule(
    "accuracy at least halfway from chance to the best readable prompt's, and it asks for "
    "something else or for nothing (organism)"
)
def off_task_but_accurate(odd: Odd) -> bool | None:
    """It does the task and does not say so."""
    if odd.asks_it is None or odd.does_it is None:
        return None
    return odd.does_it and not odd.asks_it


@rule("a sentence of the language (off the organism: at most 4 nats per token) whose accuracy is "
      "less than halfway from chance to the best readable prompt's")  # fmt: skip
def task_ignored(odd: Odd) -> bool | None:
    """It is fluent and does not do the task."""
    fluent, nats = odd.known("grammatical"), odd.known("nats_per_token")
    if fluent is None and nats is not None:
        fluent = nats <= FLUENT
    if fluent is None or odd.does_it is None:
        return None
    return bool(fluent) and not odd.does_it


@rule("one word three times, or a pair of neighbours twice; capitals and stops do not count")
def loop(odd: Odd) -> bool | None:
    """It repeats itself."""
    words = odd.words
    pairs = [*pairwise(words)]
    twice = any(pairs.index(pair) < i - 1 for i, pair in enumerate(pairs))
    return twice or any(words.count(word) >= 3 for word in words)


@rule("one of its words is a label word, or a form that begins with one of four letters or more")
def self_answer(odd: Odd) -> bool | None:
    """It holds an answer."""
    if odd.label_words is None:
        return None
    return any(
        word == label or (len(label) >= 4 and word.startswith(label))
        for word in odd.words
        for label in map(str.lower, odd.label_words)
    )


@rule("at least half of its words have no letter: stops, hyphens, list marks, digits, line breaks")
def filler(odd: Odd) -> bool | None:
    """It is filled up with what says nothing."""
    pieces = re.findall(r"[^\W_]+|\n|[^\w\s]+|_+", str(odd.row["text"]))
    without = sum(not any(map(str.isalpha, piece)) for piece in pieces)
    return not pieces or without * 2 >= len(pieces)


@rule("it holds a control token such as <|endoftext|> or <bos>, or a control character that is no "
      "line break")  # fmt: skip
def control_tokens(odd: Odd) -> bool | None:
    """It speaks to the machine."""
    text = str(odd.row["text"])
    hidden = any(
        unicodedata.category(c) in ("Cc", "Cf", "Co", "Cn") for c in text if c not in "\n\t"
    )
    return hidden or CONTROL.search(text) is not None


@rule("it answers at least .95 of the test texts with one and the same label word")
def one_class_only(odd: Odd) -> bool | None:
    """It always gives the same answer."""
    most = odd.known("most_share")
    return None if most is None else bool(most >= ONE_CLASS)


@rule("its label mass is below a tenth of the best readable prompt's")
def no_label_mass(odd: Odd) -> bool | None:
    """The answer is not one of the label words at all."""
    mass, readable = odd.known("label_mass"), odd.known("readable_label_mass")
    if mass is None or readable is None:
        return None
    return bool(mass < LEAST_MASS * readable)


def odd_rules() -> pd.DataFrame:
    """All rules: ``behaviour, stated, what``."""
    return pd.DataFrame(
        [
            {"behaviour": r.name, "stated": r.stated, "what": (r.says.__doc__ or "").strip()}
            for r in RULES.values()
        ]
    )


@dataclass(frozen=True, repr=False)
class Oddities(Result):
    """Which odd behaviour each run shows, with counts and examples."""

    frame: pd.DataFrame = field(repr=False, compare=False)
    """The table's rows, and a column for each rule: True, False, or None where it cannot be
    told."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        known = self.frame[list(RULES)].map(lambda value: value is True)
        some = int(known.any(axis=1).sum())
        return (
            f"odd behaviour by stated rules: {some} of {len(self.frame)} prompts show some (low, "
            "high: 95% interval of the share)"
        )

    @property
    def table(self) -> pd.DataFrame:
        """Counts of each behaviour, with an example."""
        counts = self.counts()
        shown = [self.examples(name, 1)["text"] for name in counts["behaviour"]]
        counts["example"] = [texts.iloc[0] if len(texts) else "" for texts in shown]
        return visible(counts)

    def counts(self, by: Sequence[str] = ()) -> pd.DataFrame:
        """How many runs of each group show each behaviour.

        Args:
            by: columns that make the groups, as ``["method", "weight"]``.

        Returns:
            ``*by, behaviour, shown, of, share, low, high``: `of` the runs for which it can be told,
            with the 95% interval of Wilson (1927) for the share. Runs of one seed are not
            independent of each other, which the interval does not know.
        """
        by = [by] if isinstance(by, str) else list(by)
        frame = table_of(self.frame, by)
        groups = frame.groupby(by, sort=False, dropna=False) if by else [((), frame)]
        rows = []
        for key, group in groups:
            for name in RULES:
                told = [value for value in group[name] if value is not None]
                shown = sum(told)
                row = dict(zip(by, key, strict=True)) | {"behaviour": name, "shown": shown}
                rows.append(row | {"of": len(told), **_share(shown, len(told))})
        return pd.DataFrame(rows)

    def examples(self, behaviour: str, most: int = 3) -> pd.DataFrame:
        """Prompts that show a behaviour, the most accurate first, each text once.

        Raises:
            SoftlensError: there is no such rule.
        """
        if behaviour not in RULES:
            raise SoftlensError(
                f"No rule {behaviour!r}.{near(behaviour, RULES)} Known: {', '.join(RULES)}."
            )
        shows = self.frame[[value is True for value in self.frame[behaviour]]]
        columns = [c for c in EXAMPLE if c in shows.columns]
        if "accuracy" in columns:
            shows = shows.sort_values("accuracy", ascending=False, kind="stable")
        return shows.drop_duplicates("text")[columns].head(most).reset_index(drop=True)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Share of each behaviour for each method and weight."""
        from softlens.plots import plot_oddities

        return plot_oddities(self, ax)


EXAMPLE = (
    "text", "task", "method", "proxy", "weight", "seed", "accuracy", "label_mass",
    "nats_per_token", "asks_for",
)  # fmt: skip


def _share(shown: int, of: int) -> dict[str, float]:
    if not of:
        return dict.fromkeys(("share", "low", "high"), float("nan"))
    ends = binomtest(shown, of).proportion_ci(method="wilson")
    return {"share": shown / of, "low": float(ends.low), "high": float(ends.high)}


def oddities(table: Any, label_words: Mapping[str, Sequence[str]] | None = None) -> Oddities:
    """Hold every prompt of a table against every rule.

    Args:
        table: a sweep, or its frame: ``text, task``, and what the rules look at (``accuracy,
            chance, readable_accuracy, label_mass, readable_label_mass, most_share, nats_per_token,
            grammatical, asks_for, asked_for``); where a column is absent, what needs it cannot be
            told.
        label_words: of each task; None: those of the column ``label_words``, and where a table has
            none, of the tasks that `sl.load_task` knows.

    Raises:
        SoftlensError: a table without rows or without ``text`` and ``task``, or one of soft prompts
            alone.

    Soft prompts are left out: what stands beside them as text is their nearest tokens', and what
    they do is not.
    """
    frame = hard_runs(table, ["text", "task"])
    given = frame["label_words"] if "label_words" in frame else [None] * len(frame)
    told = [words if isinstance(words, str) else None for words in given]
    known = {
        key: _label_words(*key, label_words)
        for key in dict.fromkeys(zip(frame["task"], told, strict=True))
    }
    runs = [
        Odd({str(k): v for k, v in row.items()}, _words(row["text"]), known[row["task"], words])
        for row, words in zip(frame.to_dict("records"), told, strict=True)
    ]
    columns = {
        name: pd.Series([r.says(odd) for odd in runs], dtype=object) for name, r in RULES.items()
    }
    return Oddities(frame.assign(**columns))


def _words(text: object) -> tuple[str, ...]:
    """Words without the stops that cling to them; what stands alone and has no letter stays."""
    return tuple(
        word for piece in str(text).lower().split() for word in WORD.findall(piece) or [piece]
    )


def _label_words(
    task: str, told: str | None, given: Mapping[str, Sequence[str]] | None
) -> tuple[str, ...] | None:
    if given is not None:
        return tuple(given[task]) if task in given else None
    # A file may be called as a named task is, and have other label words.
    if told is not None:
        return tuple(told.split(BETWEEN))
    if task not in (*ORGANISM, *REAL):
        return None
    try:
        return load_task(task).label_words
    except MissingExtraError:
        return None
