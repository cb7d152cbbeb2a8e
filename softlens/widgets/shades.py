"""What colours the boxes of an inspection: a number for each position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from softlens.attribution import attribute
from softlens.decode import nearest_tokens
from softlens.errors import SoftlensError, near

if TYPE_CHECKING:
    from softlens.widgets.workbench import Workbench

COLOURS = ("cosine", "surprisal", "attribution")
EXACT = 8
"""Positions up to which Shapley values are exact here."""
ATTRIBUTED = 32
"""Texts an attribution is taken on, at most."""
PATIENCE = 1e11
"""Prompts x positions x texts x weights that take some seconds on a core, as long as one waits."""


@dataclass(frozen=True)
class Shade:
    """A number for each position, what colours the boxes; NaN where there is none."""

    measure: str
    values: tuple[float, ...]
    unit: str
    signed: bool = False
    note: str = ""


def shaded(bench: Workbench) -> Shade:
    """The numbers of what `bench.measure` asks for.

    Raises:
        SoftlensError: an unknown measure; an attribution without a task.
    """
    if bench.measure not in COLOURS:
        raise SoftlensError(
            f"Got measure {bench.measure!r}, wanted one of {COLOURS}.{near(bench.measure, COLOURS)}"
        )
    if not bench.draft.present:
        return Shade(bench.measure, (np.nan,) * len(bench.draft.slots), bench.measure)
    return {"cosine": _cosine, "surprisal": _surprisal, "attribution": _attribution}[bench.measure](
        bench
    )


def _cosine(bench: Workbench) -> Shade:
    lm, rows = bench.ready, bench.draft.vectors(bench.ready)
    found = bench.memory.get_or(
        ("cosine", rows.cpu().numpy().tobytes()),
        lambda: nearest_tokens(lm, rows, 1).frame["score"].to_numpy(),
    )
    note = "cosine of each vector to its nearest token; a token's own is 1"
    # A token's own cosine is 1 but for rounding, which is not to be seen as colour.
    return Shade("cosine", _spread(bench, found.round(6)), "cosine", note=note)


def _surprisal(bench: Workbench) -> Shade:
    nats = bench.nats(bench.draft)
    of = "" if bench.scored == "tokens" else "of the nearest tokens; "
    note = f"{of}{nats.mean():.2f} nats per token"
    return Shade("surprisal", _spread(bench, nats), "nats", note=note)


def _attribution(bench: Workbench) -> Shade:
    task, sample, lm, prompt = bench.task, bench.sample, bench.ready, bench.prompt
    if task is None or sample is None:
        raise SoftlensError("An attribution needs a task: sl.inspect(lm, prompt, task).")
    most = min(ATTRIBUTED, len(sample))
    method = affordable(len(bench.draft.present), most * lm.parameters)
    found = bench.memory.get_or(
        ("attribution", bench.draft.vectors(lm).cpu().numpy().tobytes()),
        lambda: attribute(
            lm, task, prompt, method, texts=most, split=sample.split, truncate=True, progress=False
        ),
    )
    note = f"{method.replace('_', ' ')} of the log-probability of the right label, on {most} texts"
    values = _spread(bench, found.frame["attribution"].to_numpy())
    return Shade("attribution", values, "nats", signed=True, note=note)


def affordable(length: int, weights: float) -> str:
    """The method of attribution that one can wait for: the better ones ask more prompts.

    Args:
        length: positions of the prompt.
        weights: texts x weights of the LM, the work of one position.
    """
    asked = {"shapley": 2**length if length <= EXACT else np.inf, "leave_one_out": length + 1}
    for method, prompts in asked.items():
        if prompts * length * weights <= PATIENCE:
            return method
    return "gradient_x_input"


def _spread(bench: Workbench, values: np.ndarray) -> tuple[float, ...]:
    """Values of the present positions, NaN at dropped ones."""
    spread = np.full(len(bench.draft.slots), np.nan)
    spread[list(bench.draft.present)] = values
    return tuple(spread.tolist())
