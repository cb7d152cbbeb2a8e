"""The game that positions play: what a coalition of them is worth.

The *players* are the positions of a prompt, or the words of a text that stands beside one; a player
is one position or several. A *coalition* is a set of players that are present; the others are
*absent*, in one of these ways:

* ``removed``: the row is shorter, what follows moves up;
* ``mean_embedding``: the mean row of the LM's embedding stands in their place;
* ``random_row``: rows of random ordinary tokens do, and values are means over `RANDOM_DRAWS` draws;
* ``zero``: the zero vector does.

Its *value* is taken on texts of the task, at the answer; see `softlens.attribution.targets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from softlens.attribution.targets import Target, chosen
from softlens.errors import SoftlensError, near
from softlens.evaluation import SPLITS, AnyPrompt, encode_split, prompt_vectors
from softlens.lm import LM, EncodedTexts, answer_logits_each, sequence_chunks
from softlens.lm.answers import folded, is_fast
from softlens.tasks import Split, Task

ABSENT = ("removed", "mean_embedding", "random_row", "zero")
RANDOM_DRAWS = 4
SECONDS_OF_WORK = 2e10
"""Coalitions x texts x weights that take some seconds on a core: above, there is a bar."""

Texts = int | Sequence[int] | np.ndarray | None
"""How many of a split's first texts, or which; None is a number that the LM's size affords."""


@dataclass(eq=False)
class Game:
    """Vectors after (or before) the texts of a task, and which of them come and go.

    Attributes:
        lm: the LM.
        vectors: what stands at the prompt's place, shape (length, hidden).
        texts: the texts the values are taken on.
        labels: their labels, as indices into the words of the target.
        words: ids of the label words, in the order of the labels.
        target: what a coalition is worth.
        absent: what absent positions are.
        stand_ins: the vectors of absent positions, shape (draws, length, hidden); no draws where
            they are removed.
        progress: show a bar where values take more than two seconds.
        groups: the positions of each player; each position is one unless given. What is in no
            group is always present.
    """

    lm: LM
    vectors: Float[Tensor, "length hidden"]
    texts: EncodedTexts
    labels: Int[Tensor, " texts"]
    words: Int[Tensor, " classes"]
    target: Target
    absent: str
    stand_ins: Float[Tensor, "draws length hidden"]
    progress: bool = True
    groups: tuple[tuple[int, ...], ...] = ()
    known: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)
    whole: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        length = len(self.vectors)
        self.groups = self.groups or tuple((i,) for i in range(length))
        self._member = np.zeros((len(self.groups), length), dtype=bool)
        for player, group in enumerate(self.groups):
            self._member[player, list(group)] = True
        # A vector that always stands there is its own stand-in: no path leads away from it.
        fixed = torch.tensor(~self._member.any(axis=0), device=self.vectors.device)
        self.stand_ins = torch.where(fixed[:, None], self.vectors, self.stand_ins)
        if self.target.name == "kl":
            logits = torch.empty(len(self.texts), self.lm.vocab_size, device=self.lm.device)
            full = [tuple(range(length))]
            for _, some, part in sequence_chunks(self.lm, self.vectors, full, self.texts):
                logits[some] = part[0]
            self.whole = logits.log_softmax(dim=-1)

    @property
    def players(self) -> int:
        """How many come and go."""
        return len(self.groups)

    def by_player(self, by_position: Float[np.ndarray, "*batch length"]) -> np.ndarray:
        """Sums over each player's positions, shape (*batch, players)."""
        return by_position @ self._member.T

    def tokens(self, coalitions: int, exact: bool) -> int:
        """About how many positions are forwarded on a text for so many coalitions.

        All coalitions are branches of one trie; a few drawn ones share less of their beginnings.
        """
        behind = len(self.vectors) - 1 - max(map(max, self.groups))
        behind += len(self.texts.afters[0]) if self.texts.text_first else self.texts.longest
        own = 1.0 if exact else self._member.sum() / 4
        kinds = max(1, len(self.stand_ins)) * (1 if self.absent == "removed" else 2)
        return round(coalitions * (own * kinds + behind))

    def values(self, coalitions: Bool[np.ndarray, "coalitions players"]) -> np.ndarray:
        """What each coalition is worth on each text, shape (coalitions, texts), remembered."""
        keys = [row.tobytes() for row in coalitions]
        asked = {key: row for key, row in zip(keys, coalitions, strict=True)}
        fresh = [key for key in asked if key not in self.known]
        if fresh:
            draws = max(1, len(self.stand_ins))
            sequences = self._sequences(np.stack([asked[key] for key in fresh]))
            table = torch.cat([self.vectors, self.stand_ins.reshape(-1, self.vectors.shape[1])])
            found = np.empty((len(sequences), len(self.texts)))
            words = None if self.target.vocabulary else self.words
            pairs = len(sequences) * len(self.texts)
            quick = pairs * self.lm.parameters < SECONDS_OF_WORK
            with tqdm(total=pairs, desc="coalitions x texts", leave=False,
                      disable=quick or not self.progress) as bar:  # fmt: skip
                for some, texts, logits in sequence_chunks(
                    self.lm, table, sequences, self.texts, words
                ):
                    found[np.ix_(some, texts)] = self.worth(logits, texts).cpu().numpy()
                    bar.update(len(some) * len(texts))
            means = found.reshape(len(fresh), draws, -1).mean(axis=1)
            self.known |= dict(zip(fresh, means, strict=True))
        return np.stack([self.known[key] for key in keys])

    def _sequences(self, present: np.ndarray) -> list[tuple[int, ...]]:
        """Rows of the vectors, and of their stand-ins behind them: a row a coalition and draw."""
        there = present @ self._member | ~self._member.any(axis=0)
        at = np.arange(len(self.vectors))
        if not len(self.stand_ins):
            return [tuple(at[row].tolist()) for row in there]
        stand = len(at) * (1 + np.arange(len(self.stand_ins)))
        rows = np.where(there[:, None], at, at + stand[:, None])
        return [tuple(row) for row in rows.reshape(-1, len(at)).tolist()]

    def worth(
        self, logits: Float[Tensor, "*prompts texts answers"], texts: Sequence[int]
    ) -> Float[Tensor, "*prompts texts"]:
        """The target's value from logits on some of the texts."""
        at = torch.as_tensor(list(texts), device=logits.device)
        labels = self.labels[at]
        if self.target.name == "log_prob_vocab":
            labels = self.words[labels]
        whole = None if self.whole is None else self.whole[at]
        return self.target.value(logits, labels, whole)

    def gradients(
        self, points: Float[Tensor, "points length hidden"]
    ) -> Float[Tensor, "texts points length hidden"]:
        """Slope of the value at each text with respect to each of several prompts."""
        return self.followed(points)[1]

    def followed(
        self, points: Float[Tensor, "points length hidden"]
    ) -> tuple[Float[Tensor, "texts points"], Float[Tensor, "texts points length hidden"]]:
        """The value at each text of each of several prompts, and its slope."""
        self.lm.need_gradients("this attribution")
        words = None if self.target.vocabulary else self.words
        values, slopes = [], []
        length = len(self.vectors)
        together, each = folded(self.lm, length, self.texts)
        if is_fast(self.lm, length, self.texts):
            # Texts behind the prompt are asked one by one, whatever their chunk.
            each = length
        for some in points.to(self.lm.device).split(together):
            worth = torch.empty(len(self.texts), len(some))
            rows = torch.empty(len(self.texts), *some.shape)
            for texts in self.texts.chunks(len(some) * each):
                with torch.enable_grad():
                    own = some.expand(len(texts), -1, -1, -1).clone().requires_grad_()
                    logits = answer_logits_each(self.lm, own, self.texts.subset(texts), words)
                    value = self.worth(logits.transpose(0, 1), texts).T
                    (slope,) = torch.autograd.grad(value.sum(), own)
                worth[texts], rows[texts] = value.detach().float().cpu(), slope.cpu()
            values.append(worth)
            slopes.append(rows)
        return torch.cat(values, dim=1), torch.cat(slopes, dim=1)


