"""What a run will cost, from a few measured steps, before it is started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from softlens.controls import RANDOM_PROMPTS
from softlens.display import Result, visible
from softlens.errors import SoftlensError
from softlens.evaluation import encode_split
from softlens.lm import LM, EncodedTexts, score_answers
from softlens.lm.transformer import prefill
from softlens.objectives import Objective
from softlens.runs import RunConfig
from softlens.shortage import WHAT_TO_LOWER, ShortageError, explains_shortage
from softlens.sweeps.cells import Cell
from softlens.sweeps.memory import MemoryWatch
from softlens.tasks import Task
from softlens.tuners import TUNERS, run_config
from softlens.tuners.base import Problem

log = logging.getLogger(__name__)

SAMPLE_TEXTS = 48
"""Texts on which scoring is measured."""
WARM_STEPS, MEASURED_STEPS, MEASURED_SECONDS = 1, 4, 2.0
"""Steps that are not counted, and how many or how long is measured."""
SHARES = (0.04, 0.12)
"""Of a search's budget, whose two times give its cost at the start and for each evaluation."""
LEAST_EVALUATIONS = 600


@dataclass(frozen=True, repr=False)
class Estimate(Result):
    """Time and memory of one run; of all its steps, so that one that stops early takes less."""

    seconds: float
    """Of the whole run, with its controls and its evaluation on test."""
    peak_bytes: int
    """Of this process (on a GPU: of the GPU) while it runs."""
    available_bytes: int
    """What the process may grow to: what it has, and what is free."""
    config: RunConfig = field(repr=False)
    """What was estimated."""
    frame: pd.DataFrame = field(repr=False)
    """``part, times, seconds_each, seconds``: what the time is made of."""

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.peak_bytes <= self.available_bytes

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        c = self.config
        return (
            f"{c.method} prompt of {c.length} for {c.task!r} on {c.lm!r}: about "
            f"{in_words(self.seconds)} (less if it stops early), {self.peak_bytes / 1e9:.2f} GB of "
            f"memory at its peak, {self.available_bytes / 1e9:.1f} GB there"
            + ("" if self.fits else ": NOT ENOUGH")
        )

    @property
    def table(self) -> pd.DataFrame:
        """The parts."""
        return visible(self.frame)

    def plot(self, ax: Any = None) -> Any:
        """The parts of the time."""
        import matplotlib.pyplot as plt

        from softlens.plots import style

        with style():
            if ax is None:
                _, ax = plt.subplots(figsize=(5, 0.4 * len(self.frame) + 0.8))
            ax.barh(self.frame["part"], self.frame["seconds"], color="0.5")
            ax.invert_yaxis()
            ax.set_xlabel("seconds")
        return ax

    def check(self) -> Estimate:
        """Itself, if there is memory enough.

        Raises:
            SoftlensError: the run would need more than there is; with the numbers, and what to try.
        """
        if self.fits:
            return self
        raise ShortageError(
            f"The run would need {self.peak_bytes / 1e9:.2f} GB, and there is "
            f"{self.available_bytes / 1e9:.2f} GB. {WHAT_TO_LOWER}"
        )


