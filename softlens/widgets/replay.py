"""A training replayed from its history, step by step."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import pandas as pd

from softlens.display import piece
from softlens.lm import LM
from softlens.runs import Run


@dataclass(frozen=True)
class Moment:
    """One step: the prompt's (nearest) tokens, and what was logged."""

    step: int
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    changed: tuple[bool, ...]
    """Whether each token is another than at the start."""
    numbers: dict[str, float]
    """Task loss (nats), accuracy on dev when it was last measured, and each proxy."""
    since: str
    """What `changed` is held against: "the start", or "the first step" where no start is known."""


@dataclass(frozen=True)
class Replay:
    """The history of a run, ready to be asked for any step."""

    history: pd.DataFrame = field(repr=False)
    proxies: tuple[str, ...]
    lm: LM | None = field(repr=False)
    start: tuple[int, ...]
    """The tokens of the start; those of the first step where a run does not say."""
    since: str

    @classmethod
    def of(cls, run: Run | None, lm: LM | None) -> Replay | None:
        """The replay of `run`; None where its history has no tokens."""
        if run is None or run.history.empty or "token_ids" not in run.history:
            return None
        history = run.history.reset_index(drop=True)
        history = history.assign(accuracy_dev=history["accuracy_dev"].ffill())
        start = run.prompt.start_ids or _ids(history["token_ids"].iloc[0])
        return cls(
            history,
            tuple(run.config.proxies),
            lm,
            start,
            "the start" if run.prompt.start_ids else "the first step",
        )

    def __len__(self) -> int:
        return len(self.history)

    def at(self, index: int) -> Moment:
        """The moment in row `index` of the history."""
        row = self.history.iloc[index]
        ids = _ids(row["token_ids"])
        keys = ["task_loss", "accuracy_dev", "tokens_changed", *self.proxies]
        return Moment(
            step=int(row["step"]),
            token_ids=ids,
            pieces=tuple(name_of(self.lm, i) for i in ids),
            changed=tuple(a != b for a, b in zip(ids, self.start, strict=True)),
            numbers={key: float(row[key]) for key in keys if key in row},
            since=self.since,
        )


def training(run: Run) -> bytes:
    """The curves of a training as a PNG."""
    figure = run.plot()[0].figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=75, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def name_of(lm: LM | None, index: int) -> str:
    """A token's text, or its number where the LM is not at hand."""
    return f"#{index}" if lm is None else piece(lm, index)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in text.split())
