"""PEZ: gradients taken at the nearest tokens, applied to a continuous copy.

Wen, Jain, Kirchenbauer, Goldblum, Geiping, Goldstein (2023), "Hard Prompts Made Easy",
arXiv 2302.03668, algorithm 1, and its code for images (AdamW) and for language (Adafactor).

The published objective is w * CE_fluency + (1 - w) * CE_task. Divided by 1 - w, which Adam and
Adafactor do not notice but for the bound on the norm, it is the objective here with
``proxies={"perplexity": w / (1 - w)}``: there too the labels of the fluency term are token ids, so
that its gradient reaches a token only as the *context* of those behind it.
``proxies={"perplexity_target": ...}`` is the same number with the gradient also through what is
predicted.

Deviations: only allowed tokens are projected to (the published code projects to special tokens
too); the first token's surprisal counts, where something stands before it to predict it; the best
projection on dev is kept, by the objective if there are proxies; the learning rate is constant from
the first step (the published code for language warms it up over 500 steps of at most 20,000; a run
here has 150 to 400 in all).
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers.optimization import Adafactor

from softlens.lm import LM
from softlens.nearness import nearness_of
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import FreeOptions, HardTuner, Problem, TunerOptions

SMALL_RATE = 0.3
"""Learning rate of AdamW on a small LM: what our trials found better than the published 0.1."""
PUBLISHED_RATE = {"adamw": 0.1, "adam": 0.1, "adafactor": 0.3}


class PezOptions(FreeOptions):
    """Options of PEZ."""

    optimiser: Literal["adamw", "adam", "adafactor"] = Field(
        default="adamw",
        description="of the continuous copy; published: 'adamw' for images, 'adafactor' without "
        "schedules of its own for language; in our trials 'adamw' found the best prompts; without "
        "its decay ('adam') the copy settles sooner, and fewer prompts are visited",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="constant; published: 0.1 for images, 0.3 for language; None: those, but 0.3 "
        "for 'adamw' on a small LM, which our trials found better",
    )
    weight_decay: float = Field(
        default=0.1, ge=0, description="of 'adamw', as published for images; others have none"
    )
    clip: float | None = Field(
        default=1.0,
        gt=0,
        description="largest norm of the objective's gradient, as published for language, and "
        "much better in our trials than None, no limit, as published for images",
    )
    metric: Literal["cosine", "l2"] = Field(
        default="cosine", description="what is near; published: 'cosine'"
    )
    init_text: str | None = Field(
        default=None, description="a text to start from; None: random tokens, as published"
    )
    evaluations_of_dev: int = Field(
        default=20, ge=1, description="times dev is looked at; published: once in 100 steps"
    )
    patience: int = Field(
        default=20,
        ge=1,
        description="looks at dev without a better prompt before stopping early; published: none",
    )

    def for_lm(self, lm: LM) -> "PezOptions":
        """Settle the learning rate."""
        rate = self.learning_rate or PUBLISHED_RATE[self.optimiser]
        if self.learning_rate is None and self.optimiser == "adamw" and lm.is_small:
            rate = SMALL_RATE
        return self.model_copy(update={"learning_rate": rate})


class PezTuner(HardTuner):
    """An optimiser on `length` float32 vectors that the LM never sees: it is fed their nearest."""

    Options: ClassVar[type[TunerOptions]] = PezOptions
    needs_gradients = True

    def __init__(
        self, problem: Problem, objective: Objective, options: PezOptions, steps: int, seed: int
    ) -> None:
        self.options = options = options.for_lm(problem.lm)
        self.problem, self.objective = problem, objective
        self.start_ids = problem.start_ids(options.init_text, seed)
        self._batches = problem.batches(options.batch_size, seed)
        self._free = problem.lm.embed(self.start_ids).clone().requires_grad_()
        self._optimiser = _optimiser(options, self._free)
        self._ids = self.start_ids
        self._visited = {tuple(self._ids)}

    def step(self) -> dict[str, float]:
        """One step of the continuous copy down the gradient at its projection (algorithm 1)."""
        texts, labels = next(self._batches)
        projected = self.vectors.requires_grad_()
        ids = torch.tensor([self._ids], device=labels.device)
        proposals = Proposals(
            self.objective.setting, ids, projected[None], free=self._free[None], texts=texts
        )
        # The projection for all that the LM says; the copy itself for what is asked of it alone.
        leaves = [projected, self._free]
        terms, gradients = self.objective.gradients(proposals, labels, leaves)
        self._free.grad = torch.stack([*gradients.values()]).sum(dim=0)
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_([self._free], self.options.clip)
        self._optimiser.step()
        row = self.objective.row(terms, gradients)
        if not torch.isfinite(self._free).all():
            # Its projection would still look like a prompt.
            return row | {"objective": float("nan")}
        self._ids = project(self.problem, self._free.detach(), self.options.metric)
        self._visited.add(tuple(self._ids))
        return row | {"prompts_visited": len(self._visited)}

    @property
    def free(self) -> Float[Tensor, "length hidden"]:
        """The continuous copy."""
        return self._free.detach()

    @property
    def token_ids(self) -> list[int]:
        """The allowed tokens nearest to the continuous copy."""
        return self._ids


def project(
    problem: Problem, vectors: Float[Tensor, "length hidden"], metric: str = "cosine"
) -> list[int]:
    """The nearest allowed token of each vector."""
    nearness, _ = nearness_of(problem.lm, vectors, metric)
    return nearness.masked_fill(~problem.allowed, -torch.inf).argmax(dim=1).tolist()


def _optimiser(options: PezOptions, leaf: Tensor) -> torch.optim.Optimizer:
    rate = options.learning_rate
    assert rate is not None
    if options.optimiser == "adafactor":
        # As published: a constant rate, and none of Adafactor's own.
        return Adafactor(
            [leaf], lr=rate, relative_step=False, scale_parameter=False, warmup_init=False
        )
    if options.optimiser == "adamw":
        return torch.optim.AdamW([leaf], lr=rate, weight_decay=options.weight_decay)
    return torch.optim.Adam([leaf], lr=rate)