@dataclass(frozen=True)
class Asked:
    """What is asked of which texts, checked: shared by games on one task."""

    split: str
    numbers: tuple[int, ...]
    """Places of the texts in the split."""
    source: Split
    """The texts, with their labels in the task."""
    classes: tuple[int, ...]
    """Labels that the target is between."""
    words: Int[Tensor, " classes"]
    """Ids of their label words."""
    target: Target

    def labels(self, device: torch.device) -> Int[Tensor, " texts"]:
        """Labels as indices into `classes`."""
        return torch.tensor([self.classes.index(i) for i in self.source.labels], device=device)


def ask(
    lm: LM,
    task: Task,
    target: str | tuple[str, str],
    absent: str,
    texts: Texts,
    split: str,
    affordable: tuple[int, int] = (32, 4),
) -> Asked:
    """Check what was asked. See `softlens.attribute` for the arguments.

    Args:
        lm: the LM.
        task: the task.
        target: what a coalition is worth.
        absent: what absent positions are.
        texts: how many, or which.
        split: of the task.
        affordable: how many texts where none are asked for: on a small LM, and on another.
    """
    if absent not in ABSENT:
        raise SoftlensError(f"Got absent={absent!r}, wanted one of {ABSENT}.{near(absent, ABSENT)}")
    if split not in SPLITS:
        raise SoftlensError(f"Got split {split!r}, wanted one of {SPLITS}.{near(split, SPLITS)}")
    source: Split = getattr(task, split)
    goal, classes = chosen(task, target)
    fitting = [i for i, label in enumerate(source.labels) if label in classes]
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    if isinstance(texts, Sequence):
        outside = [i for i in texts if i not in fitting]
        if outside or not texts:
            raise SoftlensError(
                f"Got texts={list(texts)}, wanted places of texts in the {split} split of "
                f"{task.name!r}, from 0 to {len(source) - 1}, whose labels the target knows"
                f"{f'; {outside[0]} is none' if outside else ''}."
            )
        numbers = tuple(int(i) for i in texts)
    else:
        count = affordable[not lm.is_small] if texts is None else texts
        if count < 1:
            raise SoftlensError(f"Got texts={texts}, wanted at least 1, or None for a budget.")
        numbers = tuple(fitting[:count])
    answers = task.answer_ids(lm)
    return Asked(
        split,
        numbers,
        Split(tuple(source.texts[i] for i in numbers), tuple(source.labels[i] for i in numbers)),
        tuple(classes),
        torch.tensor([answers[c] for c in classes], device=lm.device),
        goal,
    )


