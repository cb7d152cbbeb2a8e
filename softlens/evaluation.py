"""How well a prompt does a task: accuracy, label mass, loss."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

from softlens.display import Result, visible
from softlens.errors import SoftlensError, near
from softlens.lm import LM, AnswerScores, EncodedTexts, Hears, score_answers
from softlens.prompts import Prompt, PromptLike, as_prompt, meant
from softlens.tasks import Split, Task
from softlens.templates import glued_behind, template_parts

log = logging.getLogger(__name__)

Scored = Literal["soft", "tokens", "text"]
AnyPrompt = Prompt | str | PromptLike | None
SPLITS = ("train", "dev", "test")
MEASURES = ("accuracy", "accuracy_calibrated", "accuracy_vocab", "label_mass", "loss")
"""What is measured of a prompt, as `Evaluation` explains."""


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """A prompt's performance on one split of a task. Accuracies and shares are in [0, 1]."""

    accuracy: float
    """Share of texts whose right label word is the most probable of the label words."""
    accuracy_calibrated: float
    """The same after each label word's mean log-probability on the training texts is subtracted."""
    accuracy_vocab: float
    """Share of texts whose right label word is the most probable of all tokens."""
    label_mass: float
    """Mean probability of all label words together; near 0, the prompt asks something else."""
    loss: float
    """Mean cross-entropy over the label words, nats."""
    shares: dict[str, float]
    """Share of texts predicted as each class."""
    n: int
    """Texts."""
    split: str
    """Which split they are from."""
    scored: Scored
    """What was fed to the LM: soft vectors, token ids, or a text's own tokens."""
    prompt_text: str | None
    """The prompt's text, None for a soft one."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """One row a text: ``text, label, predicted, p_label`` (the right word's share)."""

    def summary(self) -> dict[str, float]:
        """The numbers, without the table."""
        return {key: getattr(self, key) for key in MEASURES}

    @property
    def table(self) -> pd.DataFrame:
        """The numbers in one row; the texts stay in `frame`."""
        return visible(pd.DataFrame([self.summary()]))

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.shares.items())
        what = {"soft": "soft vectors", "tokens": "token ids", "text": repr(self.prompt_text)}
        return (
            f"accuracy {self.accuracy:.3f} (calibrated {self.accuracy_calibrated:.3f}), "
            f"label mass {self.label_mass:.3g}, loss {self.loss:.3f} nats on {self.n} "
            f"{self.split} texts; predicted: {shares}; scored: {what[self.scored]}"
        )


def evaluate(
    lm: LM, task: Task, prompt: AnyPrompt, *, split: str = "test", truncate: bool = False
) -> Evaluation:
    """How well `prompt` does `task` on one of its splits.

    Args:
        lm: the LM.
        task: the task.
        prompt: a `Prompt`; a text, encoded as it stands in the template; a `Reading` (the tokens it
            found); a `Run` (its prompt); or None, the empty prompt.
        split: "test", "dev" or "train". Select on dev, report on test.
        truncate: shorten texts that exceed the LM's context, keeping their end.

    Raises:
        SoftlensError: an unknown split; a prompt of another LM; a text that is too long.
    """
    return evaluate_all(lm, task, [prompt], split=split, truncate=truncate)[0]


def evaluate_all(
    lm: LM,
    task: Task,
    prompts: Sequence[AnyPrompt],
    *,
    split: str = "test",
    truncate: bool = False,
    hears: Hears = lambda pairs: None,
) -> list[Evaluation]:
    """`evaluate` for many prompts in one pass over the texts, which is much faster.

    Args:
        lm: the LM.
        task: the task.
        prompts: of what `evaluate` takes, in any mixture; one result each, in their order.
        split: "test", "dev" or "train".
        truncate: shorten texts that exceed the LM's context, keeping their end.
        hears: hears how many pairs of a prompt and a text were scored, chunk by chunk: those of
            the split, then those of the training texts, for the calibrated accuracy.

    Raises:
        SoftlensError: as `evaluate`.
    """
    if split not in SPLITS:
        raise SoftlensError(f"Got split {split!r}, wanted one of {SPLITS}.{near(split, SPLITS)}")
    settled = [meant(lm, prompt) for prompt in prompts]
    # Token ids and their text are often one prompt; what is equal is scored once.
    asked = [prompt_vectors(lm, task, prompt) for prompt in settled]
    keys = [v.cpu().numpy().tobytes() for v in asked]
    column = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    vectors = [asked[keys.index(key)] for key in column]
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    reserve = max(len(v) for v in vectors)
    texts = {
        name: encode_split(lm, task, getattr(task, name), reserve=reserve, truncate=truncate)
        for name in {split, "train"}
    }
    scores = score_answers(lm, vectors, texts[split], words, hears)
    train = scores if split == "train" else score_answers(lm, vectors, texts["train"], words, hears)
    prior = train.log_probs.mean(dim=1)
    return [
        _evaluation(task, prompt, scores, prior, column[key], split, words)
        for key, prompt in zip(keys, settled, strict=True)
    ]


