"""Soft prompt tuning: gradient descent on free vectors in the place of token embeddings.

Lester, Al-Rfou, Constant (2021), "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv 2104.08691. Deviations: Adam instead of Adafactor, and the best iterate on dev is kept.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from softlens.decode import nearest_tokens
from softlens.errors import SoftlensError
from softlens.objectives import Objective
from softlens.prompts import Prompt
from softlens.proposals import Proposals
from softlens.tuners.base import FreeOptions, Problem, Tuner, TunerOptions


class SoftOptions(FreeOptions):
    """Options of soft prompt tuning."""

    learning_rate: float | None = Field(
        default=None, gt=0, description="of Adam; None: 0.1 for a small LM, else 0.03"
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="of the learning rate over the steps"
    )
    init: Literal["vocabulary", "text", "noise"] = Field(
        default="vocabulary", description="random rows of the embedding, a text's rows, or noise"
    )
    init_text: str | None = Field(
        default=None, description="the text to start from; implies 'text'"
    )


class SoftTuner(Tuner):
    """Adam on `length` float32 vectors."""

    Options: ClassVar[type[TunerOptions]] = SoftOptions
    needs_gradients = True

    def __init__(
        self, problem: Problem, objective: Objective, options: SoftOptions, steps: int, seed: int
    ) -> None:
        self.problem, self.objective, self.options = problem, objective, options
        start, self.start_ids = _start(problem, options, seed)
        self._batches = problem.batches(options.batch_size, seed)
        self._vectors = start.clone().requires_grad_()
        self._ids = list(nearest_tokens(problem.lm, self.vectors, k=1).token_ids)
        rate = options.learning_rate or problem.lm.vector_rate
        self._adam = torch.optim.Adam([self._vectors], lr=rate)
        decay = (
            (lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)))
            if (options.schedule == "cosine")
            else (lambda t: 1.0)
        )
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._adam, decay)

    def step(self) -> dict[str, float]:
        """One step of Adam down the objective; proxies see the nearest tokens as what is said."""
        texts, labels = next(self._batches)
        ids = torch.tensor([self._ids], device=labels.device)
        proposals = Proposals(self.objective.setting, ids, self._vectors[None], texts=texts)
        terms, gradients = self.objective.gradients(proposals, labels, [self._vectors])
        self._vectors.grad = torch.stack([*gradients.values()]).sum(dim=0)
        self._adam.step()
        self._rate.step()
        row = self.objective.row(terms, gradients)
        if not torch.isfinite(self._vectors).all():
            return row | {"objective": math.nan}
        self._ids = list(nearest_tokens(self.problem.lm, self.vectors, k=1).token_ids)
        return row

    @property
    def vectors(self) -> Tensor:
        """The current vectors."""
        return self._vectors.detach()

    @property
    def token_ids(self) -> list[int]:
        """The nearest tokens by cosine, special and unused ones left out."""
        return self._ids

    def prompt(self, vectors: Tensor, token_ids: list[int]) -> Prompt:
        """A soft prompt that knows where it started."""
        return Prompt.soft(self.problem.lm, vectors, self.start_ids)


def _start(problem: Problem, options: SoftOptions, seed: int) -> tuple[Tensor, list[int] | None]:
    lm, length = problem.lm, problem.length
    if options.init == "text" and options.init_text is None:
        raise SoftlensError("Got init='text' without a text. Pass init_text='...'.")
    if options.init == "noise" and options.init_text is None:
        generator, rows = torch.Generator().manual_seed(seed), lm.embedding
        noise = torch.randn(length, lm.hidden_size, generator=generator).to(lm.device)
        return rows.mean(dim=0) + noise * rows.std(dim=0), None
    ids = problem.start_ids(options.init_text, seed)
    return lm.embed(ids), ids