@explains_shortage
def estimate(
    lm: LM,
    task: Task,
    method: str = "soft",
    length: int = 5,
    proxies: Mapping[str, float | int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    judge: LM | None = None,
    description: str | None = None,
    **options: Any,
) -> Estimate:
    """What `tune` with these arguments will take: seconds and memory, from a few measured steps.

    Steps, looks at dev, and the scoring of texts are measured on a few and multiplied; a search,
    whose step is all of it, is measured with two small budgets. What the LM remembers already
    (keys and values of texts, controls) is not counted again.

    Args:
        lm: the LM.
        task: what would be trained for.
        method: a name of a tuner.
        length: of the prompt, in positions.
        proxies: proxies of interpretability and their weights.
        steps: of the training; None: the method's own for such an LM.
        seed: of the steps that are measured.
        judge: another LM, for proxies that need one.
        description: of the task, for proxies that need one.
        **options: the method's own.

    Raises:
        SoftlensError: what `tune` would refuse; out of memory while measuring.
    """
    config = run_config(
        lm, task, method, length, proxies, steps, seed, judge, description, **options
    )
    tuner_class = TUNERS[method]
    chosen = tuner_class.Options(**config.options)
    memory = MemoryWatch(lm)
    with memory:
        began = time.perf_counter()
        problem = Problem.encode(lm, task, length, chosen.truncate, chosen.ban)
        setting = problem.setting(judge, description)
        tuner_class.check(method, config.proxies, setting, length)
        test = encode_split(lm, task, task.test, reserve=length, truncate=chosen.truncate)
        parts = [("encoding the texts", 2.0, (time.perf_counter() - began) / 2)]
        cold = [t for t in (problem.train, problem.dev, test) if t.groups]
        parts.append(("keys and values of the texts", *_prefills(lm, cold)))
        one, many = _scoring(lm, problem, length)

        def begun(chosen_now: Any) -> Any:
            objective = Objective(
                setting, config.proxies, chosen.loss, chosen.calibrated, chosen.mass
            )
            return tuner_class(problem, objective, chosen_now, config.steps, seed)

        if tuner_class.in_evaluations:
            parts += _search(begun, chosen)
            looks = 2
        else:
            each = _steps(begun(chosen), config.steps)
            parts.append(("steps", float(config.steps * chosen.starts), each))
            looks = chosen.evaluations_of_dev + 1
    parts.append(("looks at dev", float(looks * chosen.starts * len(problem.dev)), one))
    beside = ("control metrics", task, length, chosen.truncate)
    if beside not in lm.memo and ("controls", *beside[1:]) not in lm.memo:
        asked = len(task.readable) * len(problem.dev)
        asked += (1 + RANDOM_PROMPTS + bool(task.readable)) * (len(test) + len(problem.train))
        parts.append(("controls", float(asked), many))
    parts.append(("evaluation on test", float(len(test) + len(problem.train)), one))
    frame = pd.DataFrame(
        [
            {"part": name, "times": n, "seconds_each": each, "seconds": n * each}
            for name, n, each in parts
        ]
    )
    texts = [*problem.train.befores, *problem.dev.befores, *test.befores]
    to_keep = min(lm.cache.limit, lm.cache.estimate(texts)) if cold else 0
    peak = memory.peak + max(0, to_keep - memory.cached)
    seconds = float(frame["seconds"].sum())
    return Estimate(seconds, peak, memory.ceiling, config, frame)


def forecast(lm: LM, task: Task, cells: Sequence[Cell], judge: LM | None = None) -> pd.DataFrame:
    """What cells will take, from one estimate a method: ``method, cells, seconds_each, seconds``.

    A method that cannot be estimated is left out: its cells will say why.

    Raises:
        SoftlensError: one of them needs more memory than there is.
    """
    by_method: dict[str, list[Cell]] = {}
    for cell in cells:
        by_method.setdefault(cell.run.method, []).append(cell)
    rows = []
    for method, some in by_method.items():
        # The one with the most proxies costs the most.
        c = max((cell.run for cell in some), key=lambda run: (run.length, len(run.proxies)))
        steps = None if TUNERS[method].in_evaluations else c.steps
        given = (lm, task, method, c.length, c.proxies, steps, c.seed, judge, c.description)
        try:
            found = estimate(*given, **c.options)
        except ShortageError:
            raise
        except SoftlensError as reason:
            log.info("No estimate for %s: %s", method, reason)
            continue
        found.check()
        # Texts and controls are computed once for all.
        once = found.frame["part"].isin(["keys and values of the texts", "controls"])
        each = float(found.frame["seconds"][~once].sum())
        rows.append((method, len(some), each, each * len(some)))
    return pd.DataFrame(rows, columns=["method", "cells", "seconds_each", "seconds"])


def in_words(seconds: float | int) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _prefills(lm: LM, cold: list[EncodedTexts]) -> tuple[float, float]:
    """How many tokens are still to be computed, padding counted, and the seconds of each."""
    groups = {group for texts in cold for group in texts.groups.values()}
    groups = {group for group in groups if not lm.cache.holds(group)}
    if not groups:
        return 0.0, 0.0
    sizes = {group: len(group) * max(map(len, group)) for group in groups}
    middle = sorted(groups, key=lambda group: sizes[group])[len(groups) // 2]
    with torch.no_grad():
        seconds = min(_timed(lambda: prefill(lm.model, middle)) for _ in range(2))
    return float(sum(sizes.values())), seconds / sizes[middle]


def _scoring(lm: LM, problem: Problem, length: int) -> tuple[float, float]:
    """Seconds of one prompt on one text: of one prompt at a time, and of several together."""
    some = list(range(0, len(problem.train), max(1, len(problem.train) // SAMPLE_TEXTS)))
    texts = problem.train.subset(some[:SAMPLE_TEXTS])
    row = problem.start_ids(None, 0)
    found = []
    for count in (1, 8):
        ask = lambda: score_answers(lm, [row] * count, texts, problem.words)  # noqa: B023, E731
        ask()
        found.append(min(_timed(ask) for _ in range(2)) / (count * len(texts)))
    return found[0], found[1]


def _steps(tuner: Any, most: int) -> float:
    """Seconds a step: the median of a few, after a warm-up."""
    times: list[float] = []
    while len(times) < min(most, WARM_STEPS + MEASURED_STEPS) or (
        sum(times) < MEASURED_SECONDS and len(times) < min(most, 10 * MEASURED_STEPS)
    ):
        times.append(_timed(tuner.step))
        if tuner.finished:
            break
    counted = times[WARM_STEPS:] or times
    return float(pd.Series(counted).median())


def _search(begun: Callable[[Any], Any], chosen: Any) -> list[tuple[str, float, float]]:
    """Seconds of a search by its budget: what it begins with, and each evaluation."""
    whole = chosen.evaluations
    spent, seconds = [], []
    for share in SHARES:
        budget = min(whole, max(LEAST_EVALUATIONS, int(whole * share)))
        tuner = begun(chosen.model_copy(update={"evaluations": budget}))
        before = tuner.objective.evaluations

        def all_of_it(tuner: Any = tuner) -> None:
            while not tuner.finished:
                tuner.step()

        seconds.append(_timed(all_of_it))
        spent.append(max(1, tuner.objective.evaluations - before))
        if budget == whole:
            return [("search", 1.0, seconds[-1])]
    rate = max(0.0, (seconds[1] - seconds[0]) / max(1, spent[1] - spent[0]))
    rate = rate or seconds[1] / spent[1]
    start = max(0.0, seconds[1] - rate * spent[1])
    return [("beginning of the search", 1.0, start), ("evaluations", float(whole), rate)]
