"""A fixed sample of a task's texts, and what prompts do on it, remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.behaviour import log_answers
from softlens.controls import random_prompts
from softlens.errors import SoftlensError, near
from softlens.evaluation import SPLITS, Outcome, encode_split, prompt_vectors
from softlens.lm import LM, EncodedTexts, score_answers, token_surprisal
from softlens.lm.answers import is_fast
from softlens.readings.base import stands_inside
from softlens.tasks import Task
from softlens.widgets.draft import no_vectors

SMALL_SAMPLE, LARGE_SAMPLE, LEAST = 256, 24, 4
"""Texts of a sample at most: for an LM of less than ten million parameters, and for larger ones;
and at least, where a prompt is so long that fewer would be quick."""
SMALL_AIM, LARGE_AIM = 0.05, 0.6
"""Seconds that scoring the one new prompt of an edit may take, on an LM of either size; the rest of
150 ms, and of 1 s, is for all else and for the page."""
SECONDS_A_POSITION, SECONDS_A_WEIGHT = 1.2e-5, 2.7e-11
"""What forwarding one position takes on a core, and what each weight of the LM adds to it."""
REMEMBERED = 256
"""Prompts whose outcomes are kept."""
T = TypeVar("T")


class Memory(OrderedDict[Hashable, T]):
    """The last `size` values that were computed, by key."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def get_or(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `key`, computed if it is not remembered."""
        if key in self:
            self.move_to_end(key)
            return self[key]
        self[key] = value = compute()
        if len(self) > self.size:
            self.popitem(last=False)
        return value


@dataclass(frozen=True)
class Controls:
    """What an edited prompt is held against, on the same texts."""

    empty: Outcome
    random: tuple[Outcome, ...]
    """Prompts of as many random tokens."""
    readable: Outcome | None
    """The task's readable prompt with the lowest loss on these texts; None if it lists none."""
    readable_text: str
    random_nats: float
    """Surprisal of the random prompts, their mean; nats per token."""
    readable_nats: float
    """The same of the readable one; NaN without one."""


