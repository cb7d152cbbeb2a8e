"""Interpretability against performance over many runs: fronts, their area, the gap taken apart.

Tables in, tables out; a table has a row a run, as `Sweep.frame`. A seed is one repetition of a
whole experiment, so that everything is first computed within a seed and then averaged: the best
seed alone is never shown. Among the runs of a seed dev selects, and test is what is reported.

Soft prompts have no surprisal of their own and are left out; what they reach is a line beside.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from softlens.errors import SoftlensError
from softlens.organism import readable_front
from softlens.statistics import columns_of, mean_interval, table_of, undominated

log = logging.getLogger(__name__)

GAIN, COST, SELECT = "accuracy", "nats_per_token", "accuracy_dev"
GOLD, BOUND = "gold front", "pooled bound"
SLACK = 1e-3
"""Nats within which a run is as surprising as a prompt of the front: tables of fronts are rounded,
and the very prompt of the front must not be found a hair before it."""
ASKS = 0.5
"""Label mass below which a sentence of the language does not ask for a label word at all."""


def hard_runs(table: Any, needed: Sequence[str] = ()) -> pd.DataFrame:
    """The runs of a table whose prompts are tokens, and so have a surprisal.

    Raises:
        SoftlensError: no table, an empty one, one without a column that is needed, or one of soft
            prompts alone.
    """
    frame = table_of(table, needed)
    if "scored" in frame.columns:
        frame = frame[frame["scored"] != "soft"]
    elif "method" in frame.columns:
        frame = frame[frame["method"] != "soft"]
    if frame.empty:
        raise SoftlensError(
            "Got soft prompts only: they have no text and no surprisal of their own. Add the runs "
            "of a method that finds tokens, as 'pez'."
        )
    return frame.reset_index(drop=True)


def one_lm(frame: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """The table, if all its runs are of one LM (or it does not say of which).

    Args:
        frame: the table.
        apart: columns by which its runs are kept apart; with ``lm`` among them all is well.

    Raises:
        SoftlensError: runs of several LMs, which no mean and no front may mix.
    """
    lms = [*dict.fromkeys(frame["lm"])] if "lm" in frame.columns else []
    if len(lms) > 1 and "lm" not in apart:
        raise SoftlensError(
            f"Got runs of {len(lms)} LMs ({', '.join(map(str, lms))}), wanted those of one: "
            f"sweep.filter(lm={str(lms[0])!r}), or frame[frame['lm'] == {str(lms[0])!r}]."
        )
    return frame


def one_task(frame: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """The table, if all its runs are of one task (or it does not say of which).

    Args:
        frame: the table.
        apart: columns by which its runs are kept apart; with ``task`` among them all is well.

    Raises:
        SoftlensError: runs of several tasks, whose accuracies no front and no line may mix.
    """
    names = [*dict.fromkeys(frame["task"])] if "task" in frame.columns else []
    if len(names) > 1 and "task" not in apart:
        raise SoftlensError(
            f"Got runs of {len(names)} tasks ({', '.join(map(str, names))}) in one group, wanted "
            "those of one: keep them apart with by=['task', ...], or take one with "
            f"sweep.filter(task={str(names[0])!r})."
        )
    return frame


def fronts(
    table: Any,
    by: Sequence[str] = ("task", "method"),
    gain: str = GAIN,
    cost: str = COST,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The Pareto front of each group, with its uncertainty over seeds.

    For each seed: what may be had at each surprisal, the test `gain` of the run that is best on dev
    among those at most so surprising (``chance`` where there is none, which needs no prompt). The
    front is the mean of these steps over seeds, an *attainment function* (Grunert da Fonseca,
    Fonseca and Hall 2001), with a bootstrap interval at each step.

    Args:
        table: a sweep, or its frame: `by`, ``seed``, ``accuracy_dev``, ``chance``, and the two.
        by: columns that make the groups.
        gain: the column that should be high, in [0, 1].
        cost: the column that should be low, in nats per token.
        confidence: of the intervals.

    Returns:
        ``*by, <cost>, mean, low, high, n``: steps from left to right; `n` seeds. The interval is
        NaN, and a warning is logged, where there is one seed.

    Raises:
        SoftlensError: a table that lacks something, of soft prompts only, or of several LMs or
            tasks that `by` does not keep apart.
    """
    by = columns_of(by)
    frame = one_lm(hard_runs(table, [*by, "seed", SELECT, "chance", gain, cost]), by)
    one_task(frame, by)
    parts = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        costs = np.unique(group[cost].dropna())
        for seed, runs in group.groupby("seed"):
            columns: dict[str, Any] = {**dict(zip(by, key, strict=True)), "seed": seed}
            columns |= {cost: costs, "gain": attained(runs, costs, gain, cost)}
            parts.append(pd.DataFrame(columns))
    steps = pd.concat(parts, ignore_index=True)
    found = mean_interval(steps, [*by, cost], "gain", confidence)
    if alone := sorted({str(row[: len(by)]) for row in found[found["n"] < 2].to_numpy().tolist()}):
        log.warning("One seed has no interval: %s. Run at least three.", ", ".join(alone))
    return found


