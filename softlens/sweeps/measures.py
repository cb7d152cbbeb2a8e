"""One row of a sweep's table: what is measured about a finished run."""

import math
from typing import Any

from softlens.catalogue import is_named
from softlens.decode import nearest_tokens
from softlens.evaluation import evaluate
from softlens.framework.gauges import GAUGES, Gauged
from softlens.lm import LM, token_surprisal
from softlens.organism import TASK_ASKS, speaks
from softlens.prompts import Prompt
from softlens.readings.base import Reading, stands_inside
from softlens.runs import Run
from softlens.sweeps.cells import Cell
from softlens.tasks import BETWEEN, Task
from softlens.tuners.base import Problem

OF_RUN = (
    "scored", "accuracy", "accuracy_calibrated", "accuracy_vocab", "accuracy_dev", "label_mass",
    "loss", "least_share", "most_share", "nats_per_token",
)  # fmt: skip
"""Columns that `tune` measures: those of the prompt itself ..."""
BESIDE = (
    "empty_accuracy", "empty_label_mass", "random_accuracy", "random_label_mass",
    "readable_accuracy", "readable_label_mass", "readable_text",
)  # fmt: skip
"""... of its controls ..."""
SPENT = ("evaluations", "steps", "starts", "seconds", "ended")
"""... and what it cost."""
OF_TEXT = (
    "perplexity", "max_surprisal", "repetition", "judge_perplexity", "transfer_accuracy",
    "transfer_agreement", "round_trip", "grammatical", "asks_for",
)  # fmt: skip
"""Gauges of scrutability; of a soft prompt they are those of its nearest tokens."""
OF_SOFT = ("nearest_accuracy", "nearest_label_mass")
PLACE = ("cell", "lm", "lm_checksum", "task", "method", "length", "seed", "proxy", "weight")
COLUMNS = (
    *PLACE, "text", *OF_RUN, "nats_after_texts", *OF_TEXT, "asked_for", "label_words", *OF_SOFT,
    *BESIDE, "chance", *SPENT, "token_ids",
)  # fmt: skip
WORDS = (
    "cell", "lm", "lm_checksum", "task", "method", "proxy", "text", "scored", "round_trip",
    "grammatical", "asks_for", "asked_for", "label_words", "readable_text", "ended", "token_ids",
)  # fmt: skip
"""Columns that are no numbers."""


def measure(lm: LM, task: Task, cell: Cell, run: Run, judge: LM | None) -> dict[str, Any]:
    """The row of a finished run: all of `COLUMNS`; None where one does not apply.

    Args:
        lm: the LM that was tuned.
        task: the task.
        cell: what was asked for.
        run: what came of it.
        judge: another LM, for the held-out gauges.
    """
    m = run.metrics
    row = cell.place | {key: m.get(key) for key in (*OF_RUN, *BESIDE, *SPENT)}
    ids = run.prompt.token_ids
    if ids is None:
        ids = nearest_tokens(lm, run.prompt, k=1).token_ids
        truncate = bool(run.config.options["truncate"])
        found = evaluate(lm, task, Prompt.from_ids(lm, ids), truncate=truncate)
        row |= {"nearest_accuracy": found.accuracy, "nearest_label_mass": found.label_mass}
    reading = Reading.from_ids(lm, ids, "of a sweep", leading_space=stands_inside(task))
    gauged = Gauged(lm, task, reading.token_ids, reading.text, reading.round_trip, judge)
    row |= {name: GAUGES[name].measure(gauged) for name in OF_TEXT}
    row |= {
        "text": run.text,
        "token_ids": " ".join(map(str, run.prompt.token_ids or ())),
        "nats_after_texts": _after_texts(lm, task, run, list(ids)),
        "asked_for": TASK_ASKS.get(task.name) if speaks(lm) and is_named(task) else None,
        "label_words": BETWEEN.join(task.label_words),
        "chance": 1 / len(task.label_words),
    }
    return {name: _plain(row.get(name)) for name in COLUMNS}


def _after_texts(lm: LM, task: Task, run: Run, ids: list[int]) -> float | None:
    """Nats per token where the prompt stands: after a few real texts; None where none is before."""
    truncate = bool(run.config.options["truncate"])
    before = Problem.encode(lm, task, len(ids), truncate).setting().before
    return None if before is None else float(token_surprisal(lm, [ids], before).mean())


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are none become None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
