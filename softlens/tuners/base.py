"""What all tuners share: their options, the problem they are given, and what each must offer.

A tuner only proposes the next prompt; what a prompt is worth is asked of the objective, in one way
for all. `softlens.tuners.loop` runs it.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from softlens.constraints import Ban, allowed_tokens
from softlens.errors import SoftlensError
from softlens.evaluation import encode_split
from softlens.lm import LM, EncodedTexts, score_answers
from softlens.objectives import Objective, TaskLoss
from softlens.prompts import Prompt
from softlens.proposals import Setting
from softlens.proxies import PROXIES, check_proxies
from softlens.tasks import Split, Task

log = logging.getLogger(__name__)

CONTEXT_TEXTS = 4
"""Real training texts of each class after which surprisals are taken."""


class TunerOptions(BaseModel):
    """Options every tuner has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=32, ge=1, description="texts a step")
    evaluations_of_dev: int = Field(default=10, ge=1, description="times dev is looked at")
    patience: int = Field(
        default=4, ge=1, description="looks at dev without a better prompt before stopping early"
    )
    starts: int = Field(
        default=1,
        ge=1,
        description="starts to train from, each in full, until one has a dev accuracy of 1; "
        "the best on dev is kept",
    )
    truncate: bool = Field(default=False, description="shorten texts over the context at the front")
    loss: TaskLoss = Field(default="labels", description="cross-entropy over these words")
    calibrated: bool = Field(
        default=False,
        description="subtract each label word's mean log-probability from the loss, and where dev "
        "selects",
    )
    mass: float = Field(default=0.0, ge=0, description="weight of -log label mass in the loss")
    ban: tuple[str | int, ...] = Field(
        default=(),
        description="tokens that may not be used; see softlens.constraints. Free vectors heed it "
        "where they start: the nearest tokens of a soft prompt may be among them",
    )

    def for_lm(self, lm: LM) -> "TunerOptions":
        """The options with those settled that depend on the LM."""
        return self

    @model_validator(mode="after")
    def _calibrated_over_labels(self) -> "TunerOptions":
        if self.calibrated and self.loss != "labels":
            raise ValueError("a calibrated loss is over the label words: leave loss='labels'")
        return self

    @field_validator("ban", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, set | frozenset):
            # In one order in every process: a sweep names its cells by the options.
            return sorted(value, key=str)
        return (value,) if isinstance(value, str | int) else value


class FreeOptions(TunerOptions):
    """Options of tuners that move free vectors."""

    keep_vectors: int | None = Field(
        default=None,
        ge=1,
        description="steps from one keeping of the free vectors in the run to the next; those of "
        "the last step are kept, too; None keeps none. It changes nothing that is found",
    )


