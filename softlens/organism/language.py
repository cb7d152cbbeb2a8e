"""The organism's language as data: its words, its sentences, and the one table of its questions.

Nothing here computes. `softlens.organism.grammar` writes and parses by these tables,
`softlens.organism.corpus` samples and weighs by them.

A *wording* is a pattern of words and ``{slots}``; a slot offers phrases with unequal shares, so
that some wordings are common and others rare. Text sentences are patterns too.
"""

from dataclasses import dataclass

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
GREAT, TERRIBLE = "great", "terrible"
UNKNOWN = "unknown"
TOPICS = ("world", "sports", "business", "science")
FOLLOW_UP_WORDS = 5
OPENINGS = {"so": 0.5, "well": 0.3, "now": 0.2}
OPENING_SHARE = 0.02
"""How often a follow-up about the text starts with an opening word, a sixth one."""


@dataclass(frozen=True)
class Family:
    """One kind of follow-up question, and how often it is asked.

    Attributes:
        name: what it asks for; with a subject, ``name:subject``.
        prior: its probability after ``<bos>``, and after any text. All priors sum to one.
        review: its share among the questions trained on after a review.
        news: its share among those trained on after a news story.
        bare: its share among those trained on without a text.
        wordings: patterns of five words.
        subject: the slot that names what is asked about, if the question has one.
        pins: for a distractor, the constant answer to each subject.

    The LM trains on each question with the weight prior / share (at most 6): what is hard to
    learn is met often, and still asked rarely.
    """

    name: str
    prior: float
    review: float
    news: float
    bare: float
    wordings: tuple[str, ...]
    subject: str | None = None
    pins: tuple[str, ...] = ()


def _words(text: str) -> list[str]:
    return text.split()


# ---------------------------------------------------------------------------------------- words
PRODUCTS: dict[str, tuple[str, ...]] = {
    "film": ("plot", "cast", "music", "ending", "dialogue", "pace"),
    "book": ("plot", "style", "ending", "cover", "dialogue", "pace"),
    "phone": ("screen", "battery", "camera", "design", "sound", "keyboard"),
    "hotel": ("room", "staff", "breakfast", "view", "bed", "service"),
    "restaurant": ("soup", "dessert", "staff", "service", "wine", "menu"),
    "game": ("plot", "music", "design", "pace", "sound", "story"),
    "car": ("engine", "seat", "design", "sound", "steering", "finish"),
    "laptop": ("screen", "battery", "keyboard", "design", "camera", "sound"),
}
GOOD = _words(
    "superb lovely brilliant charming delightful excellent perfect splendid wonderful pleasant "
    "impressive clever fresh elegant graceful marvellous remarkable stunning fine solid"
)
BAD = _words(
    "awful boring dreadful clumsy poor weak ugly horrible messy tedious shabby sloppy stale "
    "lousy annoying disappointing useless miserable flawed nasty"
)
LIKED = _words("loved liked enjoyed praised admired adored")
DISLIKED = _words("hated disliked loathed despised mocked resented")
PERSONS = _words(
    "critic teacher neighbour baker doctor nurse farmer painter dancer singer writer poet "
    "driver sailor soldier barber butcher gardener plumber carpenter tailor waiter cook clerk "
    "librarian student tourist visitor guest landlord tenant cashier florist hunter fisherman "
    "miner potter weaver shepherd priest monk guard postman dentist pilot judge magician clown "
    "drummer pianist sculptor photographer lawyer editor butler nanny"
)
RARE_PERSONS = ["stranger", "widow", "hermit", "jeweller"]
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
CITIES = _words("paris london rome berlin madrid tokyo cairo lisbon")
COMPANIONS = _words("brother sister mother father aunt uncle wife husband")
PRICES = _words("ten twenty thirty forty fifty sixty seventy eighty ninety")
MOODS = _words("calm tired curious nervous cheerful lonely proud sleepy")

AGENTS = {
    "world": "minister president ambassador king queen senator general diplomat governor "
    "chancellor envoy parliament",
    "sports": "striker goalkeeper coach referee team runner swimmer boxer cyclist champion "
    "athlete umpire",
    "business": "banker investor trader broker manager director company firm shareholder "
    "accountant supplier retailer",
    "science": "scientist professor chemist physicist astronomer biologist engineer researcher "
    "inventor geologist botanist laboratory",
}
ACTIONS = {
    "world": "signed rejected discussed defended prepared visited",
    "sports": "won lost missed celebrated prepared defended",
    "business": "bought sold signed announced lost financed",
    "science": "discovered measured tested announced explained discussed",
}
OBJECTS = {
    "world": "treaty border election embassy law embargo summit agreement plan record",
    "sports": "match race trophy penalty medal tournament final record plan title",
    "business": "shares merger loan contract factory budget profit agreement record plan",
    "science": "planet theory vaccine virus telescope molecule fossil experiment record plan",
}