def attained(
    runs: pd.DataFrame, costs: Sequence[float] | np.ndarray, gain: str = GAIN, cost: str = COST
) -> np.ndarray:
    """Test gain of the run that is best on dev among those that cost at most each of `costs`.

    Of equals on dev, the cheapest. Chance where nothing is so cheap.
    """
    order = runs.dropna(subset=[cost]).sort_values([cost, SELECT], ascending=[True, False])
    best_dev, reached = -np.inf, float(runs["chance"].iloc[0])
    values = np.full(len(costs), reached)
    for at, dev, value in order[[cost, SELECT, gain]].to_numpy():
        if dev > best_dev:
            best_dev = dev
            values[np.asarray(costs) >= at] = value
    return values


def reference(frame: pd.DataFrame, gain: str = GAIN, cost: str = COST) -> pd.DataFrame:
    """What could be had at each surprisal, for each task of a table.

    On the organism's own tasks the *gold front*: of all questions of its language that ask for a
    label word, those that none beats (`softlens.organism.readable_front`). They are five tokens
    long, and a few six: prompts of other lengths are held against the same sentences. Elsewhere
    nobody knows it, and the *pooled bound* takes its place: the best of all methods and seeds
    together, chosen on dev. The true front lies on or above it.

    Returns:
        ``task, reference, text, <cost>, <gain>``, steps from left to right.

    Raises:
        SoftlensError: runs of several LMs.
    """
    parts = []
    scored = readable_front()
    for task, runs in one_lm(frame).groupby("task", sort=False):
        gold = scored[scored["task"] == task]
        # A file may be called as a task of the organism is; then nobody knows what it asks for.
        asked = "asked_for" not in runs or runs["asked_for"].notna().any()
        if set(runs["lm"]) == {"organism"} and len(gold) and asked:
            known = gold[gold["label_mass"] >= ASKS]
            best, name = undominated(known[gain].to_numpy(), known[cost].to_numpy()), GOLD
        else:
            known = table_of(runs, [SELECT, "text"]).dropna(subset=[cost, SELECT])
            best, name = undominated(known[SELECT].to_numpy(), known[cost].to_numpy()), BOUND
        front = known[best].sort_values(cost)[["text", cost, gain]]
        parts.append(front.assign(task=task, reference=name))
    found = pd.concat(parts, ignore_index=True)
    return found[["task", "reference", "text", cost, gain]]