@dataclass(eq=False)
class Sample:
    """The first texts of a split, encoded once.

    Attributes:
        lm: the LM.
        task: the task.
        split: which split the texts are from. Edits are chosen by what they do here, so it should
            not be the test split.
        texts: the texts.
        encoded: the same as the LM sees them.
        labels: their classes, shape (texts,).
        words: token ids of the label words.
        readable: readable prompts, the best of which is a control.
    """

    lm: LM
    task: Task
    split: str
    texts: tuple[str, ...]
    encoded: EncodedTexts = field(repr=False)
    labels: np.ndarray = field(repr=False)
    words: Tensor = field(repr=False)
    readable: tuple[str, ...] = ()
    _held: dict[int, Controls] = field(default_factory=dict, repr=False)
    _known: Memory[Outcome] = field(default_factory=lambda: Memory(REMEMBERED), repr=False)

    @classmethod
    def of(
        cls, lm: LM, task: Task, split: str, texts: int | None, length: int, known: str = ""
    ) -> Sample:
        """The first `texts` of a split, with room for a prompt of `length`.

        `texts` of None are as many as answer an edit at once (see `quick_count`). `known` is the
        best readable prompt, where somebody has found it out.

        Raises:
            SoftlensError: an unknown split, or no texts.
        """
        if split not in SPLITS:
            raise SoftlensError(
                f"Got split {split!r}, wanted one of {SPLITS}.{near(split, SPLITS)}"
            )
        if texts is not None and texts < 1:
            raise SoftlensError(f"Got texts={texts}, wanted at least 1, or None for a sample.")
        source = getattr(task, split)
        most = (SMALL_SAMPLE if lm.is_small else LARGE_SAMPLE) if texts is None else texts
        source = source.take(min(most, len(source)))
        encoded = encode_split(lm, task, source, reserve=length, truncate=True)
        if texts is None and (count := quick_count(lm, encoded, length)) < len(source):
            source = source.take(count)
            encoded = encode_split(lm, task, source, reserve=length, truncate=True)
        words = torch.tensor(task.answer_ids(lm), device=lm.device)
        readable = (known,) if known else task.readable
        labels = np.array(source.labels)
        return cls(lm, task, split, source.texts, encoded, labels, words, readable)

    def __len__(self) -> int:
        return len(self.texts)

    def outcome(self, vectors: Float[Tensor, "length hidden"]) -> Outcome:
        """What the LM answers under a prompt."""
        return self._known.get_or(_key(vectors), lambda: self._score(vectors, self.encoded))

    def _score(self, vectors: Tensor, encoded: EncodedTexts) -> Outcome:
        scores = score_answers(self.lm, [vectors], encoded, self.words)
        return Outcome(scores.log_probs[0].numpy(), self.labels)

    def controls(self, length: int) -> Controls:
        """The empty prompt, random prompts of `length`, and the best readable one."""
        if length not in self._held:
            self._held[length] = self._controls(length)
        return self._held[length]

    def _controls(self, length: int) -> Controls:
        texts, vectors = self._readable()
        found = [self.outcome(rows) for rows in vectors]
        best = min(range(len(found)), key=lambda i: found[i].loss) if found else None
        text = "" if best is None else texts[best]
        ids = self.lm.encode(text, leading_space=stands_inside(self.task)) if text else []
        return Controls(
            empty=self.outcome(no_vectors(self.lm)),
            random=tuple(self.outcome(rows) for rows in self._random(length)),
            readable=None if best is None else found[best],
            readable_text=text,
            random_nats=_nats(self.lm, random_prompts(self.lm, length)),
            readable_nats=_nats(self.lm, [ids]) if ids else float("nan"),
        )

    def held_against(self, length: int) -> list[Tensor]:
        """Vectors of all prompts that `controls` asks about."""
        return [no_vectors(self.lm), *self._random(length), *self._readable()[1]]

    def _random(self, length: int) -> list[Tensor]:
        return [self.lm.embed(row) for row in random_prompts(self.lm, length)]

    def _readable(self) -> tuple[list[str], list[Tensor]]:
        """Readable prompts that leave room for the texts: as text, and as vectors."""
        room = self.lm.context_length - self.encoded.longest
        each = [(text, prompt_vectors(self.lm, self.task, text)) for text in self.readable]
        fits = [(text, rows) for text, rows in each if len(rows) <= room]
        return [text for text, _ in fits], [rows for _, rows in fits]

    def shares(
        self, prompts: Sequence[Float[Tensor, "_ hidden"]], index: int
    ) -> Float[Tensor, "prompts vocab"]:
        """Probability of every token after text `index`, under each prompt."""
        return log_answers(self.lm, prompts, self.encoded.subset([index]))[:, 0].exp().cpu()


def quick_count(lm: LM, encoded: EncodedTexts, length: int) -> int:
    """How many texts an edit of a prompt of `length` is scored on within the aim.

    Of the texts' own tokens only those count that are forwarded anew: not those before the prompt,
    whose keys and values are remembered.
    """
    fast = is_fast(lm, length, encoded)
    rows = zip(encoded.befores, encoded.afters, strict=True)
    own = [
        len(after) + (0 if fast and encoded.text_first else len(before)) for before, after in rows
    ]
    seconds = (length + np.mean(own)) * (SECONDS_A_POSITION + SECONDS_A_WEIGHT * lm.parameters)
    aim = SMALL_AIM if lm.is_small else LARGE_AIM
    return max(LEAST, int(aim / seconds))


def _nats(lm: LM, prompts: Sequence[Sequence[int]]) -> float:
    """Mean surprisal of prompts of one length, nats per token."""
    return float(token_surprisal(lm, prompts).double().mean())


def _key(vectors: Tensor) -> tuple[int, bytes]:
    return len(vectors), vectors.cpu().numpy().tobytes()
