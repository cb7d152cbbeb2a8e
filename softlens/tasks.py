"""Tasks: texts, labels, label words and a template, checked when they are put together.

`softlens.catalogue` says where tasks come from.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from softlens import readers
from softlens.errors import SoftlensError
from softlens.readers import LabelWords
from softlens.splits import SPLITS, Split, check_texts, interleave
from softlens.templates import template_parts

if TYPE_CHECKING:
    from softlens.lm import LM

__all__ = ["Split", "Task", "digest", "template_parts"]

log = logging.getLogger(__name__)

BETWEEN = " / "
"""Stands between label words where they are one column of a table."""


@dataclass(frozen=True, repr=False)
class Task:
    """A classification task as an LM is asked it: the word after the template is the answer.

    Everything is checked when the task is built; see `answer_ids` for what only an LM can tell.
    """

    name: str
    label_words: tuple[str, ...]
    """The word that answers for each class, without a leading space; one token each."""
    template: str
    """Holds ``{text}`` and ``{prompt}`` once each; see `template_parts`."""
    train: Split
    dev: Split
    test: Split
    unlabelled: tuple[str, ...] = ()
    """Further texts of the same kind, for views that need no label."""
    readable: tuple[str, ...] = ()
    """Prompts a person would write; the best of them (chosen on dev) is a reference line."""
    class_names: tuple[str, ...] = field(default=())
    """What each class is called in tables and plots; the label words unless given."""
    source: str = ""
    """Where the texts are from, and their licence."""

    def __post_init__(self) -> None:
        words = tuple(word.strip() for word in self.label_words)
        object.__setattr__(self, "label_words", words)
        object.__setattr__(self, "class_names", tuple(self.class_names or words))
        object.__setattr__(self, "unlabelled", tuple(self.unlabelled))
        object.__setattr__(self, "readable", tuple(self.readable))
        _check_label_words(words)
        if len(self.class_names) != len(words):
            raise SoftlensError(
                f"got {len(words)} label words and {len(self.class_names)} class names; "
                "give one of each for every class"
            )
        template_parts(self.template)
        for split_name in SPLITS:
            self._check_split(split_name, getattr(self, split_name))
        check_texts(self.unlabelled, "unlabelled")
        check_texts(self.readable, "readable prompts")

    def _check_split(self, split_name: str, split: Split) -> None:
        if not len(split):
            raise SoftlensError(f"the {split_name} split is empty; every split needs texts")
        for row, label in enumerate(split.labels):
            if not 0 <= label < len(self.label_words):
                raise SoftlensError(
                    f"{split_name} row {row} has label {label}, but there are "
                    f"{len(self.label_words)} label words {self.label_words}: labels are "
                    f"0 to {len(self.label_words) - 1}"
                )
        if split_name == "train":
            empty = [n for i, n in enumerate(self.class_names) if i not in split.counts]
            if empty:
                raise SoftlensError(
                    f"no training text has class {' or '.join(map(repr, empty))}; "
                    "every class needs texts to train on: add some, or leave its label word out"
                )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, s))} {s}" for s in SPLITS)
        return (
            f"Task({self.name!r}, {' / '.join(self.label_words)}, {self.template!r}, "
            f"{sizes}, {len(self.unlabelled)} unlabelled)"
        )

    def with_(self, template: str | None = None, label_words: LabelWords | None = None) -> "Task":
        """The same texts asked with another template or other label words.

        `label_words` come in the order of `class_names`, or as a mapping from class names to words.
        """
        words = self.label_words
        if label_words is not None:
            words = readers.words_in_order(label_words, self.class_names, ordered=True)
        template = self.template if template is None else template
        return replace(self, template=template, label_words=words)

    def head(
        self, train: int | None = None, dev: int | None = None, test: int | None = None
    ) -> "Task":
        """The first texts of each split: a smaller task of the same kind, for a quick look.

        Splits are interleaved by class, so that the first texts of a balanced one are balanced.
        """
        sizes = {"train": train, "dev": dev, "test": test}
        taken = {name: getattr(self, name).take(n) for name, n in sizes.items() if n is not None}
        return replace(self, **taken)

    def few_shot(self, shots: int, seed: int = 0) -> "Task":
        """`shots` texts a class to train on and as many for dev; the test split is untouched.

        Both are drawn, without overlap, from the train and dev splits together. This is how the
        few-shot literature draws its sets (RLPrompt, arXiv 2205.12548: 16 a class).

        Args:
            shots: texts of each class, in each of the two splits.
            seed: of the draw.

        Raises:
            SoftlensError: a class with fewer texts than that (says how many there may be).
        """
        pool = dict(zip(self.train.texts, self.train.labels, strict=True))
        for text, label in zip(self.dev.texts, self.dev.labels, strict=True):
            pool.setdefault(text, label)
        groups: list[list[str]] = [[] for _ in self.label_words]
        for text, label in pool.items():
            groups[label].append(text)
        fewest = min(range(len(groups)), key=lambda i: len(groups[i]))
        if not 1 <= shots <= len(groups[fewest]) // 2:
            raise SoftlensError(
                f"got shots={shots}: {shots} texts a class for train and as many for dev are "
                f"wanted, but class {self.class_names[fewest]!r} has {len(groups[fewest])} in "
                f"train and dev together; try 1 to {len(groups[fewest]) // 2}"
            )
        rng = np.random.default_rng(seed)
        drawn = [[group[i] for i in rng.permutation(len(group))] for group in groups]
        return replace(
            self,
            train=interleave([group[:shots] for group in drawn]),
            dev=interleave([group[shots : 2 * shots] for group in drawn]),
        )

    def answer_ids(self, lm: "LM") -> list[int]:
        """The token id of each label word, with its leading space where the tokenizer marks one.

        Raises `SoftlensError` for a word of several tokens (with its pieces, and single-token words
        near in meaning), a word the LM does not know, and two words of one token.
        """
        ids: list[int] = []
        for word in self.label_words:
            pieces = lm.encode(word, leading_space=True)
            if len(pieces) == 1 and pieces[0] not in lm.special_ids:
                ids.append(pieces[0])
                continue
            got = (
                f"{len(pieces)} tokens for {lm.name}: {[lm.token(i) for i in pieces]}"
                if len(pieces) > 1
                else f"no word of {lm.name}'s vocabulary"
            )
            offers = _single_token_words(lm, word, pieces, k=5)
            hint = f" (single tokens near in meaning: {', '.join(offers)})" if offers else ""
            raise SoftlensError(
                f"label word {word!r} is {got}. A label word is one token, because the answer is "
                f"read at one position; give another with label_words={hint}"
            )
        for i, word in enumerate(self.label_words):
            if ids[i] in ids[:i]:
                twin = self.label_words[ids.index(ids[i])]
                raise SoftlensError(
                    f"label words {twin!r} and {word!r} are the same token {ids[i]} for {lm.name}; "
                    "give every class its own word with label_words="
                )
        return ids


def digest(task: Task) -> str:
    """16 hex digits of what a task asks: its texts, labels, words, template, readable prompts."""
    told = [task.name, task.template, task.label_words, task.class_names, task.readable]
    told += [[getattr(task, name).texts, getattr(task, name).labels] for name in SPLITS]
    told.append(task.unlabelled)
    written = json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.sha256(written).hexdigest()[:16]


def _check_label_words(words: Sequence[str]) -> None:
    if len(words) < 2:
        raise SoftlensError(f"got label words {tuple(words)}; a task needs two classes or more")
    check_texts(words, "label words")
    twice = [word for word, n in Counter(words).items() if n > 1]
    if twice:
        raise SoftlensError(
            f"label word {twice[0]!r} stands for {Counter(words)[twice[0]]} classes in "
            f"{tuple(words)}; give every class its own word"
        )


def _single_token_words(lm: "LM", wanted: str, pieces: Sequence[int], k: int) -> list[str]:
    """The `k` words of one token nearest to a word of several: cosine of embeddings.

    Embeddings are centred first (all share a large common part), and pieces count by their length,
    so that the stem of a word says more than its ending.
    """
    known = [i for i in pieces if i not in lm.special_ids]
    if not known:
        return []
    centred = lm.embedding.float() - lm.embedding.float().mean(0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    weights = torch.tensor([len(lm.token(i).strip()) for i in known], device=unit.device)
    near_first = (unit @ (unit[known] * weights[:, None]).sum(0)).argsort(descending=True)
    words: list[str] = []
    for i in near_first.tolist():
        if i not in lm.special_ids | lm.unused_ids and i not in pieces:
            word = lm.token(i).strip()
            # A whole word comes back as this very token when it follows a space. (So do the stems
            # that BPE makes of rare words; no dictionary is at hand to tell them apart.)
            whole = word.isalpha() and lm.encode(word, leading_space=True) == [i]
            if whole and len(word) > 2 and word.islower() == wanted.islower():
                words.append(word)
        if len(words) == k:
            break
    return words
