"""FluentPrompt: Langevin dynamics over prompts, projected to tokens after every step.

Shi, Han, Gonen, Holtzman, Tsvetkov, Zettlemoyer (2022), "Toward Human Readable Prompt Tuning",
arXiv 2212.10539:

    e <- Proj[ e - eta * gradient of E(e) + sqrt(2 eta beta) z ],   z standard normal,

where beta falls geometrically from 1 to 1e-4 and the projection is what the next step starts from.
Without noise (``beta_start=0``) it is AutoPrompt_SGD, the baseline of the same paper.

The published energy is l_t * task + l_f * fluency with l_t + l_f = 1; ours, task + lambda * proxy,
is that divided by l_t, for lambda = l_f / l_t: a rescaling of eta and beta. The gradient of
"perplexity" reaches tokens as context only, as there.

Deviations: only allowed tokens are projected to, and the best on dev is kept. Code that compared it
with PEZ (arXiv 2302.03668) replaces the gradient by a step of Adafactor, bounds its norm by 1 (here
``clip=1``), and projects by cosine (``metric="cosine"``); the equation has none of these.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import HardTuner, Problem, TunerOptions
from softlens.tuners.pez import project


class FluentPromptOptions(TunerOptions):
    """Options of FluentPrompt."""

    learning_rate: float = Field(default=0.3, gt=0, description="eta; constant")
    beta_start: float = Field(
        default=1.0,
        ge=0,
        description="temperature of the noise at the first step, as published; 0: AutoPrompt_SGD",
    )
    beta_end: float = Field(
        default=1e-4, gt=0, description="temperature at the last step, as published"
    )
    clip: float | None = Field(
        default=1.0, gt=0, description="largest norm of the energy's gradient; None: no limit"
    )
    metric: Literal["cosine", "l2"] = Field(default="l2", description="what is near")
    init_text: str | None = Field(
        default=None, description="a text to start from; None: random tokens"
    )


class FluentPromptTuner(HardTuner):
    """A noisy walk over prompts that cools down.

    As every tuner it stops early where dev no longer improves (`patience`), which the paper's does
    not: then the last temperatures are not reached.
    """

    Options: ClassVar[type[TunerOptions]] = FluentPromptOptions
    needs_gradients = True

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        options: FluentPromptOptions,
        steps: int,
        seed: int,
    ) -> None:
        self.problem, self.objective, self.options = problem, objective, options
        self.start_ids = problem.start_ids(options.init_text, seed)
        self._batches = problem.batches(options.batch_size, seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._steps, self._done = steps, 0
        self._ids = self.start_ids
        self._visited = {tuple(self._ids)}

    def step(self) -> dict[str, float]:
        """Down the gradient, a kick, and back to the nearest tokens (the equation above)."""
        texts, labels = next(self._batches)
        rows = self.vectors.requires_grad_()
        ids = torch.tensor([self._ids], device=labels.device)
        proposals = Proposals(self.objective.setting, ids, rows[None], texts=texts)
        terms, gradients = self.objective.gradients(proposals, labels, [rows])
        slope = torch.stack([*gradients.values()]).sum(dim=0)
        if self.options.clip is not None:
            slope = slope * (self.options.clip / slope.norm()).clamp(max=1)
        z = torch.randn(rows.shape, generator=self._generator).to(rows.device)
        rate, beta = self.options.learning_rate, self.beta
        moved = rows.detach() - rate * slope + math.sqrt(2 * rate * beta) * z
        self._done += 1
        row = self.objective.row(terms, gradients) | {"beta": beta}
        if not torch.isfinite(moved).all():
            return row | {
                "objective": float("nan")
            }  # its projection would still look like a prompt
        self._ids = project(self.problem, moved, self.options.metric)
        self._visited.add(tuple(self._ids))
        return row | {"prompts_visited": len(self._visited)}

    @property
    def beta(self) -> float:
        """The temperature of the coming step."""
        start, end = self.options.beta_start, self.options.beta_end
        if start == 0:
            return 0.0
        return start * (end / start) ** (self._done / max(1, self._steps - 1))

    @property
    def token_ids(self) -> list[int]:
        """Where the walk is."""
        return self._ids
