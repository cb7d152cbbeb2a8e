"""Transfer: what a prompt does on another LM.

A text goes anywhere: another LM reads it with its own tokens, and what that changes is shown. A
soft prompt's vectors go through the tokens that both LMs have, or are refused
(`softlens.shared_tokens`).

Source: transfer of texts between LMs as PEZ reports it (arXiv 2302.03668).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from softlens.controls import controls
from softlens.display import Result, number, piece, show, show_text
from softlens.errors import SoftlensError
from softlens.evaluation import AnyPrompt, Evaluation, evaluate_all
from softlens.lm import LM
from softlens.prompts import Prompt
from softlens.readings.base import Reading, stands_inside
from softlens.shared_tokens import carried
from softlens.statistics import Resamples
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOFT, TOKENS, TEXT = "soft prompt", "tokens as found", "re-tokenised text"
READABLE, RANDOM, EMPTY = "best readable", "random prompt", "empty prompt"


@dataclass(frozen=True, repr=False)
class Transfer(Result):
    """What one prompt does on the LM it is from, and on others, beside each one's controls."""

    source: str
    """Name of the LM it is from."""
    text: str | None
    """The text that was transferred; None for vectors."""
    task: str
    n: int
    """Test texts."""
    chance: float
    """Accuracy of guessing, one over the classes."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``lm, scored, accuracy, low, high, label_mass, loss, agreement, length, splits_alike,
    unknown, text``: accuracy with its 95% bootstrap interval over test texts, the share of texts on
    which the label word is the one that the prompt makes its own LM name, tokens, whether they are
    the same pieces as there, how many of them the LM does not know. Random prompts are means."""
    tokens: dict[str, tuple[str, ...]] = field(repr=False, compare=False)
    """How each LM splits the text, pieces as `softlens.display.piece` gives them."""
    maps: pd.DataFrame = field(repr=False, compare=False)
    """Of vectors: ``lm, shared, found`` (tokens both LMs have; share of held-out ones that the map
    takes nearest to themselves)."""
    mixed: int = 1
    """Texts of the mixture that `text` is the heaviest of; 1 for anything else."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        what = "a soft prompt" if self.text is None else show_text(self.text)
        if self.mixed > 1:
            what += f" (of a mixture of {self.mixed} texts, the heaviest alone)"
        pieces = [
            f"{name}: {' '.join(show(p) for p in split)}" for name, split in self.tokens.items()
        ]
        return (
            f"transfer of {what} from {self.source!r}, {self.task!r}, accuracy on {self.n} test "
            f"texts with 95% intervals over them; {'; '.join(pieces) or 'vectors have no tokens'}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The rows, with intervals; a control has no agreement that would matter."""
        rows = []
        for row in self.frame.to_dict("records"):
            control = row["scored"] in (READABLE, RANDOM, EMPTY)
            rows.append(
                {
                    "lm": show_text(row["lm"]),
                    "scored": row["scored"],
                    "accuracy": f"{row['accuracy']:.3f} [{row['low']:.2f}, {row['high']:.2f}]",
                    "label_mass": number(row["label_mass"]),
                    "agreement": "" if control else number(row["agreement"]),
                    "tokens": "" if pd.isna(row["length"]) else str(row["length"]),
                    "changed": _changed(row),
                }
            )
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy on each LM beside its controls."""
        from softlens.plots import plot_controls, show_plot

        groups = self.frame["lm"].map(lambda name: f"on {show_plot(name)}")
        return plot_controls(self.frame.assign(task=groups, chance=self.chance), ax)


def transfer(
    prompt: Prompt | Reading | str,
    source: LM,
    targets: LM | Sequence[LM],
    task: Task,
    *,
    truncate: bool = False,
) -> Transfer:
    """Measure on other LMs what a prompt does on its own.

    Args:
        prompt: a hard prompt, a reading, or a text: each LM reads it with its own tokens, on its
            own LM also as it was found. Of a mixture, the heaviest text is taken. A soft prompt
            goes through the tokens that two LMs share, or is refused.
        source: the LM it is from.
        targets: the others.
        task: on its test texts; its label words must be one token for each LM.
        truncate: shorten texts that exceed an LM's context, keeping their end.

    Raises:
        SoftlensError: a prompt of another LM; a label word of several tokens, a text without tokens
            (names the LM); vectors that no map of shared tokens carries (says why); a source among
            the targets.
    """
    others = [targets] if isinstance(targets, LM) else list(targets)
    _check(source, others, task)
    if isinstance(prompt, Prompt | Reading):
        prompt.check(source)
    soft = isinstance(prompt, Prompt) and not prompt.is_hard
    text = None if soft else prompt if isinstance(prompt, str) else prompt.text
    versions: list[tuple[LM, list[tuple[str, AnyPrompt]]]] = []
    maps, pieces, split = [], {}, {}
    for lm in (source, *others):
        if soft:
            assert isinstance(prompt, Prompt)
            here: AnyPrompt = prompt
            if lm is not source:
                here, fit = carried(prompt, source, lm)
                maps.append({"lm": lm.name, **fit})
            versions.append((lm, [(SOFT, here)]))
            continue
        assert text is not None
        ids = lm.encode(text.strip(), leading_space=stands_inside(task))
        if not ids:
            raise SoftlensError(f"The text {text!r} has no tokens for {lm.name!r}.")
        split[lm.name] = ids
        pieces[lm.name] = tuple(piece(lm, i) for i in ids)
        asked: list[tuple[str, AnyPrompt]] = [(TEXT, text.strip())]
        if lm is source and not isinstance(prompt, str) and list(_found(prompt)) != ids:
            asked.insert(0, (TOKENS, Prompt.from_ids(lm, _found(prompt))))
        versions.append((lm, asked))
    rows: list[dict[str, object]] = []
    own: np.ndarray | None = None
    drawn = Resamples(len(task.test))
    for lm, asked in versions:
        results = evaluate_all(lm, task, [p for _, p in asked], truncate=truncate)
        own = _named(results[0]) if own is None else own
        length = prompt.length if isinstance(prompt, Prompt) and soft else len(split[lm.name])
        for (scored, one), result in zip(asked, results, strict=True):
            known = {"length": length, "splits_alike": None, "unknown": None}
            if scored == TEXT:
                known["splits_alike"] = pieces[lm.name] == pieces[source.name]
                known["unknown"] = split[lm.name].count(lm.tokenizer.unk_token_id)
            elif isinstance(one, Prompt):
                known["length"] = one.length
            rows.append(_row(lm, scored, [result], own, drawn) | known)
        beside = controls(lm, task, length, truncate=truncate)
        for scored, found in (
            (READABLE, [beside.readable] if beside.readable else []),
            (RANDOM, list(beside.random)),
            (EMPTY, [beside.empty]),
        ):
            if found:
                known = {"length": length if scored == RANDOM else None}
                rows.append(_row(lm, scored, found, own, drawn) | known)
    return Transfer(
        source=source.name,
        text=text,
        task=task.name,
        n=len(task.test),
        chance=1 / len(task.label_words),
        frame=pd.DataFrame(rows)[COLUMNS].astype(KINDS),
        tokens=pieces,
        maps=pd.DataFrame(maps, columns=["lm", "shared", "found"]),
        mixed=max(1, len(prompt.experts)) if isinstance(prompt, Reading) else 1,
    )


COLUMNS = [
    "lm", "scored", "accuracy", "low", "high", "label_mass", "loss", "agreement", "length",
    "splits_alike", "unknown", "text",
]  # fmt: skip
KINDS = {"length": "Int64", "splits_alike": "boolean", "unknown": "Int64"}
"""Columns with gaps: controls are split by nobody."""


def _check(source: LM, others: Sequence[LM], task: Task) -> None:
    if not others:
        raise SoftlensError("Got no target LM, wanted at least one: sl.transfer(..., [lm], task).")
    names = [lm.name for lm in (source, *others)]
    for i, lm in enumerate(others):
        if lm.checksum == source.checksum:
            raise SoftlensError(
                f"{lm.name!r} is the LM that the prompt is from; what it does there is always "
                "shown. Give other LMs as targets."
            )
        if lm.name in names[: i + 1]:
            raise SoftlensError(f"Two LMs are called {lm.name!r}. Rename a folder, or lm.name.")
    for lm in (source, *others):
        try:
            task.answer_ids(lm)
        except SoftlensError as reason:
            raise SoftlensError(
                f"{lm.name!r} cannot be asked {task.name!r}: {reason}. Every LM must have each "
                "label word as one token: task.with_(label_words=...), or another LM."
            ) from reason


def _found(prompt: Prompt | Reading) -> tuple[int, ...]:
    assert prompt.token_ids is not None
    return prompt.token_ids


def _named(result: Evaluation) -> np.ndarray:
    return result.frame["predicted"].to_numpy()


def _row(
    lm: LM, scored: str, results: Sequence[Evaluation], own: np.ndarray, drawn: Resamples
) -> dict[str, object]:
    """One row; of several results (random prompts), their mean on each text."""
    right = [(r.frame["predicted"] == r.frame["label"]).to_numpy(dtype=float) for r in results]
    accuracy, low, high = drawn.mean(np.mean(right, axis=0))
    return {
        "lm": lm.name,
        "scored": scored,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "label_mass": float(np.mean([r.label_mass for r in results])),
        "loss": float(np.mean([r.loss for r in results])),
        "agreement": float(np.mean([(_named(r) == own).mean() for r in results])),
        "splits_alike": None,
        "unknown": None,
        "text": results[0].prompt_text if len(results) == 1 else None,
    }


def _changed(row: Mapping[Any, Any]) -> str:
    if row["scored"] != TEXT:
        return ""
    words = [] if row["splits_alike"] else ["other pieces"]
    if row["unknown"]:
        words.append(f"{row['unknown']} unknown")
    return ", ".join(words) or "nothing"