def make_game(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    target: str | tuple[str, str],
    absent: str,
    texts: Texts,
    split: str,
    seed: int,
    truncate: bool = False,
    progress: bool = True,
) -> Game:
    """The game of a prompt's positions. See `softlens.attribute` for the arguments."""
    vectors = prompt_vectors(lm, task, prompt)
    if not len(vectors):
        raise SoftlensError("The empty prompt has no positions to attribute to. Give a prompt.")
    asked = ask(lm, task, target, absent, texts, split)
    return Game(
        lm,
        vectors,
        encode_split(lm, task, asked.source, reserve=len(vectors), truncate=truncate),
        asked.labels(lm.device),
        asked.words,
        asked.target,
        absent,
        stand_ins(lm, len(vectors), absent, seed),
        progress,
    )


def stand_ins(lm: LM, length: int, absent: str, seed: int) -> Float[Tensor, "draws length hidden"]:
    """The vectors that stand where positions are absent; no draws where they are removed."""
    if absent == "removed":
        return torch.empty(0, length, lm.hidden_size, device=lm.device)
    if absent == "zero":
        return torch.zeros(1, length, lm.hidden_size, device=lm.device)
    ordinary = lm.embedding[lm.ordinary_ids.to(lm.device)]
    if absent == "mean_embedding":
        return ordinary.mean(dim=0).expand(1, length, -1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(ordinary), (RANDOM_DRAWS, length), generator=generator)
    return ordinary[drawn.to(lm.device)]
