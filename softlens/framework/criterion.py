"""The criterion: when does a prompt count as interpretable?

"Towards Interpretable Soft Prompts" (arXiv 2504.02144) asks for faithfulness and scrutability. What
follows is *our reading of the paper's criterion*; its own definition is not in our hands:

    A prompt is interpretable at (epsilon, delta) if there is a reading whose faithfulness gap is
    at most epsilon and whose scrutability gauges are within delta.

Both are several clauses, each passed or failed with its evidence, on texts that no method has seen.
A number with an interval passes only if the worse end of the interval does; the difference of two
accuracies has none. On the organism the
grammar is no clause: it is the gold that verdicts are checked against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from softlens.behaviour import kl_from, log_answers
from softlens.display import Result, show_text
from softlens.errors import SoftlensError
from softlens.evaluation import AnyPrompt, prompt_vectors
from softlens.framework.faithfulness import Faithfulness
from softlens.framework.scrutability import Scrutability
from softlens.framework.texts import OTHER, SHUFFLED
from softlens.framework.watched import PROMPT
from softlens.lm import LM, token_surprisal
from softlens.lm.texts import logits_together
from softlens.people import real_spans
from softlens.readings.base import Reading, stands_inside
from softlens.statistics import Resamples, undominated
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Criterion:
    """Epsilon and delta, clause by clause. A bound that is NaN is taken from the task's texts."""

    epsilon: float | int = 0.1
    """Of the faithfulness gap, and of what agreement and accuracy may fall short, on test texts."""
    epsilon_elsewhere: float | int = 0.5
    """Of the gap on texts of another task and on shuffled words, whichever is worse."""
    nats_per_token: float | int = math.nan
    """Surprisal under the tuned LM, and under the judge; NaN: as in nine of ten real spans, under
    each."""
    max_surprisal: float | int = math.nan
    """Nats of the worst token; NaN: as in nine of ten real spans."""
    repetition: float | int = 0.5
    """FLRT's penalty; "a a a a new" has 1.04."""
    label_words: float | int = 0.0
    """Share of tokens that answer for the prompt."""
    transfer_agreement: float | int = 0.8
    """Share of test texts on which the judge takes it alike, at least."""
    texts: int = 3
    """Texts that a person must weigh together."""

    def __post_init__(self) -> None:
        for name in ("epsilon", "epsilon_elsewhere", "transfer_agreement"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SoftlensError(f"Got {name}={value}, wanted a share from 0 to 1.")

    def settled(self, lm: LM, task: Task, length: int) -> Criterion:
        """The same with bounds on surprisal taken from real texts' spans of `length` tokens."""
        mean, worst = real_spans(lm, task, length)
        given = self.nats_per_token, self.max_surprisal
        return replace(
            self,
            nats_per_token=mean if math.isnan(given[0]) else given[0],
            max_surprisal=worst if math.isnan(given[1]) else given[1],
        )


@dataclass(frozen=True, repr=False)
class Verdict(Result):
    """Which clauses each reading passes, with the evidence, and what it would take."""

    criterion: Criterion
    """Epsilon and delta as they were applied to the reading that passes, else to the most faithful
    one. Real texts' spans of other lengths cost otherwise: `frame` has the bounds of each."""
    by: str | None
    """The method whose reading passes every clause; None if there is none."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``method, desideratum, clause, value, bound, passed, evidence``; passed is None where a
    clause could not be tested (the evidence says why)."""
    curve: pd.DataFrame = field(repr=False, compare=False)
    """The smallest epsilon at each level of surprisal: ``method, text, nats_per_token, epsilon,
    low, high, smallest`` (no cheaper text has a smaller gap), for every single text that was
    found; the gap over the vocabulary with its 95% interval, on test texts."""

    @property
    def passed(self) -> bool:
        """Whether some reading passes every clause."""
        return self.by is not None

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        c = self.criterion
        at = f"(ε = {c.epsilon:g}, δ = {c.nats_per_token:.2f} nats per token and the other gauges)"
        if self.by is not None:
            own = self.frame[self.frame["method"] == self.by]
            open_ones = sum(passed is None for passed in own["passed"])
            untested = f"; {open_ones} of {len(own)} clauses not tested" if open_ones else ""
            return f"interpretable at {at}, by the reading {self.by!r}{untested}"
        return f"NOT interpretable at {at}: no reading passes every clause"

    @property
    def table(self) -> pd.DataFrame:
        """One row a clause, one column a reading."""
        marks = {True: "pass", False: "FAIL", None: "–"}
        cells = self.frame.assign(
            cell=[
                f"{marks[row['passed']]} {row['evidence']}" for row in self.frame.to_dict("records")
            ]
        )
        clauses = list(dict.fromkeys(cells["clause"]))
        methods = list(dict.fromkeys(cells["method"]))
        wide = cells.pivot(index="clause", columns="method", values="cell")
        return wide.loc[clauses, methods].reset_index().rename_axis(columns=None)

    def epsilon_at(self, nats_per_token: float | int) -> float:
        """The smallest gap of a text with at most this surprisal; NaN if none is that cheap.

        It is chosen among all texts that were found by the gaps themselves, so that with many of
        them it would be a little larger on other texts.
        """
        # The texts that the gaps are shown on choose the smallest: of many, it flatters.
        cheap = self.curve[self.curve["nats_per_token"] <= nats_per_token]
        return float(cheap["epsilon"].min()) if len(cheap) else math.nan

    def plot(self, ax: Axes | None = None) -> Axes:
        """The smallest gap at each price of surprisal."""
        from softlens.plots import plot_curve

        return plot_curve(self, ax)


def judged(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    faithful: Sequence[Faithfulness],
    gauged: Sequence[Scrutability],
    criterion: Criterion | None = None,
    texts: int = 512,
    seed: int = 0,
    judge: LM | None = None,
) -> Verdict:
    """Apply a criterion to tested readings of one prompt.

    Args:
        lm: the LM.
        task: the task.
        prompt: what was read.
        faithful: `faithfulness` of each reading.
        gauged: `scrutability` of each, in the same order.
        criterion: epsilon and delta; those of `Criterion` unless given.
        texts: test texts for the curve.
        seed: of its intervals.
        judge: that of `gauged`; its bound is from real texts under it. None: the LM's bound.
    """
    given = criterion or Criterion()
    rows: list[dict[str, Any]] = []
    by: str | None = None
    shown = max(faithful, key=lambda fit: fit.kl_closed)
    for fit, gauges in zip(faithful, gauged, strict=True):
        bounds = given.settled(lm, task, len(fit.reading.token_ids))
        to_judge = bounds.nats_per_token
        if judge is not None:
            ids = judge.encode(fit.reading.text.strip(), leading_space=stands_inside(task))
            to_judge = given.settled(judge, task, max(1, len(ids))).nats_per_token
        clauses = [*_faithful(fit, bounds), *_scrutable(gauges, bounds, to_judge)]
        rows += [{"method": fit.reading.method, **clause} for clause in clauses]
        if by is None and all(clause["passed"] is not False for clause in clauses):
            by, shown = fit.reading.method, fit
    curve = _curve(lm, task, prompt, [one.reading for one in faithful], texts, seed)
    frame = pd.DataFrame(rows).astype({"passed": object})
    applied = given.settled(lm, task, len(shown.reading.token_ids))
    return Verdict(applied, by, frame, curve)


def _clause(
    desideratum: str,
    clause: str,
    value: float | int | bool | None,
    bound: float | int | bool,
    evidence: str,
    at_least: bool = False,
    untested: str = "",
) -> dict[str, Any]:
    """One clause; a value that is not there is not tested, `untested` says why."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        passed = None
    else:
        passed = bool(value >= bound if at_least else value <= bound)
    return {
        "desideratum": desideratum,
        "clause": clause,
        "value": value,
        "bound": bound,
        "passed": passed,
        "evidence": evidence if passed is not None else f"not tested{untested}",
    }


def _faithful(fit: Faithfulness, c: Criterion) -> list[dict[str, Any]]:
    name = "faithful"
    closed, low, _ = fit.interval("kl_closed")
    agreement, least, _ = fit.interval("agreement")
    accuracy = abs(fit.interval("accuracy", scored=PROMPT)[0] - fit.accuracy_reading)
    known = set(fit.frame["domain"])
    elsewhere = [(*fit.interval("kl_closed", d), d) for d in (OTHER, SHUFFLED) if d in known]
    known_ones = [one for one in elsewhere if not math.isnan(one[0])]
    # By the worse end of the interval, by which the clause is decided.
    worst = min(known_ones, key=lambda one: one[1], default=(math.nan, math.nan, math.nan, ""))
    return [
        _clause(name, "says what the prompt does (KL)", 1 - low, c.epsilon,
                f"gap {1 - closed:.3f} (95%: up to {1 - low:.3f}), bound {c.epsilon:g}"),
        _clause(name, "gives the same answers", 1 - least, c.epsilon,
                f"agrees on {agreement:.3f} (95%: down to {least:.3f}), "
                f"bound {1 - c.epsilon:g}"),
        _clause(name, "is as accurate", accuracy, c.epsilon,
                f"{fit.accuracy_reading:.3f}, prompt {fit.accuracy_prompt:.3f}, "
                f"bound {c.epsilon:g} apart"),
        _clause(name, "also on other texts", 1 - worst[1], c.epsilon_elsewhere,
                f"gap {1 - worst[0]:.3f} on {worst[3]} (95%: up to {1 - worst[1]:.3f}), "
                f"bound {c.epsilon_elsewhere:g}"),
    ]  # fmt: skip


def _scrutable(g: Scrutability, c: Criterion, to_judge: float | int) -> list[dict[str, Any]]:
    name = "scrutable"
    itself = g.judged_by_itself
    perplexity = None if itself else g.judge_perplexity
    judge = None if perplexity is None else math.log(perplexity)
    said = "" if judge is None else f"{judge:.2f} nats, bound {to_judge:.2f}"
    transfer = None if itself else g.transfer_agreement
    why = ": the judge is the LM itself" if itself else ""
    count = max(1, len(g.reading.experts))
    return [
        _clause(name, "is as fluent as real text", g.nats_per_token, c.nats_per_token,
                f"{g.nats_per_token:.2f} nats, bound {c.nats_per_token:.2f}"),
        _clause(name, "also to the judge", judge, to_judge, said, untested=why),
        _clause(name, "has no token that stands out", g.max_surprisal, c.max_surprisal,
                f"{g.max_surprisal:.2f} nats ({show_text(g.worst_token)}), "
                f"bound {c.max_surprisal:.2f}"),
        _clause(name, "does not loop", g.repetition, c.repetition, f"{g.repetition or 0:.2f}"),
        _clause(name, "does not name the answer", g.label_words, c.label_words,
                f"{g.label_words:.2f} of its tokens"),
        _clause(name, "means the same to the judge", transfer, c.transfer_agreement,
                "" if transfer is None else f"agrees on {transfer:.2f}", at_least=True,
                untested=why),
        _clause(name, "can be typed in", g.round_trip, True,
                "same tokens" if g.round_trip else "other tokens", at_least=True),
        _clause(name, "is few texts", count, c.texts, f"{count}"),
    ]  # fmt: skip


@torch.no_grad()
def _curve(
    lm: LM, task: Task, prompt: AnyPrompt, readings: Sequence[Reading], texts: int, seed: int
) -> pd.DataFrame:
    """The gap of every single text that was found, by its surprisal."""
    found: dict[tuple[int, ...], str] = {}
    for reading in readings:
        if not reading.experts:
            found.setdefault(reading.token_ids, reading.method)
        if "on_path" in reading.frame:
            for ids in reading.frame["token_ids"]:
                found.setdefault(tuple(ids), reading.method)
    columns = ["method", "text", "nats_per_token", "epsilon", "low", "high", "smallest"]
    if not found:
        return pd.DataFrame(columns=columns)
    rows = list(found)
    vectors = prompt_vectors(lm, task, prompt)
    longest = max(len(vectors), *map(len, rows))
    split = task.test.take(min(texts, len(task.test))).texts
    encoded = lm.encode_texts(task.template, split, reserve=longest, truncate=True)
    size = logits_together(lm.vocab_size)
    parts = []
    for start in range(0, len(encoded), size):
        block = encoded.subset(range(start, min(start + size, len(encoded))))
        target = log_answers(lm, vectors[None], block)[0]
        parts.append(kl_from(lm, target, [*rows, []], block).clamp(min=0).cpu())
    each = torch.cat(parts, dim=1).double().numpy()
    nats = [float(one[:, 0].nanmean()) for one in token_surprisal(lm, rows).split(1)]
    drawn = Resamples(len(split), seed=seed)
    closed = [drawn.closed(row, each[-1]) for row in each[:-1]]
    epsilon = np.array([1 - value for value, _, _ in closed])
    frame = pd.DataFrame(
        {
            "method": list(found.values()),
            "text": [lm.decode(row) for row in rows],
            "nats_per_token": nats,
            "epsilon": epsilon,
            "low": [1 - high for _, _, high in closed],
            "high": [1 - low for _, low, _ in closed],
            "smallest": undominated(-epsilon, np.array(nats)),
        }
    )
    return frame.sort_values("nats_per_token", ignore_index=True)
