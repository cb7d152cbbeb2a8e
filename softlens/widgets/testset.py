"""The whole test split, which no edit was chosen by: asked on demand, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.controls import controls
from softlens.errors import SoftlensError
from softlens.evaluation import Outcome, encode_split
from softlens.lm import LM, score_answers
from softlens.tasks import Task
from softlens.widgets.draft import Draft
from softlens.widgets.workbench import GIVEN, NOW, Workbench

CHUNK, LARGE_CHUNK = 256, 16
"""Texts of the test split between two steps of a progress bar, for a small LM and for a large."""
CONTROLS = {"best readable": "readable", "random, mean of 5": "random", "empty": "empty"}

Progress = Callable[[int, int], None]
"""Hears of texts done and of all."""


def score(bench: Workbench, progress: Progress) -> pd.DataFrame:
    """The draft on the whole test split, beside what was given and the controls.

    Columns: ``scored, accuracy, label_mass, loss_nats``.

    Raises:
        SoftlensError: there is no task.
    """
    if bench.task is None:
        raise SoftlensError("Test texts need a task: sl.inspect(lm, prompt, task).")
    lm, drafts = bench.ready, {NOW: bench.draft, GIVEN: Draft.of(bench.given)}
    vectors = [draft.vectors(lm) for draft in drafts.values()]
    outcomes = _scored(lm, bench.task, vectors, progress)
    rows = [
        {"scored": name, "accuracy": o.accuracy, "label_mass": o.label_mass, "loss_nats": o.loss}
        for name, o in zip(drafts, outcomes, strict=True)
    ]
    held = _held(bench, bench.task)
    for name, prefix in CONTROLS.items():
        if f"{prefix}_accuracy" in held:
            keys = {"accuracy": "accuracy", "label_mass": "label_mass", "loss_nats": "loss"}
            numbers = {key: held[f"{prefix}_{of}"] for key, of in keys.items()}
            rows.append({"scored": name, **numbers})
    return pd.DataFrame(rows)


def _held(bench: Workbench, task: Task) -> dict[str, Any]:
    """The controls on the test texts: those of the run, else measured, once for an LM."""
    run = bench.run
    if run is not None and run.config.texts[2] == len(task.test):
        return run.metrics
    return controls(bench.ready, task, bench.given.length, truncate=True).metrics()


def _scored(
    lm: LM,
    task: Task,
    vectors: Sequence[Float[Tensor, "length hidden"]],
    progress: Progress,
) -> list[Outcome]:
    """What prompts do on the whole test split; `progress` hears of texts done and of all."""
    count = len(task.test)
    reserve = max(len(rows) for rows in vectors)
    encoded = encode_split(lm, task, task.test, reserve=reserve, truncate=True)
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    parts = []
    progress(0, count)
    size = CHUNK if lm.is_small else LARGE_CHUNK
    for start in range(0, count, size):
        stop = min(start + size, count)
        part = encoded.subset(range(start, stop))
        parts.append(score_answers(lm, vectors, part, words).log_probs)
        progress(stop, count)
    log_probs = torch.cat(parts, dim=1).numpy()
    return [Outcome(rows, np.array(task.test.labels)) for rows in log_probs]
