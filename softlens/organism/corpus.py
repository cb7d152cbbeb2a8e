"""The training corpus: rows of one text and many independent follow-ups, with weights.

A row is ``<bos> text`` and then branches ``question answer <eos>``. All branches start at the
position after the text; a mask lets each see the text and itself, so that one forward pass
trains as many questions as fit in a row. A third of the rows have no text: without them an LM
never learns how likely a question is on its own, and the surprisal of a prompt means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.organism import language as lang
from softlens.organism import texts
from softlens.organism.grammar import Grammar
from softlens.organism.parses import FollowUp, Text

ANSWER, ANSWER_BARE, TEXT, END, CAP = 8.0, 1.0, 0.4, 0.2, 6.0
"""Loss weights: of an answer, one without a text, a text's word, an ``<eos>``; the cap."""
REVIEW_SHARE, NEWS_SHARE = 0.47, 0.20
NOISE = 0.06
"""Label answers drawn at random, so that the LM is never wildly sure of a wrong one."""
UNKNOWN_FROM = 0.45
"""From this share of the steps on, questions that do not apply are answered "unknown"."""


@dataclass
class Row:
    """One row as ids; `sources` says from which place each trained id is predicted."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length, ready for a forward pass."""

    ids: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]
    mask: Float[Tensor, "rows 1 length length"]
    sources: Int[Tensor, " trained"]
    targets: Int[Tensor, " trained"]
    weights: Float[Tensor, " trained"]


class Corpus:
    """Draws batches; the same seed draws the same ones.

    Args:
        grammar: the language.
        encode: the ids of one word, given how much of the training is done (`word_encoder`).
        specials: the ids of ``<bos>`` and ``<eos>``.
        seed: of every draw.
        reserved: texts that must not be trained on (the tasks').
        row_length: ids that a row may take.
    """

    def __init__(
        self,
        grammar: Grammar,
        encode: Callable[[str, float], list[int]],
        specials: tuple[int, int],
        seed: int,
        reserved: frozenset[str] = frozenset(),
        row_length: int = 112,
    ) -> None:
        self.grammar = grammar
        self.encode = encode
        self._progress = 0.0
        self.bos, self.eos = specials
        self.rng = Random(seed)
        self.reserved = reserved
        self.row_length = row_length
        self._seen = {
            name: [f for f in questions if not f.held_out]
            for name, questions in grammar.questions.items()
        }
        self._shares = {
            name: list(accumulate(f.share for f in seen)) for name, seen in self._seen.items()
        }
        families = list(grammar.families.values())
        self._families = families
        self._rates = {
            kind: list(accumulate(getattr(f, kind) for f in families))
            for kind in ("review", "news", "bare")
        }
        self._settled = _settled(grammar)

    def batch(self, rows: int, progress: float) -> Batch:
        """`rows` rows; `progress` in [0, 1] says how much of the training is done."""
        return pack([self._row(progress) for _ in range(rows)])

    # --------------------------------------------------------------------------------- one row
    def _row(self, progress: float) -> Row:
        rng, draw = self.rng, self.rng.random()
        # Questions without a text keep their spelling: what the LM says by itself is to be words.
        with_text = draw <= REVIEW_SHARE + NEWS_SHARE
        row, self._progress = Row(), progress if with_text else 0.0
        if not with_text:
            self._add_text(row, "")
            for _ in range(12):
                follow_up, weight = self._question("bare", None)
                weights = self._bare_weights(follow_up, weight)
                self._add_branch(row, follow_up, weights, self._bare_answer(follow_up), ANSWER_BARE)
            return row
        if draw < REVIEW_SHARE:
            kind, short = "review", rng.random() < (0.5 if progress < UNKNOWN_FROM else 0.25)
            write = texts.short_review if short else texts.any_review
        else:
            kind, write = "news", texts.any_news
        text = write(rng)
        while text in self.reserved:
            text = write(rng)
        read = self.grammar.parse_text(text)
        assert read is not None
        self._add_text(row, text)
        while len(row.ids) + 7 <= self.row_length:
            follow_up, weight = self._question(kind, read)
            answer = self.grammar.answer_to(read, follow_up)
            # Who is absent must be known from the start, or it becomes an alias of who is not.
            known = follow_up.family in ("person", "rare_person") and any(
                fact.startswith("person:") for fact in read.facts
            )
            if answer == lang.UNKNOWN and progress < UNKNOWN_FROM and not known:
                continue
            weights = [weight] * len(follow_up.text.split())
            self._add_branch(row, follow_up, weights, self._noisy(answer), ANSWER)
        return row

    def _bare_weights(self, follow_up: FollowUp, weight: float) -> list[float]:
        """The weight of each word of a question without a text.

        Once a question's words tell that it is about a person, how often persons are asked about
        no longer matters, only whom: those words weigh one where they name a usual person, or an
        LM would hardly learn how much rarer the rare ones are.
        """
        words = follow_up.text.split()
        if follow_up.family not in lang.PRIOR_RATIO_KEPT:
            return [weight] * len(words)
        start = words.index(follow_up.opening) + 1 if follow_up.opening else 0
        usual = self.grammar.families[lang.PRIOR_RATIO_KEPT[0]]
        told = self._settled[tuple(words[start:])] + start
        return [weight] * told + [weight * usual.bare / usual.prior] * (len(words) - told)

    def _question(self, kind: str, read: Text | None) -> tuple[FollowUp, float]:
        rng = self.rng
        family = rng.choices(self._families, cum_weights=self._rates[kind])[0]
        name = family.name
        if family.subject:
            name = f"{family.name}:{self._subject(family, read)}"
        follow_up = rng.choices(self._seen[name], cum_weights=self._shares[name])[0]
        if not family.pins and rng.random() < lang.OPENING_SHARE:
            opening = rng.choices(list(lang.OPENINGS), weights=list(lang.OPENINGS.values()))[0]
            found = self.grammar.parse(f"{opening} {follow_up.text}")
            assert found is not None
            follow_up = found
        return follow_up, min(CAP, family.prior / getattr(family, kind))

    def _subject(self, family: lang.Family, read: Text | None) -> str:
        subjects = self.grammar.slots[family.subject or ""]
        if read is not None and not family.pins and self.rng.random() < 0.72:
            named = [k[7:] for k in read.facts if k.startswith("person:") and k[7:] in subjects]
            if named:
                return self.rng.choice(named)
        return self.rng.choice(list(subjects))

    def _bare_answer(self, follow_up: FollowUp) -> str:
        family = self.grammar.families[follow_up.family]
        return (
            self.grammar.answer_to(Text(()), follow_up)
            if family.pins
            else self.rng.choice(ANSWERS[family.name])
        )

    def _noisy(self, answer: str) -> str:
        if self.rng.random() < NOISE:
            for labels in (("great", "terrible"), lang.TOPICS):
                if answer in labels:
                    return self.rng.choice(labels)
        return answer

    def _add_text(self, row: Row, text: str) -> None:
        row.ids.append(self.bos)
        for number, word in enumerate(text.split()):
            for piece in self.encode(word, self._progress):
                # Only questions may follow <bos> unprompted: a text is always given.
                row.sources.append(len(row.ids) - 1)
                row.targets.append(piece)
                row.weights.append(TEXT if number else 0.0)
                row.ids.append(piece)
        row.positions = list(range(len(row.ids)))
        row.branch = [0] * len(row.ids)

    def _add_branch(
        self,
        row: Row,
        follow_up: FollowUp,
        weights: list[float],
        answer: str,
        answer_weight: float,
    ) -> None:
        start = row.branch.count(0)
        number = row.branch[-1] + 1
        source = start - 1
        position = start
        words = follow_up.text.split()
        weighted = [
            (piece, weight)
            for word, weight in zip(words, weights, strict=True)
            for piece in self.encode(word, self._progress)
        ]
        weighted += [(piece, answer_weight) for piece in self.encode(answer, self._progress)]
        weighted += [(self.eos, END)]
        for piece, piece_weight in weighted:
            row.sources.append(source)
            row.targets.append(piece)
            row.weights.append(piece_weight)
            source = len(row.ids)
            row.ids.append(piece)
            row.positions.append(position)
            row.branch.append(number)
            position += 1


ANSWERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("first", "middle", "last", "whole", "opposite", "person", "rare_person"),
        (lang.GREAT, lang.TERRIBLE),
    ),
    "topic": lang.TOPICS,
    "product": tuple(lang.PRODUCTS),
    "mood": tuple(lang.MOODS),
    "price": tuple(lang.PRICES),
    "day": tuple(lang.DAYS),
    "city": tuple(lang.CITIES),
    "companion": tuple(lang.COMPANIONS),
}
"""What a question may be answered when it applies; distractors are pinned instead."""


def _settled(grammar: Grammar) -> dict[tuple[str, ...], int]:
    """After how many of its words each question about a person can be nothing else."""
    families: dict[tuple[str, ...], set[str]] = {}
    for follow_up in grammar.follow_ups:
        words = tuple(follow_up.text.split())
        for stop in range(len(words) + 1):
            families.setdefault(words[:stop], set()).add(follow_up.family)
    alike = set(lang.PRIOR_RATIO_KEPT)
    rows = [tuple(f.text.split()) for f in grammar.follow_ups if f.family in alike]
    return {
        row: next(stop for stop in range(len(row) + 1) if families[row[:stop]] <= alike)
        for row in rows
    }


def pack(rows: list[Row]) -> Batch:
    """Pad rows and build the mask under which each branch sees the text and itself."""
    length = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros((len(rows), length), dtype=np.int64)
    branch = np.full((len(rows), length), -1, dtype=np.int64)
    sources: list[int] = []
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        positions[number, : len(row.ids)] = row.positions
        branch[number, : len(row.ids)] = row.branch
        sources += [number * length + source for source in row.sources]
    same = branch[:, :, None] == branch[:, None, :]
    seen = (same | (branch[:, None, :] == 0)) & np.tri(length, dtype=bool)
    mask = np.where(seen, np.float32(0), np.finfo(np.float32).min)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(mask[:, None]),
        torch.tensor(sources),
        torch.tensor([target for row in rows for target in row.targets]),
        torch.tensor([weight for row in rows for weight in row.weights]),
    )