def encode_split(
    lm: LM, task: Task, split: Split, *, reserve: int = 0, truncate: bool = False
) -> EncodedTexts:
    """A split's texts in the task's template, ready for the LM's primitives."""
    return lm.encode_texts(task.template, split.texts, reserve=reserve, truncate=truncate)


def prompt_vectors(lm: LM, task: Task, prompt: AnyPrompt) -> torch.Tensor:
    """What the LM is fed for `prompt`, shape (length, hidden), after checking that it may be."""
    if prompt is None:
        return torch.empty(0, lm.hidden_size, device=lm.device)
    found = as_prompt(lm, prompt, leading_space=bool(template_parts(task.template)[0]))
    _say_if_misplaced(lm, task, found)
    return found.vectors.to(lm.device)


def _say_if_misplaced(lm: LM, task: Task, prompt: Prompt) -> None:
    """Say once where a prompt is asked on another side of the text than it was trained on."""
    own, said = prompt.template, ("misplaced", prompt.template, task.template)
    if own is None or said in lm.memo or not _moved(lm, own, task.template):
        return
    lm.memo[said] = True
    log.warning(
        "This prompt was trained as %r stands, and is asked as %r stands, where it may do nothing "
        "of what it learnt. To ask it where it was trained: task.with_(template=%r).",
        own,
        task.template,
        own,
    )


def _moved(lm: LM, own: str, asked: str) -> bool:
    sides = ["{text}" in template_parts(template)[0] for template in (own, asked)]
    # The space between a prompt and a text behind it belongs to the text's first token.
    spaces = lm.spaces_in_tokens and not sides[0] and glued_behind(own) != glued_behind(asked)
    return sides[0] != sides[1] or spaces


def scored_as(prompt: Prompt | str | None) -> Scored:
    """What the LM is fed for `prompt`: soft vectors, token ids, or a text's own tokens."""
    if isinstance(prompt, Prompt):
        return "tokens" if prompt.is_hard else "soft"
    return "text"


@dataclass(frozen=True)
class Outcome:
    """What a prompt does on each text, as far as the label words tell."""

    log_probs: np.ndarray
    """Log-probability of each label word among all tokens, nats, shape (texts, classes)."""
    labels: np.ndarray
    """The right classes, shape (texts,)."""

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of each text."""
        return self.log_probs.argmax(axis=1)

    @cached_property
    def p_label(self) -> np.ndarray:
        """The right word's share of the probability of all label words."""
        return np.exp(self._log_share)

    @property
    def accuracy(self) -> float:
        """Share of texts predicted rightly."""
        return float((self.predicted == self.labels).mean())

    @property
    def label_mass(self) -> float:
        """Mean probability of all label words together."""
        return float(np.exp(self.log_probs).sum(axis=1).mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy over the label words, nats."""
        return float(-self._log_share.mean())

    @cached_property
    def _log_share(self) -> np.ndarray:
        among = self.log_probs - logsumexp(self.log_probs, axis=1, keepdims=True)
        return among[np.arange(len(self.labels)), self.labels]


def _evaluation(
    task: Task,
    prompt: Prompt | str | None,
    scores: AnswerScores,
    prior: torch.Tensor,
    index: int,
    split: str,
    words: torch.Tensor,
) -> Evaluation:
    source = getattr(task, split)
    labels = np.array(source.labels)
    outcome = Outcome(scores.log_probs[index].numpy(), labels)
    calibrated = (outcome.log_probs - prior[index].numpy()).argmax(axis=1)
    names = np.array(task.class_names)
    frame = pd.DataFrame(
        {
            "text": source.texts,
            "label": names[labels],
            "predicted": names[outcome.predicted],
            "p_label": outcome.p_label,
        }
    )
    text = prompt.text if isinstance(prompt, Prompt) else prompt or ""
    right = words.cpu().numpy()[labels]
    return Evaluation(
        accuracy=outcome.accuracy,
        accuracy_calibrated=float((calibrated == labels).mean()),
        accuracy_vocab=float((scores.top_ids[index].numpy() == right).mean()),
        label_mass=outcome.label_mass,
        loss=outcome.loss,
        shares={
            name: float((outcome.predicted == i).mean()) for i, name in enumerate(task.class_names)
        },
        n=len(labels),
        split=split,
        scored=scored_as(prompt),
        prompt_text=text,
        frame=frame,
    )