def price_split(
    table: Any, gold: pd.DataFrame | None = None, gain: str = GAIN, cost: str = COST
) -> pd.DataFrame:
    """The gap of each run to the best readable prompt, in two parts that add up to it.

    *Price of interpretability*: what the front itself loses at the run's surprisal; nobody who
    wants a prompt so fluent can have more. *Price of the optimiser*: the rest, what could be had at
    that surprisal and was not found. It is negative for a run above the front: a prompt that is no
    sentence, and does the task.

    Args:
        table: a sweep, or its frame: ``task, lm, chance`` and the two columns; where a bound is
            pooled, ``accuracy_dev, text``, too.
        gold: ``task, <cost>, <gain>`` of prompts that could be had, ``reference`` if it has a name;
            None: what `reference` gives.
        gain: the column that should be high, in [0, 1].
        cost: the column that should be low, in nats per token.

    Returns:
        The rows of `table` (soft prompts left out) and ``reference, best, reachable, gap,
        price_of_interpretability, price_of_optimiser``. Below the most fluent prompt of the front
        chance is reachable. With a pooled bound in place of the gold front both `gap` and
        `price_of_optimiser` are at least what is written.

    Raises:
        SoftlensError: a table that lacks something, or has runs of several LMs; a task without a
            reference.
    """
    frame = one_lm(hard_runs(table, ["task", "lm", "chance", gain, cost]))
    front = reference(frame, gain, cost) if gold is None else table_of(gold, ["task", gain, cost])
    parts = []
    for task, runs in frame.groupby("task", sort=False):
        known = front[front["task"] == task]
        if known.empty:
            raise SoftlensError(
                f"No prompt of the task {task!r} is in gold; it has {list(front['task'].unique())}."
            )
        best = known[undominated(known[gain].to_numpy(), known[cost].to_numpy())]
        best = best.sort_values(cost)
        # A front whose steps are chosen on dev may fall on test; what is had stays had.
        steps = np.maximum.accumulate(best[gain].to_numpy())
        place = np.searchsorted(best[cost].to_numpy(), runs[cost].to_numpy() + SLACK, side="right")
        floor = np.minimum(runs["chance"].to_numpy(), steps[-1])
        reachable = np.where(place > 0, steps[np.maximum(place - 1, 0)], floor)
        reachable = np.maximum(reachable, floor)
        name = known["reference"].iloc[0] if "reference" in known else "given front"
        parts.append(
            runs.assign(
                reference=name,
                best=steps[-1],
                reachable=reachable,
                gap=steps[-1] - runs[gain],
                price_of_interpretability=steps[-1] - reachable,
                price_of_optimiser=reachable - runs[gain],
            )
        )
    return pd.concat(parts).sort_index()


def hypervolume(
    table: Any,
    by: Sequence[str] = ("task", "method"),
    most: float | int | None = None,
    gain: str = GAIN,
    cost: str = COST,
) -> pd.DataFrame:
    """The area between each seed's front and chance: 1 if all were right at no surprisal.

    Args:
        table: a sweep, or its frame, as for `fronts`.
        by: columns that make the groups.
        most: surprisal up to which the area is taken; None: the largest of the table's task, the
            same for all groups of a task.
        gain: the column that should be high.
        cost: the column that should be low.

    Returns:
        ``*by, seed, hypervolume, most``; `softlens.statistics.mean_interval` averages over seeds.

    Raises:
        SoftlensError: a table without what is needed or of several LMs or tasks that `by` does not
            keep apart, or a `most` that is not above 0.
    """
    by = columns_of(by)
    frame = one_lm(hard_runs(table, [*by, "task", "seed", SELECT, "chance", gain, cost]), by)
    one_task(frame, by)
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        alike = frame[frame["task"] == group["task"].iloc[0]]
        end = float(alike[cost].max()) if most is None else float(most)
        if end <= 0:
            raise SoftlensError(f"Got most={most}, wanted a surprisal above 0 nats per token.")
        for seed, runs in group.groupby("seed"):
            area = _area(runs, end, gain, cost)
            named = dict(zip(by, key, strict=True))
            rows.append({**named, "seed": seed, "hypervolume": area, "most": end})
    return pd.DataFrame(rows)


def _area(runs: pd.DataFrame, end: float, gain: str, cost: str) -> float:
    costs = np.unique(runs[cost].dropna())
    costs = costs[costs < end]
    chance = float(runs["chance"].iloc[0])
    heights = attained(runs, costs, gain, cost) - chance
    return float((heights * np.diff([*costs, end])).sum() / (end * (1 - chance)))
