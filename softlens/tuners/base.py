"""What all tuners share: the problem they are given, and the loop that keeps the best iterate.

A tuner only proposes the next prompt; what a prompt is worth is asked here, in one way for all.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm.auto import tqdm

from softlens.errors import SoftlensError
from softlens.evaluation import encode_split
from softlens.lm import LM, EncodedTexts, score_answers
from softlens.prompts import Prompt
from softlens.tasks import Split, Task

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted"


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

    @classmethod
    def encode(cls, lm: LM, task: Task, length: int, truncate: bool) -> "Problem":
        """Check length and label words, and encode the splits that a tuner may see."""
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
        return cls(lm, task, length, words, *split(task.train), *split(task.dev))

    def batches(self, size: int, seed: int) -> Iterator[tuple[EncodedTexts, Tensor]]:
        """Endless batches of the training texts, shuffled anew for every pass."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self.train)
        while True:
            order = torch.randperm(count, generator=generator)
            for chosen in order.split(min(size, count)):
                yield self.train.subset(chosen.tolist()), self.labels[chosen.to(self.words.device)]

    def on_dev(self, vectors: Tensor) -> tuple[float, float]:
        """Accuracy and loss (nats over the label words) of one prompt on dev."""
        scores = score_answers(self.lm, vectors[None], self.dev, self.words)
        among = scores.log_probs[0].log_softmax(dim=1)
        labels = self.dev_labels.cpu()
        accuracy = (among.argmax(dim=1) == labels).float().mean()
        return float(accuracy), float(-among[torch.arange(len(labels)), labels].mean())


class Tuner(ABC):
    """Proposes prompts. `vectors` is what its current proposal feeds the LM."""

    Options: ClassVar[type[TunerOptions]]

    start_ids: list[int] | None
    """The tokens it started from, None where it started from none."""

    @abstractmethod
    def __init__(self, problem: Problem, options: Any, steps: int, seed: int) -> None: ...

    @property
    @abstractmethod
    def vectors(self) -> Float[Tensor, "length hidden"]:
        """The current proposal."""

    @property
    @abstractmethod
    def token_ids(self) -> list[int]:
        """The tokens nearest to it, or the tokens it is."""

    @abstractmethod
    def step(self, texts: EncodedTexts, labels: Int[Tensor, " texts"]) -> dict[str, float]:
        """One update; returns the history's columns of this step, `objective` among them."""

    @abstractmethod
    def prompt(self, vectors: Float[Tensor, "length hidden"]) -> Prompt:
        """A `Prompt` of this tuner's kind from one of its proposals."""


@dataclass
class Outcome:
    """What a loop leaves: the best proposal on dev, and how it went."""

    vectors: Tensor
    accuracy_dev: float
    loss_dev: float
    ended: str = "all steps done"
    steps: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def history(self) -> pd.DataFrame:
        """One row a step; dev columns are NaN between looks."""
        return pd.DataFrame(self.rows)


def run_loop(
    tuner: Tuner, problem: Problem, options: TunerOptions, steps: int, seed: int, progress: bool
) -> Outcome:
    """Step, look at dev now and then, keep the best; stop early, on NaN, or on Ctrl-C."""
    began = time.perf_counter()
    accuracy, loss = problem.on_dev(tuner.vectors)
    best = Outcome(tuner.vectors.clone(), accuracy, loss)
    best.evaluations = len(problem.dev)
    start, every = tuner.token_ids, max(1, steps // options.evaluations_of_dev)
    stale = 0
    bar = tqdm(range(1, steps + 1), desc=problem.task.name, disable=not progress, leave=False)
    batches = problem.batches(options.batch_size, seed)
    try:
        for step in bar:
            texts, labels = next(batches)
            row = tuner.step(texts, labels)
            best.evaluations += len(texts)
            if not math.isfinite(row["objective"]) or not torch.isfinite(tuner.vectors).all():
                best.ended = "stopped: the loss was not a number"
                log.warning(
                    "Step %d: the loss is not a number; keeping the best prompt so far. "
                    "Try a lower learning rate.",
                    step,
                )
                break
            changed = sum(a != b for a, b in zip(tuner.token_ids, start, strict=True))
            row = {"step": step, **row, "tokens_changed": changed}
            look = step % every == 0 or step == steps
            accuracy, loss = problem.on_dev(tuner.vectors) if look else (math.nan, math.nan)
            best.rows.append(row | {"accuracy_dev": accuracy, "loss_dev": loss})
            best.steps = step
            if not look:
                continue
            best.evaluations += len(problem.dev)
            bar.set_postfix(loss=f"{row['objective']:.3f}", dev=f"{accuracy:.3f}")
            if (accuracy, -loss) > (best.accuracy_dev, -best.loss_dev):
                best.vectors, best.accuracy_dev, best.loss_dev = (
                    tuner.vectors.clone(),
                    accuracy,
                    loss,
                )
                stale = 0
            elif (stale := stale + 1) >= options.patience:
                best.ended = "stopped early: dev no longer improved"
                break
    except KeyboardInterrupt:
        best.ended = INTERRUPTED
        log.warning("Interrupted after %d steps; keeping the best prompt so far.", best.steps)
    finally:
        bar.close()
        best.seconds = time.perf_counter() - began
    return best
