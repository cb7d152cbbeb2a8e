"""The whole test split, which no edit was chosen by: asked on demand, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.controls import controls, controls_to_score
from softlens.errors import SoftlensError
from softlens.evaluation import Outcome, encode_split
from softlens.lm import LM, Hears, score_answers
from softlens.tasks import Task
from softlens.widgets.draft import Draft
from softlens.widgets.workbench import GIVEN, NOW, Workbench

CONTROLS = {"best readable": "readable", "random, mean of 5": "random", "empty": "empty"}

Progress = Callable[[int, int], None]
"""Hears of pairs of a prompt and a text that are done, and of all."""


def score(bench: Workbench, progress: Progress) -> pd.DataFrame:
    """The draft on the whole test split, beside what was given and the controls.

    Columns: ``scored, accuracy, label_mass, loss_nats``.

    Raises:
        SoftlensError: the LM is not at hand; there is no task.
    """
    lm, drafts = bench.ready, {NOW: bench.draft, GIVEN: Draft.of(bench.given)}
    if bench.task is None:
        raise SoftlensError("Test texts need a task: sl.inspect(lm, prompt, task).")
    vectors = [draft.vectors(lm) for draft in drafts.values()]
    known = _known(bench, bench.task)
    of, done = len(vectors) * len(bench.task.test), 0
    if known is None:
        of += controls_to_score(lm, bench.task, bench.given.length, truncate=True)

    def hears(pairs: int) -> None:
        nonlocal done
        done += pairs
        progress(done, of)

    hears(0)
    outcomes = _scored(lm, bench.task, vectors, hears)
    rows = [
        {"scored": name, "accuracy": o.accuracy, "label_mass": o.label_mass, "loss_nats": o.loss}
        for name, o in zip(drafts, outcomes, strict=True)
    ]
    held = known
    if held is None:
        beside = controls(lm, bench.task, bench.given.length, truncate=True, hears=hears)
        held = beside.metrics()
    # Equal prompts are scored once.
    progress(of, of)
    for name, prefix in CONTROLS.items():
        if f"{prefix}_accuracy" in held:
            keys = {"accuracy": "accuracy", "label_mass": "label_mass", "loss_nats": "loss"}
            numbers = {key: held[f"{prefix}_{theirs}"] for key, theirs in keys.items()}
            rows.append({"scored": name, **numbers})
    return pd.DataFrame(rows)


def _known(bench: Workbench, task: Task) -> dict[str, Any] | None:
    """The controls on the test texts, where the run has them."""
    run = bench.run
    return run.metrics if run is not None and run.has_controls_of(bench.ready, task) else None


def _scored(
    lm: LM, task: Task, vectors: Sequence[Float[Tensor, "length hidden"]], hears: Hears
) -> list[Outcome]:
    """What prompts do on the whole test split."""
    reserve = max(len(rows) for rows in vectors)
    encoded = encode_split(lm, task, task.test, reserve=reserve, truncate=True)
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    log_probs = score_answers(lm, vectors, encoded, words, hears).log_probs.numpy()
    return [Outcome(rows, np.array(task.test.labels)) for rows in log_probs]
