"""Nearest tokens, metric by metric and step by step: does the reading hold still?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from softlens.decode import nearest_tokens
from softlens.display import Result, piece, scores, show, show_text, token_boxes
from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.nearness import METRICS
from softlens.prompts import Prompt, PromptLike
from softlens.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class NearestByMetric(Result):
    """The token nearest to each position of a prompt, by several metrics."""

    texts: dict[str, str]
    """What the prompt reads as by each metric."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """A row a metric and position: ``metric, position, token_id, token, score, margin, agree``:
    the gap to the second nearest in the metric's unit, and how many metrics name this token."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The token of each row as `softlens.display.piece` gives it, for views."""

    @property
    def agreement(self) -> float:
        """Share of positions where all metrics name the same token."""
        metrics = self.frame["metric"].nunique()
        return float((self.frame.groupby("position")["agree"].max() == metrics).mean())

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        count = len(self.texts)
        readings = len(set(self.texts.values()))
        return (
            f"nearest tokens by {count} metrics: {readings} reading{'s' * (readings > 1)}, the "
            f"same token by all at {self.agreement:.0%} of the positions"
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row a metric, a column a position: token, score, and the gap to the second."""
        gaps = scores(self.frame["margin"].tolist())
        cells = [
            f"{show(token)} {score} (+{gap})"
            for token, score, gap in zip(
                self.pieces, scores(self.frame["score"].tolist()), gaps, strict=True
            )
        ]
        wide = self.frame.assign(cell=cells).pivot(
            index="metric", columns="position", values="cell"
        )
        wide = wide.reindex(list(self.texts))
        wide.columns = [f"position {position}" for position in wide.columns]
        return wide.reset_index()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Metric x position, each cell a token, coloured by how many metrics name it."""
        from softlens.plots import plot_nearest_by_metric

        return plot_nearest_by_metric(self, ax)


def nearest_by_metric(
    lm: LM,
    prompt: Prompt | str | PromptLike | Float[Tensor, "length hidden"],
    metrics: Sequence[str] = METRICS,
    exclude: str | Sequence[int | str] | None = "special",
) -> NearestByMetric:
    """The token nearest to each vector of `prompt` by several metrics, side by side.

    Args:
        lm: the LM whose embedding is searched.
        prompt: as in `softlens.nearest_tokens`.
        metrics: names in `softlens.nearness.METRICS`; all of them unless given.
        exclude: as in `softlens.nearest_tokens`.

    Raises:
        SoftlensError: as `nearest_tokens` does; fewer than two metrics.
    """
    if len(set(metrics)) < 2:
        raise SoftlensError(
            f"Got metrics={tuple(metrics)}, wanted at least two of {METRICS} to put side by side. "
            "One alone is nearest_tokens(lm, prompt, metric=...)."
        )
    found = {metric: nearest_tokens(lm, prompt, 1, metric, exclude) for metric in metrics}
    parts = [
        one.frame[["position", "token_id", "token", "score"]].assign(
            metric=metric, margin=one.margins
        )
        for metric, one in found.items()
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame["agree"] = frame.groupby(["position", "token_id"])["metric"].transform("count")
    return NearestByMetric(
        texts={metric: one.text for metric, one in found.items()},
        frame=frame[["metric", "position", "token_id", "token", "score", "margin", "agree"]],
        pieces=tuple(p for one in found.values() for p in one.pieces),
    )


@dataclass(frozen=True, repr=False)
class NearestPath(Result):
    """The tokens that a training went through, position by position."""

    method: str
    """The tuner."""
    steps: int
    """Steps of the training."""
    metric: str | None
    """By what the tokens are nearest; None where they are those that the tuner itself had."""
    looks: int
    """Steps whose tokens are known."""
    text: str
    """What the tokens read at the last step."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """A row for each stay of a position at a token: ``position, first_step, last_step, token_id,
    token``. Between two looks, the tokens are taken to be those of the later one."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The token of each row as `softlens.display.piece` gives it, for views."""

    @property
    def changes(self) -> np.ndarray:
        """How often each position changed its token."""
        return self.frame.groupby("position").size().to_numpy() - 1

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        by = "" if self.metric is None else f" nearest by {self.metric}"
        looks = "" if self.looks == self.steps else f", looked at {self.looks} times"
        stayed = int((self.changes == 0).sum())
        return (
            f"tokens{by} over {self.steps} steps of {self.method!r}{looks}: "
            f"{int(self.changes.sum())} changes, {stayed} of {len(self.changes)} positions never "
            f"changed; at the end {show_text(self.text)}"
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Step x position: a bar for each stay at a token, with the token in it."""
        from softlens.plots import plot_path

        return plot_path(self, ax)

    def _repr_html_(self) -> str:
        last = self.frame["last_step"] == self.steps
        stays = [p for p, at_end in zip(self.pieces, last, strict=True) if at_end]
        boxes = token_boxes(stays, self.changes.tolist(), "changes", "changes of each position")
        return boxes + super()._repr_html_()


def nearest_path(lm: LM, run: Run, metric: str | None = None) -> NearestPath:
    """The (nearest) tokens of a run over its steps.

    Args:
        lm: the LM of the run, for the texts of its tokens.
        run: what `softlens.tune` returned.
        metric: None takes the tokens of the history: the proposals of a hard run, and of a soft one
            what is nearest by cosine. A name in `softlens.nearness.METRICS` asks the vectors that
            were kept, ``sl.tune(..., "soft", keep_vectors=1)``, special tokens left out; of "pez"
            they are its continuous copy.

    Raises:
        SoftlensError: a run of another LM; one whose history has no tokens, or, with a metric, that
            kept no vectors; an unknown metric.
    """
    run.prompt.check(lm)
    steps, rows = _from_history(run) if metric is None else _from_vectors(lm, run, metric)
    # A look speaks for the steps since the one before.
    first_steps = np.concatenate([[1], steps[:-1] + 1])
    stays = []
    for position, tokens in enumerate(rows.T):
        starts = np.flatnonzero(np.concatenate([[True], tokens[1:] != tokens[:-1]]))
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            index = int(tokens[start])
            stays.append(
                (position, int(first_steps[start]), int(steps[stop - 1]), index, lm.token(index))
            )
    columns = ["position", "first_step", "last_step", "token_id", "token"]
    frame = pd.DataFrame(stays, columns=columns)
    return NearestPath(
        method=run.config.method,
        steps=int(steps[-1]),
        metric=metric,
        looks=len(steps),
        text=lm.decode(rows[-1].tolist()),
        frame=frame,
        pieces=tuple(piece(lm, index) for index in frame["token_id"]),
    )


def _from_history(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the tokens of each, shape (steps, length)."""
    history = run.history
    if "token_ids" not in history or history.empty:
        raise SoftlensError(
            "The history of this run has no column 'token_ids': it has no steps, or was saved by "
            "an earlier version. Tune it again from its config."
        )
    rows = np.array([[int(i) for i in ids.split()] for ids in history["token_ids"]])
    return history["step"].to_numpy(), rows


def _from_vectors(lm: LM, run: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
    if run.kept_vectors is None:
        raise SoftlensError(
            f"Got metric={metric!r}, which is asked of a run's vectors, and this one kept none. "
            "Tune it again with keep_vectors=1, or every so many steps ('soft' and 'pez' can); or "
            "leave the metric out for the tokens in its history."
        )
    rows = [nearest_tokens(lm, one, 1, metric).token_ids for one in run.kept_vectors]
    return np.array(run.kept_steps), np.array(rows)
