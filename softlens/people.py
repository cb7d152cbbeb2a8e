"""How surprising is what people wrote: the real texts that prompts and readings are held against.

One question, asked in the two places where it has an answer, both in nats per token and between the
same quantiles (`BAND`):

* of whole *sentences*, in the context that a prompt stands in: `softlens.surprisal` shows where a
  prompt is among them (`sentences`, `sentence_nats`);
* of *spans* of a length, cut from real texts one after the other: each in its place in its text,
  which bounds what a reading may cost (`real_spans`, for `softlens.Criterion`; on a bundled
  organism, which was trained to ask but not to open a text, what its questions open with); or each
  on its own after BOS, as the proxies feed a prompt (`span_band`, for the proxy "fluency_band").

What they say differs: a span in its place is predicted from its text, one on its own is not.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts, token_surprisal
from softlens.tasks import Task

BAND = (0.1, 0.9)
"""Between these quantiles of what people wrote, a text counts as fluent as theirs."""
PEOPLE_TEXTS = 512
"""Sentences of people that a prompt is compared with, at most."""
FEWEST_SENTENCES = 20
"""Different ones that are wanted for a quantile: with fewer, it moves by more than .05 a step."""
SPAN_TEXTS = 64
"""Real texts that bounds are taken from."""


def sentences(
    lm: LM, task: Task | None, length: int, people: Sequence[str] | None
) -> tuple[list[list[int]], str]:
    """Different token rows of sentences of `length` tokens, and what they are.

    Those given, cut to that length; or on a bundled organism the grammar's questions; or the
    openings of the task's texts; or none. Texts that begin alike have one opening, counted once.
    """
    count = "1 token" if length == 1 else f"{length} tokens"
    if people is not None:
        rows = _openings(lm, people, length) if len(people) else []
        return rows, f"given sentences of {count}" if len(people) else ""
    if whole := [list(row) for row in _questions(lm) if len(row) == length]:
        return _evenly(whole), f"questions of the grammar of {count}"
    if task is None:
        return [], ""
    texts = dict.fromkeys([*task.train.texts, *task.unlabelled])
    rows = _openings(lm, texts, length, PEOPLE_TEXTS)
    return rows, f"openings of the task's texts, {count} each"


def _questions(lm: LM) -> list[tuple[int, ...]]:
    """Different token rows of the grammar's questions; none where the LM is no bundled organism."""
    from softlens import organism
    from softlens.lm.sources import BUNDLED

    if lm.name not in BUNDLED:
        return []
    key = "questions"
    if key not in lm.memo:
        questions = sorted(set(organism.readable_front()["text"]))
        every = questions[:: max(1, len(questions) // (4 * PEOPLE_TEXTS))]
        encoded = [tuple(lm.encode(question, leading_space=True)) for question in every]
        lm.memo[key] = [*dict.fromkeys(encoded)]
    return lm.memo[key]


def _openings(
    lm: LM, texts: Iterable[str], length: int, most: int | None = None
) -> list[list[int]]:
    """The first `length` tokens of texts that have as many, each row once."""
    rows: dict[tuple[int, ...], None] = {}
    for text in texts:
        if len(row := lm.encode(text, leading_space=True)[:length]) == length:
            rows[tuple(row)] = None
        if len(rows) == most:
            break
    return [list(row) for row in rows]


def _evenly(rows: list[list[int]]) -> list[list[int]]:
    return rows[:: -(-len(rows) // PEOPLE_TEXTS)]


def sentence_nats(
    lm: LM, rows: list[list[int]], given: str | EncodedTexts, context: str, task: Task | None
) -> tuple[float, ...]:
    """Nats per token of each sentence in the context that a prompt stands in."""
    if not rows:
        return ()
    which = task if context == "text" else None
    key = ("surprisal of people", context, which, tuple(map(tuple, rows)))
    if key not in lm.memo:
        # After several texts each, a quarter of the sentences says as much at a lower price.
        chosen = rows[:: min(4, max(1, len(rows) // FEWEST_SENTENCES)) if which else 1]
        nats = token_surprisal(lm, chosen, given).cpu().double().mean(dim=(1, 2))
        lm.memo[key] = tuple(nats.tolist())
    return lm.memo[key]


@torch.no_grad()
def real_spans(lm: LM, task: Task, length: int) -> tuple[float, float]:
    """Nine in ten spans of real texts are below these, in their place in the text.

    On a bundled organism: nine in ten of what the grammar's questions open with, after BOS, where a
    reading is gauged.

    Returns:
        Nats per token of a span, and nats of its worst token.
    """
    source = (*task.unlabelled, *task.train.texts)[:SPAN_TEXTS]
    key = ("real spans", length, source)
    if key not in lm.memo:
        # One for each question, however many open alike: as often as the language has it.
        rows = [list(row[:length]) for row in _questions(lm)] or [
            lm.encode(text)[: lm.context_length - 2] for text in source
        ]
        nats = token_surprisal(lm, [row for row in rows if row])[:, 0].cpu().numpy()
        spans = []
        for row in nats:
            known = row[~np.isnan(row)]
            size = min(length, len(known))
            spans += [known[at] for at in _cuts(len(known), size)]
        means, worst = [span.mean() for span in spans], [span.max() for span in spans]
        lm.memo[key] = float(np.quantile(means, BAND[1])), float(np.quantile(worst, BAND[1]))
    return lm.memo[key]


@torch.no_grad()
def span_band(lm: LM, before: EncodedTexts | None, length: int) -> tuple[float, float]:
    """Where nats per token of spans of real texts lie, each on its own: 10% to 90%.

    Raises:
        SoftlensError: no real text is that long.
    """
    key = ("fluency band", length, before)
    if key not in lm.memo:
        head = len(lm.start)
        rows = [row[head:] for row in (before.befores if before else ())]
        spans = [row[at] for row in rows for at in _cuts(len(row), length)]
        if not spans:
            raise SoftlensError(
                f"No real text has {length} tokens, so there is no band of fluency to aim at. "
                "Use a shorter prompt, or the proxy 'perplexity'."
            )
        nats = token_surprisal(lm, spans)[:, 0].mean(dim=-1)
        low, high = np.quantile(nats.cpu().numpy(), BAND)
        lm.memo[key] = (float(low), float(high))
    return lm.memo[key]


def _cuts(size: int, length: int) -> Iterator[slice]:
    """Whole spans of `length` in a row of `size`, one after the other."""
    return (slice(i, i + length) for i in range(0, size - length + 1, length))
