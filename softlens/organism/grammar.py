"""One grammar: it writes texts and follow-up questions, parses them, and knows the answers.

Both directions use the patterns of `softlens.organism.language`. A grammar is checked when it is
built: every follow-up it can write must be parsed by its own rules, in one way only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import product

from softlens.errors import SoftlensError, near
from softlens.organism import language as lang
from softlens.organism.parses import FollowUp, Sentence, Text, fact_key, facts_of, in_place

HELD_OUT_STRIDE = 6


class Grammar:
    """The language of the organism.

    Args:
        families: the kinds of follow-up questions, each with its wordings.
        slots: for each slot, its phrases and their shares.
        sentences: the rules of a text's sentences.

    Raises:
        SoftlensError: a follow-up has not five words, uses an unknown slot, cannot be parsed by
            the rules, or can be parsed in two ways; or the priors do not sum to one.
    """

    def __init__(
        self,
        families: Sequence[lang.Family] = lang.FAMILIES,
        slots: dict[str, dict[str, float]] | None = None,
        sentences: dict[str, str] | None = None,
    ) -> None:
        self.families = {family.name: family for family in families}
        self.slots = lang.SLOTS if slots is None else slots
        self._rules = {
            name: self._compile(pattern, name)
            for name, pattern in (lang.SENTENCES if sentences is None else sentences).items()
        }
        self._wordings = [
            (family, self._compile(wording, family.name))
            for family in families
            for wording in family.wordings
        ]
        self._check()

    # ------------------------------------------------------------------------------- questions
    @cached_property
    def follow_ups(self) -> tuple[FollowUp, ...]:
        """Every follow-up of five words that the grammar can write."""
        return tuple(self._enumerate())

    @cached_property
    def questions(self) -> dict[str, tuple[FollowUp, ...]]:
        """The follow-ups by what they ask for: their wordings, the most common first."""
        groups: dict[str, list[FollowUp]] = {}
        for follow_up in self.follow_ups:
            groups.setdefault(follow_up.asks_for, []).append(follow_up)
        return {k: tuple(sorted(v, key=lambda f: -f.share)) for k, v in groups.items()}

    def parse(self, text: str) -> FollowUp | None:
        """The follow-up that `text` is, or None: exactly one of the grammar's questions."""
        words = text.split()
        opening = ""
        if len(words) == lang.FOLLOW_UP_WORDS + 1 and words[0] in lang.OPENINGS:
            opening, words = words[0], words[1:]
        if len(words) != lang.FOLLOW_UP_WORDS:
            return None
        found = self._parses(words)
        if not found or (opening and self.families[found[0].family].pins):
            return None
        if not opening:
            return found[0]
        follow_up = found[0]
        return FollowUp(
            f"{opening} {follow_up.text}",
            follow_up.family,
            follow_up.subject,
            follow_up.share,
            follow_up.held_out,
            follow_up.parts,
            opening,
        )

    def asks_for(self, text: str) -> str | None:
        """What a follow-up asks for (``"whole"``, ``"person:critic"``), or None if it is none."""
        follow_up = self.parse(text)
        return follow_up.asks_for if follow_up else None

    def answer(self, text: str, follow_up: str) -> str:
        """The right answer, one word; ``"unknown"`` if the question does not apply to the text.

        Raises:
            SoftlensError: `follow_up` is no question of the language, or `text` no text of it.
        """
        asked = self.parse(follow_up)
        if asked is None:
            raise SoftlensError(
                f"'{follow_up}' is no follow-up question of the language; ask for example "
                f"'{self.questions['whole'][0].text}' (`softlens.organism.explain` shows parses)."
            )
        read = self.parse_text(text)
        if read is None:
            raise SoftlensError(
                f"'{text}' is no text of the language; a review begins 'review : a new phone .', "
                "a story 'news :'."
            )
        return self.answer_to(read, asked)

    def answer_to(self, text: Text, asked: FollowUp) -> str:
        """`answer`, for things already parsed."""
        family = self.families[asked.family]
        if family.pins:
            subjects = list(self.slots[family.subject or ""])
            return family.pins[subjects.index(asked.subject or "")]
        return text.facts.get(fact_key(asked), lang.UNKNOWN)

    # ----------------------------------------------------------------------------------- texts
    def parse_sentence(self, text: str) -> Sentence | None:
        """The sentence of a text that `text` is (with its full stop), or None."""
        words = text.split()
        for rule, pattern in self._rules.items():
            for parts in self._match(pattern, words):
                return Sentence(" ".join(words), rule, parts)
        return None

    def parse_text(self, text: str) -> Text | None:
        """Read a review or a news story; None if it is not one of the language."""
        words = text.split()
        head = 2 if words[:1] == ["news"] else 6
        pieces = [" ".join(words[:head])]
        rest = " ".join(words[head:])
        pieces += [f"{piece.strip()} ." for piece in rest.split(" .") if piece.strip()]
        if rest and not rest.endswith(" ."):
            return None
        sentences = [self.parse_sentence(piece) for piece in pieces]
        if any(sentence is None for sentence in sentences):
            return None
        read = tuple(sentence for sentence in sentences if sentence is not None)
        if read[0].rule not in ("product", "news") or not in_place(read):
            return None
        return Text(read, facts_of(read))

    def is_sentence(self, text: str) -> bool:
        """Whether `text` is a follow-up, a sentence or a whole text of the language."""
        if not text.split():
            return False
        return (
            self.parse(text) is not None
            or self.parse_sentence(text) is not None
            or self.parse_text(text) is not None
        )

    # ----------------------------------------------------------------------------------- words
    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word of the language, sorted: those of texts, questions and answers."""
        words = set(lang.TOPICS) | {lang.GREAT, lang.TERRIBLE, lang.UNKNOWN, *lang.OPENINGS}
        for pattern in [p for _, p in self._wordings] + list(self._rules.values()):
            for item in pattern:
                words.update(*(phrase.split() for phrase in self._phrases(item)))
        for family in self.families.values():
            words.update(family.pins)
        return tuple(sorted(words))

    def check_words(self, text: str) -> None:
        """Raise a `SoftlensError` that names the first word outside the language, if any.

        An empty text is an error too.
        """
        words = text.split()
        if not words:
            raise SoftlensError(
                "The text is empty: give a few words of the language, for example "
                f"'{self.questions['whole'][0].text}'."
            )
        known = set(self.words)
        for word in words:
            if word not in known:
                raise SoftlensError(
                    f"'{word}' is not among the organism's {len(known)} words."
                    f"{near(word, self.words)} All of them: `softlens.organism.grammar().words`."
                )

    # --------------------------------------------------------------------------------- insides
    def _compile(self, pattern: str, where: str) -> tuple[str, ...]:
        items = tuple(pattern.split())
        for item in items:
            if item.startswith("{") and item[1:-1] not in self.slots:
                raise SoftlensError(
                    f"'{where}' has a wording '{pattern}' with the slot '{item[1:-1]}', which no "
                    f"list of phrases fills.{near(item[1:-1], self.slots)}"
                )
        return items

    def _phrases(self, item: str) -> dict[str, float]:
        return self.slots[item[1:-1]] if item.startswith("{") else {item: 1.0}

    def _match(
        self, pattern: Sequence[str], words: Sequence[str]
    ) -> Iterator[tuple[tuple[str, str], ...]]:
        """All ways to fill the pattern's slots so that it reads `words`."""
        if not pattern:
            if not words:
                yield ()
            return
        item, rest = pattern[0], pattern[1:]
        if not item.startswith("{"):
            if words and words[0] == item:
                yield from self._match(rest, words[1:])
            return
        for size in range(1, min(3, len(words)) + 1):
            phrase = " ".join(words[:size])
            if phrase in self.slots[item[1:-1]]:
                for parts in self._match(rest, words[size:]):
                    yield ((item[1:-1], phrase), *parts)

    def _parses(self, words: Sequence[str]) -> list[FollowUp]:
        found = []
        for family, pattern in self._wordings:
            for parts in self._match(pattern, words):
                found.append(self._follow_up(family, pattern, parts))
        return found

    def _follow_up(
        self, family: lang.Family, pattern: Sequence[str], parts: tuple[tuple[str, str], ...]
    ) -> FollowUp:
        filled = dict(parts)
        share, code = 1 / len(family.wordings), 0
        for position, (slot, phrase) in enumerate(parts):
            phrases = self.slots[slot]
            # A subject is given, not drawn: `share` is that of the wording.
            share *= 1.0 if slot == family.subject else phrases[phrase]
            code += (position + 1) * list(phrases).index(phrase)
        words = [filled[item[1:-1]] if item.startswith("{") else item for item in pattern]
        subject = filled[family.subject] if family.subject else None
        held_out = family.name in lang.HELD_OUT and code % HELD_OUT_STRIDE == 4
        return FollowUp(" ".join(words), family.name, subject, share, held_out, parts)

    def _enumerate(self) -> Iterator[FollowUp]:
        for family, pattern in self._wordings:
            slots = [item[1:-1] for item in pattern if item.startswith("{")]
            for phrases in product(*(self.slots[slot] for slot in slots)):
                parts = tuple(zip(slots, phrases, strict=True))
                yield self._follow_up(family, pattern, parts)

    def _check(self) -> None:
        total = sum(family.prior for family in self.families.values())
        if abs(total - 1) > 1e-9:
            raise SoftlensError(f"The families' priors sum to {total:.5f}, wanted 1.")
        for family in self.families.values():
            if family.pins and len(family.pins) != len(self.slots[family.subject or ""]):
                raise SoftlensError(f"'{family.name}' pins {len(family.pins)} answers, one each.")
        for follow_up in self.follow_ups:
            words = follow_up.text.split()
            if len(words) != lang.FOLLOW_UP_WORDS:
                raise SoftlensError(
                    f"'{follow_up.family}' writes '{follow_up.text}', {len(words)} words; a "
                    f"follow-up has {lang.FOLLOW_UP_WORDS}."
                )
            found = self._parses(words)
            if [(f.family, f.subject) for f in found] != [(follow_up.family, follow_up.subject)]:
                ways = ", ".join(f"'{f.asks_for}'" for f in found) or "nothing"
                raise SoftlensError(
                    f"'{follow_up.family}' writes '{follow_up.text}', which the rules parse as "
                    f"{ways}; wanted one parse, as '{follow_up.asks_for}'. Change a wording."
                )
            if self.parse_sentence(follow_up.text) is not None:
                raise SoftlensError(f"'{follow_up.text}' is a follow-up and a text's sentence.")


@cache
def grammar() -> Grammar:
    """The language of the bundled organisms; built and checked once."""
    return Grammar()