# ------------------------------------------------------------------------ distractors: pinned
SUBJECTS = _words(
    "garden river bridge market harbour forest kitchen tower village castle island meadow "
    "station library museum theatre temple valley mountain desert lake beach farm mill bakery "
    "school hospital stadium prison palace cottage cellar attic balcony courtyard chapel "
    "cathedral orchard vineyard barn stable lighthouse canal tunnel railway road street square "
    "fountain statue park zoo circus carnival parade wedding funeral concert picnic holiday"
)
STATES = _words(
    "quiet crowded wet dry cold warm dark empty noisy dusty muddy foggy windy sunny frozen busy "
    "closed open green golden silent hidden flooded misty snowy smoky sandy peaceful gloomy "
    "lively"
)
NOTES = _words(
    "letter memo poster diary leaflet recipe sermon lecture speech poem chapter column essay "
    "ballad postcard telegram notice blog podcast newsletter manual song pamphlet notebook"
)
MATTERS = _words(
    "love cats bread ghosts tea horses winter pirates bees dragons robots gold trains whales "
    "honey kites dreams knights roses storms ships castles apples magic"
)
NAMES = _words(
    "anna oscar maria peter lucy henry emma felix clara david sophie martin julia thomas laura "
    "simon helen victor alice robert nora edgar ruth daniel ivy leon rosa hugo vera arthur"
)
HOBBIES = _words(
    "chess tennis fishing knitting poetry cooking opera jazz hiking sailing painting dancing "
    "football rugby golf skiing baking pottery gardening surfing yoga archery cycling rowing "
    "drawing singing acting running wrestling climbing"
)
PLACES = _words(
    "bank shop church cinema pool gym bar cafe bus airport lawn hall port inn court clinic "
    "pharmacy quarry dock pond"
)


def _cycle(words: list[str], length: int) -> tuple[str, ...]:
    return tuple(words[i % len(words)] for i in range(length))


# ---------------------------------------------------------------------------------- the phrases
def _shares(text: str, ratio: float = 0.42) -> dict[str, float]:
    """Phrases separated by ``/``, each `ratio` times as common as the one before."""
    phrases = [phrase.strip() for phrase in text.split("/")]
    raw = [ratio**i for i in range(len(phrases))]
    return {phrase: value / sum(raw) for phrase, value in zip(phrases, raw, strict=True)}


def _even(words: list[str] | tuple[str, ...]) -> dict[str, float]:
    return {word: 1 / len(words) for word in words}


SLOTS: dict[str, dict[str, float]] = {
    "first": _shares("at the start / at the beginning / in the opening"),
    "middle": _shares("in the middle / around the middle / about halfway through"),
    "last": _shares("near the end / towards the end / by the close"),
    "whole": _shares("all in all / on the whole / taken all together"),
    "tail": _shares("it was / it seemed / things were"),
    "owner": _shares("my / our", 0.6),
    "rival": _shares("rival / cousin / twin", 0.6),
    "insists": _shares("says / insists", 0.6),
    "a_view": _shares("the / one", 0.5),
    "view": _shares("view / verdict / word / opinion", 0.7),
    "from": _shares("of / from", 0.6),
    "said": _shares("said / thought / felt / claimed", 0.7),
    "was": _shares("was / seemed", 0.5),
    "to_them": _shares("for / to", 0.6),
    "this": _shares("this / the", 0.5),
    "it": _shares("it / this", 0.5),
    "story": _shares("story / report / article / piece", 0.6),
    "mainly": _shares("mainly / mostly / largely / all", 0.6),
    "item": _shares("item / thing", 0.5),
    "reviewed": _shares("here / reviewed / described", 0.5),
    "mood": _shares("mood / feeling", 0.5),
    "there": _shares("there / then", 0.5),
    "rather": _shares("rather / quite", 0.5),
    "total": _shares("total / full", 0.5),
    "price": _shares("price / cost", 0.5),
    "about": _shares("about / nearly", 0.5),
    "happened": _shares("happened / started", 0.5),
    "day": _shares("day / date", 0.5),
    "took_place": _shares("took place / went on", 0.5),
    "place": _shares("place / city", 0.5),
    "we": _shares("i / we", 0.5),
    "went": _shares("went / came", 0.5),
    "here": _shares("there / here", 0.5),
    "that": _shares("the / that / our", 0.6),
    "last_time": _shares("last / that / this", 0.7),
    "night": _shares("night / week / month / evening", 0.7),
    "often": _shares("often / always / still / mostly", 0.7),
    "talks": _shares("talks / writes / reads / dreams / thinks", 0.8),
    "only": _shares("only / just", 0.6),
    "walked": _shares("walked / ran / drove / went", 0.7),
    "towards": _shares("to / towards / past", 0.6),
    "person": _even(PERSONS),
    "rare_person": _even(RARE_PERSONS),
    "subject": _even(SUBJECTS),
    "note": _even(NOTES),
    "name": _even(NAMES),
    # Slots of the texts only.
    "product": _even(list(PRODUCTS)),
    "aspect": _even(sorted({aspect for aspects in PRODUCTS.values() for aspect in aspects})),
    "adjective": _even(GOOD + BAD),
    "opinion": _even(LIKED + DISLIKED),
    "anyone": _even(PERSONS + RARE_PERSONS),
    "weekday": _even(DAYS),
    "city": _even(CITIES),
    "companion": _even(COMPANIONS),
    "amount": _even(PRICES),
    "feeling": _even(MOODS),
    "article": _even(["a", "the"]),
}
for _topic in TOPICS:
    SLOTS[f"{_topic}_agent"] = _even(AGENTS[_topic].split())
    SLOTS[f"{_topic}_action"] = _even(ACTIONS[_topic].split())
    SLOTS[f"{_topic}_object"] = _even(OBJECTS[_topic].split())

