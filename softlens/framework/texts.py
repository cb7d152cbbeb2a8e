"""Texts that a reading is tested on: the task's own, those of another task, shuffled words."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from softlens.catalogue import ORGANISM, is_named, load_task
from softlens.splits import Split
from softlens.tasks import Task

TEST, OTHER, SHUFFLED = "test", "other task", "shuffled words"


@dataclass(frozen=True)
class Domain:
    """Texts of one kind; labels where they are known."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...] | None

    @property
    def whose(self) -> str:
        """Where more of them would have to come from."""
        return "other=" if self.name == OTHER else "the task's test split"


def domains_of(
    task: Task, texts: int, other: Task | Sequence[str] | None, seed: int
) -> list[Domain]:
    """The test texts, texts of another kind where there are some, and shuffled test texts.

    `texts` of each at most.
    """
    test = task.test.take(min(texts, len(task.test)))
    found = [Domain(TEST, test.texts, test.labels)]
    if len(strange := _other(task, other)[:texts]):
        found.append(Domain(OTHER, strange, None))
    rng = Random(f"shuffled {seed}")
    found.append(Domain(SHUFFLED, tuple(_shuffled(text, rng) for text in test.texts), None))
    return found


def _other(task: Task, other: Task | Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(other, Task):
        return other.test.texts
    if other is not None:
        return tuple(other)
    if not is_named(task):
        return ()
    if task.name in ORGANISM:
        return load_task("sentiment" if task.name == "topic" else "topic").test.texts
    return _of_other_kinds(task)


def _of_other_kinds(task: Task) -> tuple[str, ...]:
    """Of the real texts, those that are no reviews of films; for `genre`, reviews."""
    if task.name == "genre":
        return load_task("reviews").test.texts
    genre = load_task("genre")
    films = genre.class_names.index("film review")
    pool: list[str] = []
    for split in (genre.test, genre.dev, genre.train):
        pool += _without(split, films)
    return tuple(dict.fromkeys(pool))


def _without(split: Split, label: int) -> list[str]:
    return [text for text, one in zip(split.texts, split.labels, strict=True) if one != label]


def _shuffled(text: str, rng: Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)
