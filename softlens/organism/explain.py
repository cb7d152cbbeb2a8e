"""What a text says in the organism's language: its parse, shown as a person would want it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import pandas as pd

from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.organism import language as lang
from softlens.organism.grammar import grammar
from softlens.organism.parses import FollowUp, Sentence

LONGEST = 90
"""Words that the organism can read at once, with room for a prompt."""

MEANINGS = {
    "first": "how it was at first",
    "middle": "how it was in the middle",
    "last": "how it was at last",
    "whole": "the writer's verdict",
    "opposite": "the opposite of the writer's verdict",
    "person": "the {subject}'s opinion",
    "rare_person": "the {subject}'s opinion",
    "topic": "the topic of the news",
    "product": "the product",
    "mood": "the writer's mood",
    "price": "the price",
    "day": "the day",
    "city": "the city",
    "companion": "who was with the writer",
    "subject": "how the {subject} was, which no text tells",
    "note": "what the {subject} is about, which no text tells",
    "name": "what {subject} cares for, which no text tells",
    "errand": "where the {subject} went, which no text tells",
}


@dataclass(frozen=True, repr=False)
class Explanation:
    """A text's parse. It shows itself, in a notebook and in a terminal.

    Attributes:
        text: what was explained.
        kind: ``"question"``, ``"sentence"``, ``"text"``, or ``"none"`` for no sentence at all.
        asks_for: what a question asks for, as in ``readable_front.csv``; else None.
        meaning: the same for people.
        parts: ``(rule or slot, words)`` in order.
        held_out: the question is one that training never showed.
    """

    text: str
    kind: str
    asks_for: str | None
    meaning: str
    parts: tuple[tuple[str, str], ...]
    held_out: bool = False

    @property
    def grammatical(self) -> bool:
        """Whether the text is a question, a sentence or a whole text of the language."""
        return self.kind != "none"

    @property
    def frame(self) -> pd.DataFrame:
        """The parts as a table: ``part, words``."""
        return pd.DataFrame(self.parts, columns=["part", "words"])

    @property
    def headline(self) -> str:
        """One line: what it is and what it asks for."""
        seen = ", a wording never seen in training" if self.held_out else ""
        return {
            "question": f"a question that asks for {self.meaning} ({self.asks_for}){seen}",
            "sentence": "a sentence of a text, no question",
            "text": "a text of the language",
            "none": "not a sentence of the language",
        }[self.kind]

    def __repr__(self) -> str:
        width = max((len(words) for _, words in self.parts), default=0)
        lines = [f"'{self.text}': {self.headline}"]
        lines += [f"  {words:<{width}}  {part}" for part, words in self.parts]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        boxes = "".join(
            "<span style='display:inline-block;margin:2px;padding:2px 6px;border:1px solid "
            f"#999;border-radius:4px'>{escape(words)}<br><small>{escape(part)}</small></span>"
            for part, words in self.parts
        )
        return f"<div><b>{escape(self.text)}</b>: {escape(self.headline)}<br>{boxes}</div>"


def explain(text: str) -> Explanation:
    """Parse a text and say what it is and what it asks for.

    Raises:
        SoftlensError: the text is empty, longer than the organism can read, or has a word
            outside the language (the error offers near ones).
    """
    language = grammar()
    control = {lang.BOS, lang.EOS, lang.PAD, lang.UNK}
    words = text.split()
    if len(words) > LONGEST:
        raise SoftlensError(
            f"The text has {len(words)} words; the organism reads {LONGEST} at most. "
            "Explain it a sentence at a time."
        )
    language.check_words(" ".join(word for word in words if word not in control) or text)
    text = " ".join(words)
    if (asked := language.parse(text)) is not None:
        return _question(text, asked)
    if (sentence := language.parse_sentence(text)) is not None:
        return Explanation(text, "sentence", None, "", _in_order(sentence))
    if (read := language.parse_text(text)) is not None:
        parts = tuple((sentence.rule, sentence.text) for sentence in read.sentences)
        return Explanation(text, "text", None, "", parts)
    return Explanation(text, "none", None, "", ())


def grammatical(text: str) -> bool:
    """Whether `text` is a sentence of the organism's language; any string may be asked about."""
    return grammar().is_sentence(text)


def asks_for(text: str) -> str | None:
    """What a question asks for (``"whole"``, ``"person:critic"``), None if it is no question."""
    return grammar().asks_for(text)


def speaks(lm: LM) -> bool:
    """Whether `lm` is an organism: every ordinary token is a word of the language, or a piece."""
    key = "speaks the organism's language"
    if key not in lm.memo:
        known = " ".join(grammar().words)
        # A vocabulary of another kind differs in most tokens; a few are enough to see it.
        few = lm.ordinary_ids[:: max(1, len(lm.ordinary_ids) // 500)].tolist()
        lm.memo[key] = all(lm.token(index).strip() in known for index in few)
    return lm.memo[key]


def _question(text: str, asked: FollowUp) -> Explanation:
    meaning = MEANINGS[asked.family].format(subject=asked.subject)
    opening = (("opening", asked.opening),) if asked.opening else ()
    return Explanation(
        text, "question", asked.asks_for, meaning, opening + _in_order(asked), asked.held_out
    )


def _in_order(item: FollowUp | Sentence) -> tuple[tuple[str, str], ...]:
    """The parts with the fixed words between them, marked ``-``."""
    words = item.text.split()
    if isinstance(item, FollowUp) and item.opening:
        words = words[1:]
    found: list[tuple[str, str]] = []
    fixed: list[str] = []
    slots = list(item.parts)
    while words:
        size = len(slots[0][1].split()) if slots else 0
        if slots and " ".join(words[:size]) == slots[0][1]:
            if fixed:
                found.append(("-", " ".join(fixed)))
            slot, phrase = slots.pop(0)
            found.append((slot.replace("_", " "), phrase))
            words, fixed = words[size:], []
        else:
            fixed.append(words.pop(0))
    return tuple([*found, ("-", " ".join(fixed))] if fixed else found)
