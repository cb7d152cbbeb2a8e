"""Faithfulness: does the LM behave under the reading as under the prompt?

All numbers come from three answer distributions on the same texts: the prompt's p, the reading's q,
and for scale the empty prompt's and random texts'. Off the training distribution an unfaithful
reading shows that agrees on the task's own texts (compare the stress tests of prompt waywardness,
arXiv 2112.08348, and the prompt distances of arXiv 2311.07064).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from softlens.display import Result, number, show_text
from softlens.errors import SoftlensError
from softlens.evaluation import AnyPrompt, prompt_vectors
from softlens.framework.texts import TEST, Domain, domains_of
from softlens.framework.watched import (
    EMPTY,
    PROMPT,
    RANDOM,
    READING,
    RETOKENISED,
    Watched,
    watch,
)
from softlens.lm import LM
from softlens.readings.base import Reading
from softlens.statistics import Resamples
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = (
    "accuracy",
    "agreement",
    "kl_labels",
    "kl_labels_worst",
    "kl_vocab",
    "kl_vocab_worst",
    "kl_closed",
    "kl_labels_closed",
    "label_mass",
)
"""In the order of tables; KL in nats, the others in [0, 1] (shares closed at most 1)."""
SHOWN = tuple(measure for measure in MEASURES if measure != "label_mass")
"""Those of them in the printed table; the prompt's own distance from itself is left out."""


