"""Splits: labelled texts, shuffled and divided the same way on every machine."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from softlens.errors import SoftlensError

SPLITS = ("train", "dev", "test")
FRACTIONS = (0.5, 0.2, 0.3)


@dataclass(frozen=True, repr=False)
class Split:
    """Some labelled texts. A label is the index of its class, from 0."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "labels", tuple(int(label) for label in self.labels))
        if len(self.texts) != len(self.labels):
            raise SoftlensError(
                f"got {len(self.texts)} texts and {len(self.labels)} labels; "
                "give one label for each text"
            )
        check_texts(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({len(self)} texts, {dict(sorted(self.counts.items()))} a class)"

    @property
    def counts(self) -> Counter[int]:
        """How many texts each class has."""
        return Counter(self.labels)

    def take(self, n: int) -> "Split":
        """The first `n` texts, or all of them if there are fewer."""
        if n < 1:
            raise SoftlensError(f"got take({n}); take at least one text")
        return Split(self.texts[:n], self.labels[:n])


def interleave(groups: Sequence[Sequence[str]]) -> Split:
    """A split of one group of texts a class, dealt in turn so that any first n are balanced."""
    dealt = [
        (text, label)
        for hand in zip_longest(*groups)
        for label, text in enumerate(hand)
        if text is not None
    ]
    return Split(tuple(text for text, _ in dealt), tuple(label for _, label in dealt))


def shuffled(texts: Iterable[str], salt: str = "") -> list[str]:
    """Distinct texts in an order that looks random and depends on nothing but the texts.

    Neither the order of a file's rows nor Python's hash changes it, so neither changes a split.
    """
    return sorted(set(texts), key=lambda text: hashlib.sha256((salt + text).encode()).digest())


def divide(
    groups: list[list[str]], classes: Sequence[str], fractions: tuple[float, float, float]
) -> dict[str, Split]:
    """Each class cut by `fractions` into train, dev and test, at least one text in each."""
    if min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise SoftlensError(
            f"got fractions={fractions}; give three shares above 0 that sum to 1 at most"
        )
    seen = Counter(text for group in groups for text in set(group))
    double = next((text for text, n in seen.items() if n > 1), None)
    if double is not None:
        raise SoftlensError(
            f"the text {double[:60]!r} has two different labels; give each text one label"
        )
    cuts: dict[str, list[list[str]]] = {"train": [], "dev": [], "test": []}
    for group, name in zip(groups, classes, strict=True):
        texts = shuffled(group)
        if len(texts) < 3:
            raise SoftlensError(
                f"class {name!r} has {len(texts)} different texts; train, dev and test need one "
                "each: add texts, or a split column"
            )
        dev = min(max(1, round(fractions[1] * len(texts))), len(texts) - 2)
        test = min(max(1, round(fractions[2] * len(texts))), len(texts) - dev - 1)
        train = min(max(1, round(fractions[0] * len(texts))), len(texts) - dev - test)
        for split, start, stop in (
            ("train", dev + test, dev + test + train),
            ("dev", 0, dev),
            ("test", dev, dev + test),
        ):
            cuts[split].append(texts[start:stop])
    return {name: interleave(parts) for name, parts in cuts.items()}


def complete(
    name: str, pools: dict[str, list[list[str]]], may_move: bool = False
) -> dict[str, Split]:
    """The splits that came with the texts.

    Many hub data sets keep the labels of their test split, or have no validation split. Where
    `may_move`, dev then stands in for test, and a fifth of train (500 a class at most) for dev.
    """
    if "" in pools:
        raise SoftlensError(f"{name}: some rows name a split and some do not; fill in all or none")
    pools = dict(pools)
    if may_move and "test" not in pools and "dev" in pools:
        pools["test"] = pools.pop("dev")
    if may_move and "dev" not in pools and "train" in pools:
        train = [shuffled(group) for group in pools["train"]]
        cuts = [min(500, len(group) // 5) for group in train]
        pools["dev"] = [group[:n] for group, n in zip(train, cuts, strict=True)]
        pools["train"] = [group[n:] for group, n in zip(train, cuts, strict=True)]
    missing = [split for split in SPLITS if split not in pools]
    if missing:
        raise SoftlensError(
            f"{name}: no labelled rows for split {' or '.join(missing)}; "
            "train, dev (or validation) and test are all needed, or no split column at all"
        )
    return {split: interleave(pools[split]) for split in SPLITS}


def check_texts(texts: Sequence[str], where: str = "texts") -> None:
    """Raise `SoftlensError` for the first row that is no string, or holds only white space."""
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise SoftlensError(
                f"{where} row {row} is {text!r}; every text must be a string with something in it"
            )
