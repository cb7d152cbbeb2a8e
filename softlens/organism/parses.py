"""What the grammar finds in a text: questions, sentences, and the facts that they tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from softlens.organism import language as lang


@dataclass(frozen=True)
class FollowUp:
    """A follow-up question that the grammar can write.

    Attributes:
        text: its words, in one string.
        family: the family's name in `softlens.organism.language.FAMILIES`.
        subject: what it asks about, where the family names a subject.
        share: the probability of this wording given its family, held-out wordings included.
        held_out: never seen in training.
        parts: the slots and the phrases that fill them, in order.
        opening: the optional sixth word in front, or an empty string.
    """

    text: str
    family: str
    subject: str | None
    share: float
    held_out: bool
    parts: tuple[tuple[str, str], ...] = ()
    opening: str = ""

    @property
    def asks_for(self) -> str:
        """What it asks for: ``"whole"``, ``"topic"``, ``"person:critic"``, ..."""
        return f"{self.family}:{self.subject}" if self.subject else self.family


@dataclass(frozen=True)
class Sentence:
    """One sentence of a text: the rule that it follows and what fills the rule's slots."""

    text: str
    rule: str
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Text:
    """A parsed text: its sentences, and the answers that it holds (keys as `asks_for`)."""

    sentences: tuple[Sentence, ...]
    facts: dict[str, str] = field(default_factory=dict)


def fact_key(asked: FollowUp) -> str:
    """Where a text keeps the answer: both families of persons look up ``"person:<name>"``."""
    return f"person:{asked.subject}" if asked.subject else asked.family


def polarity(word: str) -> str | None:
    """``"great"`` or ``"terrible"`` for an adjective or a verb of opinion, else None."""
    if word in lang.GOOD or word in lang.LIKED:
        return lang.GREAT
    return lang.TERRIBLE if word in lang.BAD or word in lang.DISLIKED else None


def in_place(sentences: Sequence[Sentence]) -> bool:
    """Whether sentences may stand in one text: the right kind, none twice, markers in order."""
    rules = [sentence.rule for sentence in sentences[1:]]
    persons = [dict(s.parts)["anyone"] for s in sentences if s.rule == "person"]
    product_name = dict(sentences[0].parts).get("product")
    if sentences[0].rule == "news":
        stories = [rule for rule in rules if rule in lang.TOPICS]
        others = [rule for rule in rules if rule not in lang.TOPICS]
        once = len(set(others)) == len(others) and set(others) <= {"day", "city"}
        return once and len(stories) > 0 and len(set(stories)) == 1
    if set(rules) & {"news", "product", *lang.TOPICS}:
        return False
    marked = [rule for rule in rules if rule in ("first", "middle", "last")]
    others = [rule for rule in rules if rule != "person"]
    aspects = [dict(s.parts)["aspect"] for s in sentences if s.rule in ("first", "middle", "last")]
    return (
        len(set(others)) == len(others)
        and len(set(persons)) == len(persons)
        and marked == sorted(marked, key=("first", "middle", "last").index)
        and len(set(aspects)) == len(aspects)
        and set(aspects) <= set(lang.PRODUCTS[product_name or ""])
    )


def facts_of(sentences: Sequence[Sentence]) -> dict[str, str]:
    """The answers that sentences hold, by what a question asks for."""
    facts: dict[str, str] = {}
    for sentence in sentences:
        parts = dict(sentence.parts)
        rule = sentence.rule
        if rule in lang.TOPICS:
            facts["topic"] = rule
        elif rule in ("first", "middle", "last"):
            facts[rule] = polarity(parts["adjective"]) or lang.UNKNOWN
        elif rule == "person":
            facts[f"person:{parts['anyone']}"] = polarity(parts["opinion"]) or lang.UNKNOWN
        elif rule == "whole":
            verdict = polarity(parts["opinion"]) or lang.UNKNOWN
            facts["whole"] = verdict
            facts["opposite"] = lang.TERRIBLE if verdict == lang.GREAT else lang.GREAT
        elif rule != "news":
            (facts[rule],) = parts.values()
    return facts