@dataclass(frozen=True, repr=False)
class Faithfulness(Result):
    """How far the LM behaves under a reading as under the prompt. The fields are of test texts."""

    reading: Reading
    """What was tested."""
    accuracy_prompt: float
    """Share of test texts that the prompt answers rightly, among the label words."""
    accuracy_reading: float
    """The same of the reading."""
    accuracy_empty: float
    """The same without any prompt."""
    accuracy_random: float
    """The same of random texts as long as the reading, their mean."""
    agreement: float
    """Share of texts on which the prompt and the reading name the same label word."""
    kl_labels: float
    """Mean KL over the label words alone, nats."""
    kl_vocab: float
    """Mean KL over the whole vocabulary at the answer position, nats."""
    kl_vocab_worst: float
    """The same on the text where it is worst."""
    kl_closed: float
    """1 - KL(prompt, reading) / KL(prompt, empty) over the vocabulary; 1 is the same behaviour."""
    worst_text: str
    """The test text where the reading is least faithful."""
    n: int
    """Test texts."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``domain, scored, measure, value, low, high, n``: every number with its 95% bootstrap
    interval over texts. Domains are "test", "other task" and "shuffled words"; scored are "prompt",
    "reading", "reading, re-tokenised" (where that differs), "empty", "random". The worst text has
    no interval, accuracies are NaN where nobody knows the labels."""

    @property
    def gap(self) -> float:
        """The faithfulness gap, 1 - `kl_closed`: the share of the prompt's behaviour not said."""
        return 1 - self.kl_closed

    def interval(
        self, measure: str, domain: str = TEST, scored: str = READING
    ) -> tuple[float, float, float]:
        """Value, low and high end of one number of `frame`.

        Raises:
            SoftlensError: there is no such number.
        """
        f = self.frame
        found = f[(f["domain"] == domain) & (f["scored"] == scored) & (f["measure"] == measure)]
        if found.empty:
            raise SoftlensError(
                f"No {measure!r} of {scored!r} on {domain!r}; there are {list(MEASURES)} of "
                f"{sorted(set(f['scored']))} on {sorted(set(f['domain']))}."
            )
        row = found.iloc[0]
        return float(row["value"]), float(row["low"]), float(row["high"])

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        _, low, high = self.interval("kl_closed")
        return (
            f"reading by {self.reading.method}: {self.reading.shown}; closes {self.kl_closed:.2f} "
            f"[{low:.2f}, {high:.2f}] of the KL, agrees on {self.agreement:.2f} of {self.n} test "
            f"texts; accuracy {self.accuracy_reading:.3f} (prompt {self.accuracy_prompt:.3f}, "
            f"empty {self.accuracy_empty:.3f}, random {self.accuracy_random:.3f}); KL in nats, 95% "
            "intervals over texts"
        )

    @property
    def table(self) -> pd.DataFrame:
        """One row for each domain and thing scored, values with their intervals."""
        rows = []
        for (domain, scored), part in self.frame.groupby(["domain", "scored"], sort=False):
            cells = {row["measure"]: _cell(row) for row in part.to_dict("records")}
            rows.append({"domain": domain, "scored": scored} | {m: cells[m] for m in SHOWN})
        return pd.DataFrame(rows)

    @property
    def worst(self) -> str:
        """The text where the reading is least faithful, made inert."""
        return show_text(self.worst_text)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Share of KL closed and agreement, on each domain, beside the random control."""
        from softlens.plots import plot_faithfulness

        return plot_faithfulness([self], ax)


def _cell(row: dict[Any, Any]) -> str:
    itself = row["scored"] == PROMPT and row["measure"] not in ("accuracy", "label_mass")
    if pd.isna(row["value"]) or itself:
        return ""
    if pd.isna(row["low"]):
        return number(row["value"])
    return with_interval(row["value"], row["low"], row["high"])


def with_interval(value: float, low: float, high: float) -> str:
    """A number beside the ends of its interval, as tables show it."""
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def faithfulness(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    reading: Reading | str,
    *,
    texts: int = 512,
    other: Task | Sequence[str] | None = None,
    seed: int = 0,
) -> Faithfulness:
    """Test the claim that `reading` is what `prompt` says, on texts that no method has seen.

    Args:
        lm: the LM.
        task: its test texts are what the two are compared on.
        prompt: a `Prompt`, or a text.
        reading: of `sl.read`, or a text of your own.
        texts: how many test texts at most.
        other: a task or texts of another kind, off the training distribution. None: another task of
            the organism, or other real texts, where the task is one of those; else none.
        seed: of the shuffled words and of the bootstrap.

    Raises:
        SoftlensError: a reading or prompt of another LM; the empty prompt; too few test texts for
            an interval (says how many are needed).
    """
    return faithfulness_all(lm, task, prompt, [reading], texts=texts, other=other, seed=seed)[0]


def faithfulness_all(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    readings: Sequence[Reading | str],
    *,
    texts: int = 512,
    other: Task | Sequence[str] | None = None,
    seed: int = 0,
) -> list[Faithfulness]:
    """`faithfulness` of many readings of one prompt, whose own answers are then asked for once.

    Args:
        lm: the LM.
        task: its test texts are what they are compared on.
        prompt: a `Prompt`, or a text.
        readings: of `sl.read`, or texts of your own; one result each, in their order.
        texts: how many test texts at most.
        other: as for `faithfulness`.
        seed: of the shuffled words and of the bootstrap.

    Raises:
        SoftlensError: as `faithfulness`.
    """
    if prompt is None:
        raise SoftlensError(
            "Got the empty prompt, which says nothing: it is the control that readings are held "
            "against. Give a Prompt or a text."
        )
    claims = [Reading.from_text(lm, r, task=task) if isinstance(r, str) else r for r in readings]
    for claim in claims:
        claim.check(lm)
    vectors = prompt_vectors(lm, task, prompt)
    domains = domains_of(task, texts, other, seed)
    drawn = {d.name: Resamples(len(d.texts), d.whose, seed=seed) for d in domains}
    parts = [(d, *watch(lm, task, vectors, claims, d)) for d in domains]
    found = []
    for index, claim in enumerate(claims):
        rows: list[dict[str, object]] = []
        for domain, shared, own in parts:
            rows += _numbers(domain, shared | own[index], drawn[domain.name])
        frame = pd.DataFrame(rows)
        on_test = frame[frame["domain"] == TEST]
        keys = zip(on_test["scored"], on_test["measure"], strict=True)
        value = {key: float(v) for key, v in zip(keys, on_test["value"], strict=True)}
        worst = int(parts[0][2][index][READING]["kl_vocab"].argmax())
        found.append(
            Faithfulness(
                reading=claim,
                accuracy_prompt=value[PROMPT, "accuracy"],
                accuracy_reading=value[READING, "accuracy"],
                accuracy_empty=value[EMPTY, "accuracy"],
                accuracy_random=value[RANDOM, "accuracy"],
                worst_text=parts[0][0].texts[worst],
                n=len(parts[0][0].texts),
                frame=frame,
                **{
                    name: value[READING, name]
                    for name in (
                        "agreement", "kl_labels", "kl_vocab", "kl_vocab_worst", "kl_closed",
                    )
                },
            )
        )  # fmt: skip
    return found


def _numbers(domain: Domain, seen: Watched, drawn: Resamples) -> list[dict[str, object]]:
    nothing = (float("nan"),) * 3
    rows: list[dict[str, object]] = []
    for scored in (PROMPT, READING, RETOKENISED, EMPTY, RANDOM):
        if scored not in seen:
            continue
        of = seen[scored]
        accuracy = nothing
        if domain.labels is not None:
            right = (of["predicted"] == np.array(domain.labels)).astype(float)
            accuracy = drawn.mean(right.mean(axis=0) if right.ndim == 2 else right)
        numbers = {
            "accuracy": accuracy,
            **{m: drawn.mean(of[m]) for m in ("agreement", "kl_labels", "kl_vocab")},
            **{
                f"{m}_worst": (float(of[m].max()), float("nan"), float("nan"))
                for m in ("kl_labels", "kl_vocab")
            },
            "kl_closed": drawn.closed(of["kl_vocab"], seen[EMPTY]["kl_vocab"]),
            "kl_labels_closed": drawn.closed(of["kl_labels"], seen[EMPTY]["kl_labels"]),
            "label_mass": drawn.mean(of["label_mass"]),
        }
        rows += [
            {
                "domain": domain.name,
                "scored": scored,
                "measure": measure,
                **dict(zip(("value", "low", "high"), numbers[measure], strict=True)),
                "n": len(domain.texts),
            }
            for measure in MEASURES
        ]
    return rows
