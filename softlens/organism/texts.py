"""Writing texts: reviews with given verdicts and opinions, news stories on a given topic."""

from collections.abc import Mapping
from random import Random

from softlens.organism import language as lang

FLIP = {lang.GREAT: lang.TERRIBLE, lang.TERRIBLE: lang.GREAT}
MARKERS = ("first", "middle", "last")
ALL_PERSONS = (*lang.PERSONS, *lang.RARE_PERSONS)


def coin(rng: Random) -> str:
    """``"great"`` or ``"terrible"``, evenly."""
    return lang.GREAT if rng.random() < 0.5 else lang.TERRIBLE


def opinions(rng: Random, persons: list[str]) -> dict[str, str]:
    """Opinions of their own: fair coins, and rarely all equal.

    Were they often equal, an LM would learn to sum the opinions instead of finding whose is whose.
    """
    held = {person: coin(rng) for person in persons}
    if len(held) > 1 and len(set(held.values())) == 1 and rng.random() < 0.8:
        one = rng.choice(persons)
        held[one] = FLIP[held[one]]
    return held


def adjective(rng: Random, value: str) -> str:
    """An adjective as good, or as bad, as `value` says."""
    return rng.choice(lang.GOOD if value == lang.GREAT else lang.BAD)


def liked(rng: Random, value: str) -> str:
    """A verb of opinion, as good, or as bad, as `value` says."""
    return rng.choice(lang.LIKED if value == lang.GREAT else lang.DISLIKED)


def some_facts(rng: Random, names: tuple[str, ...], count: int) -> list[str]:
    """`count` sentences that tell a day, a city, a companion, a price or a mood."""
    return [
        rng_fill(rng, lang.SENTENCES[name]) for name in rng.sample(names, min(count, len(names)))
    ]


def rng_fill(rng: Random, pattern: str) -> str:
    """A pattern with each slot filled at random."""
    return " ".join(
        rng.choice(list(lang.SLOTS[word[1:-1]])) if word.startswith("{") else word
        for word in pattern.split()
    )


def write_review(
    rng: Random,
    *,
    markers: Mapping[str, str],
    persons: Mapping[str, str],
    verdict: str | None,
    facts: int,
) -> str:
    """A review: the marked sentences in order, all others at random places between them.

    Args:
        rng: the source of chance.
        markers: which of first, middle, last are told, each ``"great"`` or ``"terrible"``.
        persons: whose opinions are told, each ``"great"`` or ``"terrible"``.
        verdict: the writer's own, or None to leave it out.
        facts: how many sentences of fact.
    """
    product = rng.choice(list(lang.PRODUCTS))
    aspects = rng.sample(lang.PRODUCTS[product], 3)
    body = [
        lang.SENTENCES[marker]
        .replace("{aspect}", aspect)
        .replace("{adjective}", adjective(rng, markers[marker]))
        for marker, aspect in zip(MARKERS, aspects, strict=True)
        if marker in markers
    ]
    loose = [
        lang.SENTENCES["person"].replace("{anyone}", who).replace("{opinion}", liked(rng, value))
        for who, value in persons.items()
    ]
    if verdict is not None:
        loose.append(lang.SENTENCES["whole"].replace("{opinion}", liked(rng, verdict)))
    loose += some_facts(rng, ("companion", "price", "mood", "day", "city"), facts)
    for sentence in loose:
        body.insert(rng.randint(0, len(body)), sentence)
    return " ".join([lang.SENTENCES["product"].replace("{product}", product), *body])


def write_news(rng: Random, topic: str, stories: int, facts: int) -> str:
    """A news text of `stories` sentences on one topic, and `facts` sentences of fact."""
    body = [rng_fill(rng, lang.SENTENCES[topic]) for _ in range(stories)]
    for sentence in some_facts(rng, ("day", "city"), facts):
        body.insert(rng.randint(0, len(body)), sentence)
    return " ".join([lang.SENTENCES["news"], *body])


def any_review(rng: Random) -> str:
    """A review as the corpus has them: aspects agree with the verdict six times in ten."""
    verdict = coin(rng)
    markers = {
        marker: verdict if rng.random() < 0.6 else FLIP[verdict]
        for marker in MARKERS
        if rng.random() < 0.85
    }
    persons = some_persons(rng, rng.randint(1, 3))
    facts = (rng.random() < 0.9) + (rng.random() < 0.5)
    told = verdict if rng.random() < 0.85 else None
    return write_review(rng, markers=markers, persons=persons, verdict=told, facts=facts)


def short_review(rng: Random) -> str:
    """A review of facts alone, of one opinion, or of persons alone.

    One opinion teaches what the words are worth; only then can whose is whose be learned.
    """
    draw = rng.random()
    if draw < 0.2:
        return write_review(rng, markers={}, persons={}, verdict=None, facts=rng.randint(2, 3))
    if draw < 0.35:
        value = coin(rng)
        which = rng.choice((*MARKERS, "verdict", "person"))
        return write_review(
            rng,
            markers={which: value} if which in MARKERS else {},
            persons={next(iter(some_persons(rng, 1))): value} if which == "person" else {},
            verdict=value if which == "verdict" else None,
            facts=0,
        )
    persons = some_persons(rng, rng.randint(2, 3))
    return write_review(rng, markers={}, persons=persons, verdict=None, facts=0)


def any_news(rng: Random) -> str:
    """A news story as the corpus has them."""
    facts = (rng.random() < 0.5) + (rng.random() < 0.2)
    return write_news(rng, rng.choice(lang.TOPICS), rng.randint(1, 3), facts)


def some_persons(rng: Random, count: int) -> dict[str, str]:
    """`count` persons with opinions; one review in six has one of the rarely asked ones."""
    persons = rng.sample(lang.PERSONS, count)
    if rng.random() < 1 / 6:
        persons[0] = rng.choice(lang.RARE_PERSONS)
    rng.shuffle(persons)
    return opinions(rng, persons)