@dataclass(frozen=True)
class Problem:
    """A task on an LM, encoded once for a whole run."""

    lm: LM
    task: Task
    length: int
    words: Tensor
    train: EncodedTexts
    labels: Tensor
    dev: EncodedTexts
    dev_labels: Tensor
    allowed: Bool[Tensor, " vocab"]

    @classmethod
    def encode(cls, lm: LM, task: Task, length: int, truncate: bool, ban: Ban = ()) -> "Problem":
        """Check length, label words and bans, and encode the splits that a tuner may see."""
        if length < 1:
            raise SoftlensError(f"Got length {length}, wanted at least 1 position.")
        if length >= lm.context_length:
            raise SoftlensError(
                f"Got length {length}, but {lm.name!r} has {lm.context_length} positions for the "
                "prompt and the text together."
            )
        words = torch.tensor(task.answer_ids(lm), device=lm.device)

        def split(part: Split) -> tuple[EncodedTexts, Tensor]:
            texts = encode_split(lm, task, part, reserve=length, truncate=truncate)
            return texts, torch.tensor(part.labels, device=lm.device)

        # The test split is encoded too, so that a text too long is known before the training.
        split(task.test)
        allowed = allowed_tokens(lm, task, ban)
        return cls(lm, task, length, words, *split(task.train), *split(task.dev), allowed)

    def setting(self, judge: LM | None = None, description: str | None = None) -> Setting:
        """What proxies see of it: of texts, a few of each class from the training split."""
        before = None
        if self.train.text_first and not any(self.train.afters):
            chosen: list[int] = []
            for label in range(len(self.words)):
                chosen += (self.labels == label).nonzero()[:CONTEXT_TEXTS, 0].tolist()
            before = self.train.subset(sorted(chosen))
        return Setting(self.lm, self.words, before, judge, description)

    @property
    def allowed_ids(self) -> Int[Tensor, " tokens"]:
        """The tokens that a prompt may hold."""
        return self.allowed.nonzero()[:, 0]

    def start_ids(self, text: str | None, seed: int) -> list[int]:
        """The tokens to start from: those of a text, or some drawn among the allowed ones.

        Raises:
            SoftlensError: the text has not as many tokens as the prompt, or a banned one.
        """
        if text is None:
            allowed, generator = self.allowed_ids.cpu(), torch.Generator().manual_seed(seed)
            return allowed[
                torch.randint(len(allowed), (self.length,), generator=generator)
            ].tolist()
        ids = self.lm.encode(text, leading_space=True)
        if len(ids) != self.length:
            raise SoftlensError(
                f"init_text {text!r} has {len(ids)} tokens ({[self.lm.token(i) for i in ids]}), "
                f"but the length is {self.length}. Make them equal."
            )
        banned = [self.lm.token(i) for i in ids if not self.allowed[i]]
        if banned:
            raise SoftlensError(
                f"init_text {text!r} has {banned[0]!r}, which may not be used. Start from other "
                "words, or change ban=."
            )
        return ids

    def batches(self, size: int, seed: int) -> Iterator[tuple[EncodedTexts, Tensor]]:
        """Endless batches of the training texts, shuffled anew for every pass."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self.train)
        while True:
            order = torch.randperm(count, generator=generator)
            for chosen in order.split(min(size, count)):
                yield self.train.subset(chosen.tolist()), self.labels[chosen.to(self.words.device)]

    def on_dev(self, vectors: Tensor, calibrated: bool = False) -> tuple[float, float]:
        """Accuracy and loss (nats over the label words) of one prompt on dev.

        `calibrated` subtracts each word's mean log-probability on these texts from both.
        """
        scores = score_answers(self.lm, vectors[None], self.dev, self.words).log_probs[0]
        if calibrated:
            scores = scores - scores.mean(dim=0)
        among = scores.log_softmax(dim=1)
        labels = self.dev_labels.cpu()
        accuracy = (among.argmax(dim=1) == labels).float().mean()
        return float(accuracy), float(-among[torch.arange(len(labels)), labels].mean())


class Tuner(ABC):
    """Proposes prompts. `vectors` is what its current proposal feeds the LM.

    A tuner asks `self.objective` what a prompt is worth, which counts the evaluations; it draws
    its texts from `Problem.batches`.
    """

    Options: ClassVar[type[TunerOptions]]
    needs_gradients: ClassVar[bool] = False
    """Whether its proxies must be differentiable."""
    has_policy: ClassVar[bool] = False
    """Whether it has probabilities for its own proposals (the proxy "prior_kl" needs them)."""
    in_evaluations: ClassVar[bool] = False
    """Whether its budget is counted in evaluations, an option, instead of in steps."""
    keeps_best: ClassVar[bool] = False
    """Whether its proposal is its own best so far, so that the last one is to be kept."""

    start_ids: list[int] | None = None
    """The tokens it started from, None where it started from none."""
    finished: str | None = None
    """Why it is done before its steps are, if it is."""
    small_budget: ClassVar[int] = 400
    """Update steps on an LM of less than ten million parameters, which is cheap to step."""
    budget: ClassVar[int] = 150
    """Update steps on a larger one."""

    @abstractmethod
    def __init__(
        self, problem: Problem, objective: Objective, options: Any, steps: int, seed: int
    ) -> None: ...

    @property
    @abstractmethod
    def vectors(self) -> Float[Tensor, "length hidden"]:
        """The current proposal."""

    @property
    def free(self) -> Float[Tensor, "length hidden"]:
        """The vectors that it moves, if others than those of its proposal."""
        return self.vectors

    @property
    @abstractmethod
    def token_ids(self) -> list[int]:
        """The tokens nearest to it, or the tokens it is."""

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One update; returns the history's columns of this step, `objective` among them."""

    @abstractmethod
    def prompt(self, vectors: Float[Tensor, "length hidden"], token_ids: list[int]) -> Prompt:
        """A `Prompt` of this tuner's kind from one of its proposals."""

    @classmethod
    def check(cls, method: str, weights: dict[str, float], setting: Setting, length: int) -> None:
        """Raise a `SoftlensError` for proxies that this tuner cannot use on this problem."""
        check_proxies(weights, setting, length)
        for name in weights:
            if cls.needs_gradients and not PROXIES[name].gradient:
                can = [p.name for p in PROXIES.values() if p.gradient]
                raise SoftlensError(
                    f"The proxy {name!r} has no gradient, and {method!r} follows gradients. With "
                    f"it use a method that scores prompts, as 'rlprompt'; {method!r} takes "
                    f"{', '.join(can)}."
                )
            if "policy" in PROXIES[name].needs and not cls.has_policy:
                raise SoftlensError(
                    f"The proxy {name!r} compares a tuner's policy with the LM, and {method!r} "
                    "has none. Use it with 'rlprompt'; the LM's surprisal is 'perplexity'."
                )
        if weights.get("embedding_distance") and not issubclass(cls.Options, FreeOptions):
            log.warning(
                "%r proposes tokens, whose 'embedding_distance' is 0 whatever they are: its weight "
                "changes nothing. It is for 'soft' and 'pez'.",
                method,
            )
        idle = [name for name, weight in weights.items() if weight and PROXIES[name].context_only]
        if cls.needs_gradients and length == 1 and idle:
            log.warning(
                "At length 1 %r has no gradient of %s: it reaches a token as context of those "
                "behind it only. Only the choice on dev heeds its weight. Try "
                "'perplexity_target', a longer prompt, or a method that scores prompts, as "
                "'sample'.",
                method,
                " and ".join(map(repr, idle)),
            )


class HardTuner(Tuner):
    """A tuner whose proposals are tokens, `token_ids`."""

    problem: Problem

    @property
    def vectors(self) -> Float[Tensor, "length hidden"]:
        """The tokens' rows of the embedding."""
        return self.problem.lm.embed(self.token_ids)

    def prompt(self, vectors: Float[Tensor, "length hidden"], token_ids: list[int]) -> Prompt:
        """The hard prompt of these tokens."""
        return Prompt.from_ids(self.problem.lm, token_ids)
