"""The game that a prompt's positions play: what a coalition of them is worth.

A *coalition* is a set of positions that are present; the others are *absent*, in one of these ways:

* ``removed``: the prompt is shorter, what follows moves up;
* ``mean_embedding``: the mean row of the LM's embedding stands in their place;
* ``random_row``: rows of random ordinary tokens do, and values are means over `RANDOM_DRAWS` draws;
* ``zero``: the zero vector does.

Its *value* is taken on texts of the task, at the answer; see `TARGETS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from softlens.errors import SoftlensError, near
from softlens.evaluation import SPLITS, AnyPrompt, encode_split, prompt_vectors
from softlens.lm import LM, EncodedTexts, answer_logits_each, sequence_chunks
from softlens.lm.answers import FOLD_TOKENS
from softlens.tasks import Split, Task

ABSENT = ("removed", "mean_embedding", "random_row", "zero")
RANDOM_DRAWS = 4
SECONDS_OF_WORK = 2e10
"""Coalitions x texts x weights that take some seconds on a core: above, there is a bar."""

Value = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From logits (..., texts, answers), labels (texts) and the whole prompt's log-probabilities."""


@dataclass(frozen=True)
class Target:
    """What a coalition is worth on a text."""

    name: str
    says: str
    unit: str
    value: Value = field(repr=False)
    vocabulary: bool = False
    """Whether the logits of all tokens are needed, not only those of the label words."""
    gradient: bool = True


def _of_label(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.gather(-1, labels.expand(scores.shape[:-1])[..., None]).squeeze(-1)


def _contrast(logits: Tensor, labels: Tensor, _: Tensor | None) -> Tensor:
    right = _of_label(logits, labels)
    return 2 * right - logits.sum(dim=-1)


def _kl(logits: Tensor, labels: Tensor, whole: Tensor | None) -> Tensor:
    assert whole is not None
    return -(whole.exp() * (whole - logits.log_softmax(dim=-1))).sum(dim=-1)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "log_prob",
            "log-probability of the right label word among the label words",
            "nats",
            lambda logits, labels, _: _of_label(logits.log_softmax(dim=-1), labels),
        ),
        Target(
            "log_prob_vocab",
            "log-probability of the right label word among all tokens",
            "nats",
            lambda logits, labels, _: _of_label(logits.log_softmax(dim=-1), labels),
            vocabulary=True,
        ),
        Target(
            "contrast",
            "logit of the right label word minus that of the other (Yin & Neubig 2022)",
            "nats",
            _contrast,
        ),
        Target(
            "accuracy",
            "accuracy among the label words",
            "accuracy",
            lambda logits, labels, _: (logits.argmax(dim=-1) == labels).to(logits.dtype),
            gradient=False,
        ),
        Target(
            "kl",
            "minus the KL divergence of the next token from what it is with the whole prompt",
            "nats",
            _kl,
            vocabulary=True,
        ),
    )
}


