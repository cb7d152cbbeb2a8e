"""The report: one prompt, its readings side by side, what they are worth, and the verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from softlens import files
from softlens.attribution import Attribution, attribute
from softlens.controls import controls
from softlens.decode import NearestTokens, nearest_tokens
from softlens.display import Result
from softlens.errors import SoftlensError, near
from softlens.evaluation import evaluate
from softlens.framework import page
from softlens.framework.criterion import Criterion, Verdict, judged
from softlens.framework.faithfulness import Faithfulness, faithfulness_all, with_interval
from softlens.framework.scrutability import Scrutability, judge_of, scrutability
from softlens.framework.texts import OTHER
from softlens.lm import LM
from softlens.prompts import LMName, Prompt, PromptLike, as_prompt
from softlens.readings import READERS, Reading, read
from softlens.readings.base import stands_inside
from softlens.readings.frame import frame_of
from softlens.surprisal import Surprisal, surprisal
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

NEIGHBOURS = 5
"""Nearest tokens that the report shows of each position."""


@dataclass(frozen=True, repr=False)
class Report(Result):
    """What one prompt says, and whether that can be trusted."""

    lm: LMName
    task: str
    template: str
    length: int
    """Positions of the prompt."""
    readings: tuple[Reading, ...]
    faithfulness: tuple[Faithfulness, ...]
    scrutability: tuple[Scrutability, ...]
    verdict: Verdict
    seed: int
    """Of methods that draw, and of the bootstrap."""
    views: tuple[NearestTokens, Surprisal, Attribution]
    """Of the prompt itself: nearest tokens, their surprisal, which positions carry the answer."""
    controls: pd.DataFrame = field(repr=False, compare=False)
    """What the prompt itself scores on the texts of `faithfulness`, above the best readable prompt,
    random ones and none: ``prompt, accuracy, accuracy_calibrated, label_mass, loss``."""
    seconds: float
    """That the report took."""
    notes: tuple[str, ...] = field(default=())
    """What was left out, and why."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row a reading, from ``method, reading`` to ``passed, failed`` (the clauses).

        Between them its faithfulness on test texts, with the ends of the interval of the share of
        KL closed, and every gauge.
        """
        rows = []
        for fit, gauges in zip(self.faithfulness, self.scrutability, strict=True):
            clauses = self.verdict.frame[self.verdict.frame["method"] == fit.reading.method]
            _, low, high = fit.interval("kl_closed")
            failed = [
                str(row["clause"]) for row in clauses.to_dict("records") if row["passed"] is False
            ]
            tokens = gauges.frame[gauges.frame["scored"] == "tokens"]
            rows.append(
                {
                    "method": fit.reading.method,
                    "reading": fit.reading.shown,
                    "accuracy_prompt": fit.accuracy_prompt,
                    "accuracy_reading": fit.accuracy_reading,
                    "accuracy_empty": fit.accuracy_empty,
                    "accuracy_random": fit.accuracy_random,
                    "agreement": fit.agreement,
                    "kl_labels": fit.kl_labels,
                    "kl_vocab": fit.kl_vocab,
                    "kl_closed": fit.kl_closed,
                    "kl_closed_low": low,
                    "kl_closed_high": high,
                    **dict(zip(tokens["gauge"], tokens["value"], strict=True)),
                    "passed": not failed,
                    "failed": "; ".join(failed),
                }
            )
        return pd.DataFrame(rows)

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        one = self.faithfulness[0]
        return (
            f"report on a prompt of {self.length} for {self.task!r} on {self.lm.name!r} (accuracy "
            f"{one.accuracy_prompt:.3f}, empty {one.accuracy_empty:.3f}): {self.verdict.headline}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The readings side by side, with 95% intervals over texts."""
        rows = []
        for fit, row in zip(self.faithfulness, self.frame.to_dict("records"), strict=True):
            cells = {
                "method": row["method"],
                "reading": row["reading"],
                "accuracy": with_interval(*fit.interval("accuracy")),
                "agreement": with_interval(*fit.interval("agreement")),
                "KL closed": with_interval(*fit.interval("kl_closed")),
                "nats/token": f"{row['nats_per_token']:.2f}",
            }
            if row["asks_for"] is not None:
                cells |= {"asks for": row["asks_for"]}
            rows.append(cells | {"verdict": "pass" if row["passed"] else "FAIL"})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        notes = "".join(f"\n{note}" for note in self.notes)
        controls = page.scores(self).to_string(index=False)
        return f"{super().__repr__()}\n\n{controls}\n\n{self.verdict!r}{notes}"

    def _repr_html_(self) -> str:
        return (
            f"{page.verdict_line(self.verdict)}{super()._repr_html_()}"
            f"{page.table(page.scores(self))}{page.table(self.verdict.table)}{page.notes(self)}"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The smallest faithfulness gap at each price of surprisal."""
        return self.verdict.plot(ax)

    def save(self, path: str | Path) -> Path:
        """Write the report as one file: ``.html``, self-contained, or ``.json``.

        Raises:
            SoftlensError: another ending.
        """
        path = Path(path)
        if path.suffix == ".json":
            files.write_json(path, self.to_dict())
        elif path.suffix == ".html":
            files.write_atomic(path, self.to_html().encode())
        else:
            raise SoftlensError(f"Got {path.name!r}, wanted a name that ends in .html or .json.")
        return path

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON takes it: numbers that are none are null."""
        return page.record(self)

    def to_html(self) -> str:
        """One page that needs nothing else: no network, no script, pictures inside."""
        return page.whole(self)

    @property
    def best(self) -> Faithfulness:
        """Faithfulness of the reading that passes, else of the most faithful one."""
        for fit in self.faithfulness:
            if fit.reading.method == self.verdict.by:
                return fit
        return max(self.faithfulness, key=lambda fit: fit.kl_closed)


def report(
    lm: LM,
    task: Task,
    prompt: Prompt | str | PromptLike,
    *,
    methods: Sequence[str] | None = None,
    readings: Sequence[Reading | str] = (),
    judge: LM | str | None = None,
    criterion: Criterion | None = None,
    texts: int = 512,
    other: Task | Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    options: dict[str, dict[str, Any]] | None = None,
) -> Report:
    """Ask one question of a prompt from anywhere: what does it say, and can we trust that?

    Args:
        lm: the LM the prompt was made for.
        task: what it is for.
        prompt: the prompt; or a text, a `Run`, a `Reading` (the tokens it found).
        methods: of reading, as `softlens.reading_methods` lists them; None: all that apply.
        readings: further ones: made before, or texts of your own.
        judge: a second LM for the gauges that need one, or its name; None as in `scrutability`.
        criterion: epsilon and delta; `Criterion`'s own unless given.
        texts: test texts at most.
        other: texts off the training distribution, as in `faithfulness`.
        seed: of methods that draw, and of the bootstrap.
        progress: show bars.
        options: of methods, by their name: ``{"matched": {"evaluations": 10_000}}``.

    Raises:
        SoftlensError: whatever reading, faithfulness or scrutability refuse.
    """
    began, notes = time.perf_counter(), []
    prompt = as_prompt(lm, prompt, stands_inside(task))
    judge = judge_of(lm, judge)
    chosen = list(READERS) if methods is None else list(methods)
    if not chosen and not readings:
        raise SoftlensError(
            f"Got no methods of reading and no readings, wanted some of {[*READERS]}."
        )
    given = options or {}
    for name in given:
        if name not in chosen:
            raise SoftlensError(
                f"Got options for {name!r}, which is not asked for.{near(name, chosen)} Asked for: "
                f"{chosen}."
            )
    if methods is None and not any(frame_of(task.template)):
        chosen.remove("frame")
        notes.append(f"No reading by 'frame': the template {task.template!r} has no frame.")
    claims = [Reading.from_text(lm, r, task=task) if isinstance(r, str) else r for r in readings]
    for claim in claims:
        claim.check(lm)
    found = tuple(
        read(lm, prompt, name, task, seed=seed, progress=progress, **given.get(name, {}))
        for name in chosen
    )
    found = _named_apart((*found, *claims))
    faithful = tuple(faithfulness_all(lm, task, prompt, found, texts=texts, other=other, seed=seed))
    gauged = tuple(scrutability(lm, task, reading, judge) for reading in found)
    if OTHER not in set(faithful[0].frame["domain"]):
        notes.append("No texts of another kind: pass other=, a task or texts, to test on them too.")
    if judge is None:
        notes.append("No judge: pass judge=, another LM, for the gauges that need one.")
    elif gauged[0].judged_by_itself:
        notes.append(
            f"The judge {gauged[0].judge!r} is the tuned LM itself: its gauges are not held out, "
            "and the clauses about it are not tested. Pass another."
        )
    broken = [reading.method for reading in found if not reading.round_trip]
    if broken:
        notes.append(f"Typed in, the readings by {', '.join(broken)} have other tokens.")
    few = task.head(test=min(texts, len(task.test)))
    scored = evaluate(lm, few, prompt, truncate=True)
    beside = controls(lm, few, prompt.length, truncate=True).beside(scored)
    if not task.readable:
        notes.append("No best readable prompt: the task lists none (readable=).")
    verdict = judged(lm, task, prompt, faithful, gauged, criterion, texts, seed, judge)
    return Report(
        lm=prompt.lm,
        task=task.name,
        template=task.template,
        length=prompt.length,
        readings=found,
        faithfulness=faithful,
        scrutability=gauged,
        verdict=verdict,
        seed=seed,
        views=(
            nearest_tokens(lm, prompt, k=NEIGHBOURS),
            surprisal(lm, prompt, task),
            attribute(lm, task, prompt, seed=seed, truncate=True, progress=progress),
        ),
        controls=beside,
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
    )


def _named_apart(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """The readings, numbered where two were obtained in the same way."""
    seen: dict[str, int] = {}
    named = []
    for reading in readings:
        times = seen[reading.method] = seen.get(reading.method, 0) + 1
        method = reading.method if times == 1 else f"{reading.method} {times}"
        named.append(replace(reading, method=method))
    return tuple(named)