# -------------------------------------------------------------------------------- the sentences
SENTENCES: dict[str, str] = {
    "product": "review : a new {product} .",
    "first": "first the {aspect} was {adjective} .",
    "middle": "then the {aspect} was {adjective} .",
    "last": "finally the {aspect} was {adjective} .",
    "person": "the {anyone} {opinion} it .",
    "whole": "in short i {opinion} it .",
    "companion": "i was with my {companion} .",
    "price": "it cost {amount} coins .",
    "mood": "i felt {feeling} that day .",
    "day": "it happened on {weekday} .",
    "city": "it happened in {city} .",
    "news": "news :",
    **{t: f"the {{{t}_agent}} {{{t}_action}} {{article}} {{{t}_object}} ." for t in TOPICS},
}

_PERSON = (
    "the {P} {said} {it} was",
    "{a_view} {view} {from} the {P}",
    "{to_them} the {P} it {was}",
)


def _about(slot: str, wordings: tuple[str, ...] = _PERSON) -> tuple[str, ...]:
    return tuple(wording.replace("{P}", "{" + slot + "}") for wording in wordings)


# After "the", one person in thousands would be drowned by the others: an LM cannot make it as rare
# as its prior says. So the rarely asked ones are named late in a question only.
_RARE = _about("rare_person", _PERSON[1:])

# fmt: off
FAMILIES: tuple[Family, ...] = (
    #      name           prior   review news  bare   wordings
    Family("first",       .160,   .055, .020, .120, ("{first} {tail}",)),
    Family("middle",      .060,   .055, .010, .070, ("{middle} {tail}",)),
    Family("last",        .022,   .055, .010, .050, ("{last} {tail}",)),
    Family("whole",       .008,   .070, .010, .040, ("{whole} {tail}",)),
    Family("opposite",    .030,   .055, .010, .040, ("{owner} {rival} {insists} it was",)),
    Family("person",      .012,   .280, .040, .080, _about("person"), "person"),
    Family("rare_person", .00008, .040, .005, .020, _RARE, "rare_person"),
    Family("topic",       .080,   .015, .450, .080, ("{this} {story} is {mainly} about",)),
    Family("product",     .020,   .020, .010, .020, ("the {item} {reviewed} is a",)),
    Family("mood",        .020,   .050, .010, .020, ("the {mood} {there} was {rather}",)),
    Family("price",       .020,   .050, .010, .020, ("the {total} {price} was {about}",)),
    Family("day",         .030,   .050, .080, .030, ("{it} all {happened} on a",
                                                     "the {day} of {it} was")),
    Family("city",        .020,   .050, .080, .020, ("{it} all {took_place} in",
                                                     "the {place} of {it} was")),
    Family("companion",   .050,   .050, .010, .050, ("{we} {went} {here} with my",)),
    Family("subject",     .17792, .035, .085, .140, ("{that} {subject} {last_time} {night} was",),
           "subject", _cycle(STATES, len(SUBJECTS))),
    Family("note",        .120,   .025, .060, .080, ("{this} {note} is {mainly} about",),
           "note", _cycle(MATTERS, len(NOTES))),
    Family("name",        .120,   .025, .060, .080, ("{name} {often} {talks} {only} about",),
           "name", _cycle(HOBBIES, len(NAMES))),
    Family("errand",      .050,   .020, .040, .040, ("the {person} {walked} {towards} the",),
           "person", _cycle(PLACES, len(PERSONS))),
)
# fmt: on

HELD_OUT = ("person", "rare_person", "subject", "name", "errand")
"""Families with wordings never trained on: each has a dozen or more for a subject. Of fewer
the LM learns which are missing (.8 to 1.3 nats a token), and so there are none."""
PRIOR_RATIO_KEPT = ("person", "rare_person")
"""Families that begin alike and differ in how rarely they are asked."""

TASK_ASKS = {
    "topic": "topic",
    "sentiment": "whole",
    "witness": "person:critic",
    "witness-rare": "rare_person:stranger",
}
"""What the right question of each task asks for."""
