"""Which words of a text carry the answer under a prompt, and what `attribute` returns of them.

The players of the game are the words of one text; the prompt and the template stand there whole.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from softlens.attribution.game import Asked, Game, Texts, ask, stand_ins
from softlens.attribution.methods import EXACT_LENGTH, METHODS
from softlens.attribution.targets import TARGETS
from softlens.display import Result, marks, piece, show, token_boxes, visible
from softlens.errors import SoftlensError
from softlens.evaluation import encode_split, prompt_vectors, scored_as
from softlens.lm import LM, EncodedTexts
from softlens.lm.texts import text_place
from softlens.prompts import Prompt
from softlens.statistics import mean_interval
from softlens.tasks import Task
from softlens.templates import glued_behind, template_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORD_TEXTS = (4, 1)
"""Texts unless asked otherwise, on a small LM and on another: each has a game of its own."""
WORD_PERMUTATIONS = 16
"""Permutations of a text's words on a small LM, where they are too many for all coalitions."""
SHOWN_TEXTS = 8
"""Texts that a notebook shows."""


@dataclass(frozen=True, repr=False)
class WordAttribution(Result):
    """Which words of texts carry the answer under a prompt."""

    method: str
    """A name in `softlens.attribution.METHODS`."""
    target: str
    """A name in `softlens.attribution.TARGETS`: what is attributed."""
    unit: str
    """Of the attributions: "nats", "accuracy", or "share of attention" of a rollout."""
    absent: str | None
    """What words are where they are absent; None for a method that knows no absence."""
    scored: str
    """What the LM was fed as the prompt: "soft" vectors, "tokens" or "text"."""
    n: int
    """Texts."""
    split: str
    """Which split they are from."""
    notes: tuple[str, ...]
    """How it was done, text by text."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """A row a word: ``text`` (its place in the split), ``position`` (of the word), ``word,
    attribution, sampling_error`` (NaN if not sampled)."""
    texts: pd.DataFrame = field(repr=False, compare=False)
    """A row a text: ``text, source, label, value, value_absent, total``; the target with the whole
    text, and without any word of it (NaN where nothing is absent)."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The words of `frame` as `softlens.display.piece` gives their tokens, for views."""

    @property
    def words(self) -> pd.DataFrame:
        """The mean over all places where a word stands: ``word, mean, low, high, n``.

        The interval (95%, bootstrap) is over places; the strongest words come first.
        """
        found = mean_interval(self.frame, ["word"], "attribution")
        order = found["mean"].abs().sort_values(ascending=False, kind="stable").index
        return found.loc[order].reset_index(drop=True)

    @property
    def signed(self) -> bool:
        """Whether attributions may be on both sides of zero; attention is not."""
        return self.absent is not None

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        count = f"{self.n} {self.split} text{'s' * (self.n > 1)}"
        what = f"{self.method} of the words of {count} under a {self.scored} prompt"
        how = "; ".join(dict.fromkeys(note for note in self.notes if note))
        how = f"; {how}" if how else ""
        if self.absent is None:
            return f"{what}: {self.unit}{how}"
        value, nothing, total = self.texts[["value", "value_absent", "total"]].mean()
        gap = total - (value - nothing)
        why = "raise steps=" if METHODS[self.method].complete else "not a complete method"
        left = "" if abs(gap) < 5e-3 else f" (gap {gap:+.3f}: {why})"
        mean = "mean over texts " if self.n > 1 else ""
        return (
            f"{what} for {TARGETS[self.target].says} ({self.unit}), absent: {self.absent}; "
            f"{mean}{nothing:.3f} without any word, {value:.3f} with all, attributed "
            f"{total:+.3f}{left}{how}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row a word, with its attribution as signs."""
        shown = visible(self.frame.drop(columns="word").dropna(axis="columns", how="all"))
        shown.insert(2, "word", [show(word) for word in self.pieces])
        shown.insert(4, "", marks(self.frame["attribution"].tolist(), self.signed))
        return shown

    def plot(self, ax: "Axes | None" = None, kind: str = "text") -> "Axes":
        """The texts with their words coloured ("text"), or the strongest words ("words")."""
        from softlens.plots import plot_words

        return plot_words(self, ax, kind)

    def of_text(self, number: int) -> tuple[tuple[str, ...], list[float]]:
        """The words (for views) and attributions of the text at one place in the split."""
        rows = np.flatnonzero(self.frame["text"] == number)
        return tuple(self.pieces[i] for i in rows), self.frame["attribution"].iloc[rows].tolist()

    def _repr_html_(self) -> str:
        rows = [f"<div>{html.escape(self.headline)}</div>"]
        for number, label in self.texts[["text", "label"]].head(SHOWN_TEXTS).to_numpy().tolist():
            words, values = self.of_text(number)
            said = f"text {number}, {show(label)}"
            spoken = f"{self.method} attribution of each word of {said}"
            boxes = token_boxes(words, values, self.unit, spoken, signed=self.signed)
            rows.append(f"<div><small>{html.escape(said)}</small>{boxes}</div>")
        if self.n > SHOWN_TEXTS:
            rows.append(f"<div><small>and {self.n - SHOWN_TEXTS} more texts</small></div>")
        return "".join(rows)


def of_words(
    lm: LM,
    task: Task,
    prompt: Prompt | str | None,
    method: str,
    target: str | tuple[str, str],
    absent: str | None,
    texts: Texts,
    split: str,
    samples: int | None,
    steps: int,
    seed: int,
    truncate: bool,
    progress: bool,
) -> WordAttribution:
    """A game for each text. See `softlens.attribute` for the arguments."""
    vectors = prompt_vectors(lm, task, prompt)
    asked = ask(lm, task, target, absent or "removed", texts, split, WORD_TEXTS)
    encoded = encode_split(lm, task, asked.source, reserve=len(vectors), truncate=truncate)
    rows, of_texts, notes, pieces = [], [], [], []
    for index, number in enumerate(asked.numbers):
        game, words = word_game(
            lm, task, vectors, asked, encoded, index, absent or "removed", seed, progress
        )
        drawn = samples
        if samples is None and lm.is_small and game.players > EXACT_LENGTH:
            drawn = WORD_PERMUTATIONS
        found = METHODS[method].run(game, drawn, steps, seed)
        ends = np.array([[True] * game.players, [False] * game.players])
        if absent is None and not lm.start:
            # Nothing may be left of a row without BOS and without words.
            ends = ends[:1]
        value, *nothing = game.values(ends)[:, 0].tolist()
        error = np.full(game.players, np.nan)
        if found.sampling_error is not None:
            error = found.sampling_error
        named = [_named(lm, ids) for ids in words]
        rows += [
            {"text": number, "position": i, "word": word, "attribution": worth,
             "sampling_error": off}
            for i, ((word, _), worth, off) in enumerate(
                zip(named, found.by_text[0].tolist(), error.tolist(), strict=True)
            )
        ]  # fmt: skip
        pieces += [shown for _, shown in named]
        of_texts.append(
            {
                "text": number,
                "source": asked.source.texts[index],
                "label": task.class_names[asked.source.labels[index]],
                "value": value,
                "value_absent": float("nan") if absent is None else nothing[0],
                "total": float(found.by_text.sum()),
            }
        )
        notes.append(found.note)
    return WordAttribution(
        method=method,
        target=asked.target.name,
        unit="share of attention" if absent is None else asked.target.unit,
        absent=absent,
        scored=scored_as(prompt),
        n=len(of_texts),
        split=split,
        notes=tuple(notes),
        frame=pd.DataFrame(rows),
        texts=pd.DataFrame(of_texts),
        pieces=tuple(pieces),
    )


def word_game(
    lm: LM,
    task: Task,
    vectors: torch.Tensor,
    asked: Asked,
    encoded: EncodedTexts,
    index: int,
    absent: str,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Game, list[list[int]]]:
    """The game of one text's words, and the token ids of each word.

    What stands before the first word is the game's text; what follows, the prompt among it, are
    its vectors, so that coalitions share the LM's work on their common beginnings.
    """
    before, after = encoded.befores[index], encoded.afters[index]
    parts = template_parts(task.template)
    if "{text}" in parts[0]:
        first, last = _place(lm, parts[0], asked.source.texts[index], before, len(lm.start), False)
        lead, own = before[:first], [lm.embed(before[first:]), vectors, lm.embed(after)]
        ids, offset = before[first:last], 0
    else:
        spaced = not glued_behind(task.template)
        first, last = _place(lm, parts[1], asked.source.texts[index], after, 0, spaced)
        lead, own = before, [vectors, lm.embed(after)]
        ids, offset = after[first:last], len(vectors) + first
    words = words_of(lm, ids)
    groups, start = [], offset
    for word in words:
        groups.append(tuple(range(start, start + len(word))))
        start += len(word)
    whole = torch.cat(own)
    text = EncodedTexts(
        (lead,), ((),), (asked.source.texts[index],), lm.cache, lm.cache.divide([lead])
    )
    game = Game(
        lm,
        whole,
        text,
        asked.labels(lm.device)[index : index + 1],
        asked.words,
        asked.target,
        absent,
        stand_ins(lm, len(whole), absent, seed),
        progress,
        tuple(groups),
    )
    return game, words


def _place(
    lm: LM, part: str, text: str, row: Sequence[int], start: int, spaced: bool
) -> tuple[int, int]:
    """Where in `row` the tokens of `text` stand, whose first ones may have been cut out.

    The row begins with `start` tokens that are not of `part`, which was encoded with a space before
    it where `spaced`.
    """
    whole = lm.encode(part.replace("{text}", text), leading_space=spaced)
    first, last = text_place(whole, part, lm.encode, spaced)
    last -= len(whole) - (len(row) - start)
    if last <= first:
        raise SoftlensError(
            f"Nothing is left of the text that begins {text[:40]!r} once its row is shortened to "
            "the LM's context. Use a shorter prompt or template."
        )
    return start + first, start + last


def words_of(lm: LM, ids: Sequence[int]) -> list[list[int]]:
    """Tokens cut into words: a new one begins at white space, and where marks meet letters.

    Where that leaves a single word (a language without spaces), each token is one.
    """
    words: list[list[int]] = []
    kind: bool | None = None
    for index in ids:
        text = lm.token(index)
        letters = any(character.isalnum() for character in text)
        if not words or not lm.tokens_mark_spaces or text[:1].isspace() or letters != kind:
            words.append([])
        words[-1].append(int(index))
        kind = letters
    return words if len(words) > 1 else [[int(index)] for index in ids]


def _named(lm: LM, ids: Sequence[int]) -> tuple[str, str]:
    """A word for tables, and the same for views, where half a character keeps its bytes."""
    word = lm.decode(ids)
    shown = "".join(piece(lm, i) for i in ids) if "\ufffd" in word else word
    return word.strip() or word, shown.strip() or shown