@dataclass(eq=False)
class Game:
    """A prompt's positions on the texts of a task.

    Attributes:
        lm: the LM.
        vectors: the prompt, shape (length, hidden).
        texts: the texts the values are taken on.
        labels: their labels, as indices into the words of the target.
        words: ids of the label words, in the order of the labels.
        target: what a coalition is worth.
        absent: what absent positions are.
        stand_ins: the vectors of absent positions, shape (draws, length, hidden); no draws where
            they are removed.
        progress: show a bar where values take more than two seconds.
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
    known: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)
    whole: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.target.name == "kl":
            logits = torch.empty(len(self.texts), self.lm.vocab_size, device=self.lm.device)
            full = [tuple(range(self.length))]
            for _, chosen, part in sequence_chunks(self.lm, self.vectors, full, self.texts):
                logits[chosen] = part[0]
            self.whole = logits.log_softmax(dim=-1)

    @property
    def length(self) -> int:
        """Positions."""
        return len(self.vectors)

    def values(self, coalitions: Bool[np.ndarray, "coalitions length"]) -> np.ndarray:
        """What each coalition is worth on each text, shape (coalitions, texts), remembered."""
        keys = [row.tobytes() for row in coalitions]
        asked = {key: row for key, row in zip(keys, coalitions, strict=True)}
        fresh = [key for key in asked if key not in self.known]
        if fresh:
            draws = max(1, len(self.stand_ins))
            sequences = [self._sequence(asked[key], d) for key in fresh for d in range(draws)]
            table = torch.cat([self.vectors, self.stand_ins.reshape(-1, self.vectors.shape[1])])
            found = np.empty((len(sequences), len(self.texts)))
            words = None if self.target.vocabulary else self.words
            pairs = len(sequences) * len(self.texts)
            quick = pairs * self.lm.parameters < SECONDS_OF_WORK
            with tqdm(total=pairs, desc="coalitions x texts", leave=False,
                      disable=quick or not self.progress) as bar:  # fmt: skip
                for some, chosen, logits in sequence_chunks(
                    self.lm, table, sequences, self.texts, words
                ):
                    found[np.ix_(some, chosen)] = self.worth(logits, chosen).cpu().numpy()
                    bar.update(len(some) * len(chosen))
            means = found.reshape(len(fresh), draws, -1).mean(axis=1)
            self.known |= dict(zip(fresh, means, strict=True))
        return np.stack([self.known[key] for key in keys])

    def _sequence(self, present: np.ndarray, draw: int) -> tuple[int, ...]:
        if not len(self.stand_ins):
            return tuple(np.flatnonzero(present).tolist())
        stand = self.length * (1 + draw)
        return tuple(i if there else stand + i for i, there in enumerate(present))

    def worth(
        self, logits: Float[Tensor, "*prompts texts answers"], chosen: Sequence[int]
    ) -> Float[Tensor, "*prompts texts"]:
        """The target's value from logits on the texts at `chosen`."""
        at = torch.as_tensor(list(chosen), device=logits.device)
        labels = self.labels[at]
        if self.target.name == "log_prob_vocab":
            labels = self.words[labels]
        whole = None if self.whole is None else self.whole[at]
        return self.target.value(logits, labels, whole)

    def gradients(
        self, points: Float[Tensor, "points length hidden"]
    ) -> Float[Tensor, "texts points length hidden"]:
        """Slope of the value at each text with respect to each of several prompts."""
        words = None if self.target.vocabulary else self.words
        parts = []
        for some in points.to(self.lm.device).split(max(1, FOLD_TOKENS // self.length)):
            rows = torch.empty(len(self.texts), *some.shape)
            for chosen in self.texts.chunks(some.shape[0] * some.shape[1]):
                with torch.enable_grad():
                    own = some.expand(len(chosen), -1, -1, -1).clone().requires_grad_()
                    logits = answer_logits_each(self.lm, own, self.texts.subset(chosen), words)
                    value = self.worth(logits.transpose(0, 1), chosen).sum()
                    (slope,) = torch.autograd.grad(value, own)
                rows[chosen] = slope.cpu()
            parts.append(rows)
        return torch.cat(parts, dim=1)


def make_game(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    target: str | tuple[str, str],
    absent: str,
    texts: int | None,
    split: str,
    seed: int,
    truncate: bool = False,
    progress: bool = True,
) -> Game:
    """Check what was asked, and encode it. See `softlens.attribute` for the arguments."""
    vectors = prompt_vectors(lm, task, prompt)
    if not len(vectors):
        raise SoftlensError("The empty prompt has no positions to attribute to. Give a prompt.")
    if absent not in ABSENT:
        raise SoftlensError(f"Got absent={absent!r}, wanted one of {ABSENT}.{near(absent, ABSENT)}")
    if split not in SPLITS:
        raise SoftlensError(f"Got split {split!r}, wanted one of {SPLITS}.{near(split, SPLITS)}")
    source: Split = getattr(task, split)
    answers = task.answer_ids(lm)
    classes = list(range(len(answers)))
    if target == "contrast" or isinstance(target, tuple):
        classes = _pair(task, target)
        kept = [i for i, label in enumerate(source.labels) if label in classes]
        source = Split(tuple(source.texts[i] for i in kept), tuple(source.labels[i] for i in kept))
        target = "contrast"
    if target not in TARGETS:
        raise SoftlensError(
            f"Got target {target!r}, wanted one of {[*TARGETS]} or two label words."
            f"{near(target, TARGETS)}"
        )
    count = (32 if lm.is_small else 4) if texts is None else texts
    if count < 1:
        raise SoftlensError(f"Got texts={texts}, wanted at least 1, or None for a budget.")
    source = source.take(min(count, len(source)))
    return Game(
        lm,
        vectors,
        encode_split(lm, task, source, reserve=len(vectors), truncate=truncate),
        torch.tensor([classes.index(label) for label in source.labels], device=lm.device),
        torch.tensor([answers[c] for c in classes], device=lm.device),
        TARGETS[target],
        absent,
        stand_ins(lm, len(vectors), absent, seed),
        progress,
    )


def _pair(task: Task, target: str | tuple[str, str]) -> list[int]:
    if target == "contrast":
        if len(task.label_words) != 2:
            raise SoftlensError(
                f"A contrast is between two labels, and {task.name!r} has "
                f"{len(task.label_words)}: name two, as target={task.label_words[:2]}."
            )
        return [0, 1]
    unknown = [word for word in target if word not in task.label_words]
    if unknown or len(set(target)) != 2:
        raise SoftlensError(
            f"Got target={tuple(target)}, wanted two different label words of {task.name!r}: "
            f"{task.label_words}."
        )
    return [task.label_words.index(word) for word in target]


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
