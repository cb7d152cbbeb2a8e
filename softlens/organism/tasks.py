"""The organism's tasks: texts of their own, with labels known because we wrote them.

`topic` is easy: the LM asks the right question by itself. `sentiment` asks for the verdict, and
cheaper questions about a part of the text are nearly right. `witness` asks for one person's
opinion: a needle that the LM answers, and almost never asks. `witness-rare` hides a rarer one.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from random import Random

from softlens.errors import SoftlensError, near
from softlens.organism import language as lang
from softlens.organism import texts
from softlens.organism.grammar import grammar
from softlens.tasks import Split, Task

SIZES = {"train": 512, "dev": 256, "test": 2048}
UNLABELLED = 512
AGREEMENT = {"first": 0.65, "middle": 0.80, "last": 0.90}
"""How often each part of a review agrees with its verdict in `sentiment`, exactly."""
TEMPLATE = "{text} {prompt}"
VERDICTS = (lang.GREAT, lang.TERRIBLE)
LABEL_WORDS = {
    "topic": lang.TOPICS,
    "sentiment": VERDICTS,
    "witness": VERDICTS,
    "witness-rare": VERDICTS,
}
READABLE: dict[str, tuple[str, ...]] = {
    "topic": (
        "this story is mainly about",
        "the report is mostly about",
        "this article is all about",
        "it all took place in",
        "it all happened on a",
    ),
    "sentiment": (
        "all in all it was",
        "on the whole it was",
        "taken all together it seemed",
        "at the start it was",
        "in the middle it was",
        "near the end it was",
    ),
    "witness": (
        "the critic said it was",
        "the verdict of the critic",
        "for the critic it was",
        "the teacher said it was",
        "all in all it was",
        "near the end it was",
    ),
    "witness-rare": (
        "the verdict of the stranger",
        "for the stranger it was",
        "one word from the stranger",
        "the critic said it was",
        "all in all it was",
        "near the end it was",
    ),
}
OTHERS = (
    "my rival says it was",
    "the mood there was rather",
    "the item here is a",
    "the total price was about",
    "i went there with my",
    "the garden last night was",
)
"""Questions beside the point, for every task."""


def make_task(name: str, seed: int = 0) -> Task:
    """One of the organism's tasks: 512 train, 256 dev, 2,048 test texts, balanced, disjoint.

    Args:
        name: "topic", "sentiment", "witness" or "witness-rare".
        seed: another one draws other texts. The bundled LMs never saw those of seed 0.

    Raises:
        SoftlensError: there is no such task.
    """
    if name not in LABEL_WORDS:
        raise SoftlensError(
            f"The organism has no task {name!r}; it has {', '.join(LABEL_WORDS)}."
            f"{near(name, LABEL_WORDS)}"
        )
    return _tasks(seed)[name]


def tasks(seed: int = 0) -> dict[str, Task]:
    """All of the organism's tasks by name; no text occurs twice among them."""
    return dict(_tasks(seed))


def reserved_texts(seed: int = 0) -> frozenset[str]:
    """Every text of every task: what training must not see."""
    return frozenset(
        text
        for task in _tasks(seed).values()
        for group in (task.train.texts, task.dev.texts, task.test.texts, task.unlabelled)
        for text in group
    )


@cache
def _tasks(seed: int) -> dict[str, Task]:
    seen: set[str] = set()
    return {name: _task(name, seed, seen) for name in LABEL_WORDS}


def _task(name: str, seed: int, seen: set[str]) -> Task:
    # A string seeds `Random` through its SHA-512: the same on every machine.
    rng = Random(f"{name} {seed}")
    splits = {split: _split(name, rng, size, seen) for split, size in SIZES.items()}
    return Task(
        name=name,
        label_words=LABEL_WORDS[name],
        template=TEMPLATE,
        train=splits["train"],
        dev=splits["dev"],
        test=splits["test"],
        unlabelled=_split(name, rng, UNLABELLED, seen).texts,
        readable=READABLE[name] + OTHERS,
        source="softlens.organism: written by its grammar, CC0",
    )


def _split(name: str, rng: Random, size: int, seen: set[str]) -> Split:
    """`size` new texts; the classes take turns, so that any first n are balanced."""
    words = LABEL_WORDS[name]
    writers = [iter(_writers(name, rng, word, size // len(words))) for word in words]
    written, labels = [], []
    for number in range(size):
        label = number % len(words)
        write = next(writers[label])
        text = write()
        while text in seen:
            text = write()
        seen.add(text)
        written.append(text)
        labels.append(label)
    return Split(tuple(written), tuple(labels))


def _writers(name: str, rng: Random, label: str, size: int) -> Iterable[Callable[[], str]]:
    """One writer for each text of a class; agreements are dealt in exact proportion."""
    if name == "topic":
        return [partial(_news, rng, label)] * size
    if name == "sentiment":
        dealt = {part: _deal(rng, share, size) for part, share in AGREEMENT.items()}
        return [
            partial(_review, rng, label, dict(zip(dealt, agrees, strict=True)))
            for agrees in zip(*dealt.values(), strict=True)
        ]
    person = lang.TASK_ASKS[name].split(":")[1]
    verdicts = _deal(rng, 0.5, size)
    return [
        partial(_testimony, rng, person, label, label if agrees else texts.FLIP[label])
        for agrees in verdicts
    ]


def _news(rng: Random, label: str) -> str:
    return texts.write_news(rng, label, rng.randint(2, 3), rng.randint(0, 1))


def _deal(rng: Random, share: float, size: int) -> list[bool]:
    dealt = [i < round(share * size) for i in range(size)]
    rng.shuffle(dealt)
    return dealt


def _review(rng: Random, verdict: str, agrees: dict[str, bool]) -> str:
    markers = {part: verdict if same else texts.FLIP[verdict] for part, same in agrees.items()}
    persons = texts.some_persons(rng, rng.randint(1, 2))
    return texts.write_review(
        rng, markers=markers, persons=persons, verdict=verdict, facts=rng.randint(0, 1)
    )


def _testimony(rng: Random, person: str, opinion: str, verdict: str) -> str:
    """A review in which `person` has the given opinion, among one or two others with theirs."""
    others = [p for p in rng.sample(texts.ALL_PERSONS, 3) if p != person][: rng.randint(1, 2)]
    persons = {person: opinion, **{other: texts.coin(rng) for other in others}}
    order = list(persons)
    rng.shuffle(order)
    markers = {
        part: verdict if rng.random() < 0.6 else texts.FLIP[verdict]
        for part in texts.MARKERS
        if rng.random() < 0.85
    }
    return texts.write_review(
        rng,
        markers=markers,
        persons={who: persons[who] for who in order},
        verdict=verdict,
        facts=rng.randint(0, 1),
    )


def check_readable() -> None:
    """Raise unless each task's own prompts are questions of the grammar, the right one first."""
    for name, prompts in READABLE.items():
        if grammar().asks_for(prompts[0]) != lang.TASK_ASKS[name]:
            raise SoftlensError(f"'{prompts[0]}' does not ask for {lang.TASK_ASKS[name]!r}.")
        for prompt in (*prompts, *OTHERS):
            if grammar().parse(prompt) is None:
                raise SoftlensError(f"'{prompt}', a readable prompt of {name!r}, does not parse.")
