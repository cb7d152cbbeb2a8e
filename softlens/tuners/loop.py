"""The loop that runs any tuner: step, look at dev now and then, keep the best."""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import FreeOptions, Problem, Tuner, TunerOptions

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted"


@dataclass
class Outcome:
    """What a loop leaves: the best proposal on dev, and how it went."""

    vectors: Tensor
    token_ids: list[int]
    accuracy_dev: float
    loss_dev: float
    objective_dev: float
    ended: str = "all steps done"
    steps: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)
    """Free vectors by step, as `FreeOptions.keep_vectors` asks for them."""

    def keep(self, other: "Outcome") -> None:
        """Take over another proposal and what it is worth; how the loop went stays."""
        self.vectors, self.token_ids = other.vectors, other.token_ids
        self.accuracy_dev, self.loss_dev = other.accuracy_dev, other.loss_dev
        self.objective_dev = other.objective_dev

    def keep_vectors(self, step: int, vectors: Tensor, every: int) -> None:
        """Keep those of a step, until a later one's if its turn is not now."""
        if (last := max(self.kept, default=0)) % every:
            del self.kept[last]
        self.kept[step] = vectors.clone()

    @property
    def history(self) -> pd.DataFrame:
        """One row a step; dev columns are NaN between looks."""
        return pd.DataFrame(self.rows)


def run_loop(
    tuner: Tuner,
    problem: Problem,
    objective: Objective,
    options: TunerOptions,
    steps: int,
    progress: bool,
) -> Outcome:
    """Step, look at dev now and then, keep the best; stop early, on NaN, or on Ctrl-C.

    The best is the most accurate on dev (of equals, the one with the lowest loss), or with proxies
    the one with the lowest objective on dev. Both are over the label words and calibrated if the
    loss is; neither the vocabulary (`loss`) nor label mass (`mass`) has a say, but for methods that
    keep a best of their own.
    """
    began, before = time.perf_counter(), objective.evaluations
    best = look(tuner, problem, objective)
    start, every = tuner.token_ids, max(1, steps // options.evaluations_of_dev)
    stale, keep = 0, options.keep_vectors if isinstance(options, FreeOptions) else None
    bar = tqdm(range(1, steps + 1), desc=problem.task.name, disable=not progress, leave=False)
    try:
        for step in bar:
            row: dict[str, Any] = dict(tuner.step())
            if not math.isfinite(row["objective"]) or not torch.isfinite(tuner.vectors).all():
                best.ended = "stopped: the loss was not a number"
                log.warning(
                    "Step %d: the loss is not a number; keeping the best prompt so far. "
                    "Try a lower learning rate.",
                    step,
                )
                break
            changed = sum(a != b for a, b in zip(tuner.token_ids, start, strict=True))
            row = {"step": step, **row, "tokens_changed": changed}
            looked = None
            if step % every == 0 or step == steps or tuner.finished:
                looked = look(tuner, problem, objective)
            dev = (looked.accuracy_dev, looked.loss_dev) if looked else (math.nan, math.nan)
            spent = objective.evaluations - before
            ids = " ".join(map(str, tuner.token_ids))
            row |= {"token_ids": ids, "accuracy_dev": dev[0], "loss_dev": dev[1]}
            best.rows.append(row | {"evaluations": spent})
            best.steps = step
            if keep is not None:
                best.keep_vectors(step, tuner.free, keep)
            if looked is not None:
                bar.set_postfix(objective=f"{row['objective']:.3f}", dev=f"{dev[0]:.3f}")
                if tuner.keeps_best or _better(looked, best, objective):
                    best.keep(looked)
                    stale = 0
                elif (stale := stale + 1) >= options.patience:
                    best.ended = "stopped early: dev no longer improved"
                    break
            if tuner.finished:
                best.ended = tuner.finished
                break
    except KeyboardInterrupt:
        best.ended = INTERRUPTED
        log.warning("Interrupted after %d steps; keeping the best prompt so far.", best.steps)
        # What it holds was not looked at on dev yet, and may be better than all that was.
        last = _last_look(tuner, problem, objective)
        if tuner.keeps_best or _better(last, best, objective):
            best.keep(last)
    finally:
        bar.close()
        best.evaluations = objective.evaluations - before
        best.seconds = time.perf_counter() - began
    return best


@torch.no_grad()
def look(tuner: Tuner, problem: Problem, objective: Objective) -> Outcome:
    """The current proposal, and what it is worth on dev."""
    vectors = tuner.vectors.clone()
    accuracy, loss = problem.on_dev(vectors, objective.calibrated)
    objective.evaluations += len(problem.dev)
    total = loss
    if (own := objective.of_prompts).weighs:
        ids = torch.tensor([tuner.token_ids], device=vectors.device)
        free = tuner.free[None]
        proposals = Proposals(objective.setting, ids, vectors[None], free, texts=problem.dev)
        total += float(own.penalty(own.scores(proposals)))
        objective.evaluations += own.evaluations
    return Outcome(vectors, tuner.token_ids, accuracy, loss, total)


def _last_look(tuner: Tuner, problem: Problem, objective: Objective) -> Outcome:
    """What a tuner holds when it is interrupted; unmeasured if that is interrupted, too."""
    try:
        return look(tuner, problem, objective)
    except KeyboardInterrupt:
        log.warning("Interrupted again; what the prompt is worth on dev is not known.")
        return Outcome(tuner.vectors.clone(), tuner.token_ids, math.nan, math.nan, math.nan)


def _better(new: Outcome, old: Outcome, objective: Objective) -> bool:
    if objective.of_prompts.weighs:
        return new.objective_dev < old.objective_dev
    return (new.accuracy_dev, -new.loss_dev) > (old.accuracy_dev, -old.loss_dev)
