"""Beam search: a prompt grown from left to right under the LM's prior and the objective.

The way of AutoPrompt's successors and of the first readable triggers (compare AutoDAN, Zhu et al.
2023, arXiv 2310.15140), without gradients: what is scored is the beginning itself, as a prompt.
"""

from typing import ClassVar

import torch
from pydantic import Field

from softlens.lm import answer_logits
from softlens.lm.surprisals import context_texts, default_context
from softlens.objectives import Objective
from softlens.tuners.base import Problem, TunerOptions
from softlens.tuners.pool import Pool, Row
from softlens.tuners.sample import SearchOptions, SearchTuner


class BeamOptions(SearchOptions):
    """Options of `beam`."""

    width: int = Field(default=16, ge=1, description="beginnings that are kept")
    texts: int = Field(default=16, ge=1, description="training texts that each is asked")
    prior: float = Field(
        default=0.1, ge=0, description="weight of a beginning's nats per token in its score"
    )


class BeamTuner(SearchTuner):
    """Keeps the best beginnings by objective + prior x nats per token, and adds a token to each.

    The prior is a guide for beginnings: of the finished prompts the one with the lowest objective
    is taken.
    """

    Options: ClassVar[type[TunerOptions]] = BeamOptions
    options: BeamOptions

    def __init__(
        self, problem: Problem, objective: Objective, options: BeamOptions, steps: int, seed: int
    ) -> None:
        super().__init__(problem, objective, options, steps, seed)
        self._seed = seed

    @property
    def token_ids(self) -> list[int]:
        """The best candidate so far; the LM goes on where the search was interrupted."""
        while len(self._best) < self.problem.length:
            (self._best,), _ = self._children([self._best], torch.zeros(1), 1)
        return list(self._best)

    @property
    def least(self) -> int:
        """Two looks at dev, and as many tokens tried at each place as the beam is wide."""
        p, tried = self.problem, self.options.width * (1 + self._texts + self._cost_of_proxies)
        return 2 * self._cost_of_look + p.length * tried

    @property
    def _texts(self) -> int:
        return min(self.options.texts, len(self.problem.train))

    def step(self) -> dict[str, float]:
        """Grow the whole beam; the budget decides how many tokens are tried at each place."""
        p, width = self.problem, self.options.width
        texts, each = self._texts, self._texts + self._cost_of_proxies
        budget = self.left - 2 * self._cost_of_look - p.length * width
        tried = max(width, budget // (p.length * each))
        rows: list[Row] = [()]
        nats = torch.zeros(1)
        for _ in range(p.length):
            rows, nats = self._children(rows, nats, tried)
            pool = Pool(p, self.objective, self._seed)
            pool.add(rows)
            pool.ask(texts)
            score = pool.totals + self.options.prior * nats / len(rows[0])
            best = score.argsort(stable=True)[:width]
            rows, nats = [rows[i] for i in best.tolist()], nats[best]
            pool.keep(best)
            self.follow(pool)
        self.pool = pool
        self.finished = "grown to its length"
        return self.row()

    @torch.no_grad()
    def _children(
        self, rows: list[Row], nats: torch.Tensor, count: int
    ) -> tuple[list[Row], torch.Tensor]:
        """The `count` likeliest continuations of the beginnings by one token, and their nats."""
        lm = self.problem.lm
        context = context_texts(lm, default_context(lm))
        self.objective.evaluations += len(rows)
        logits = answer_logits(lm, rows, context)[:, 0]
        logits = logits.masked_fill(~self.problem.allowed, -torch.inf)
        total = nats[:, None] - logits.log_softmax(dim=-1).cpu()
        best = total.flatten().topk(min(count, int(total.isfinite().sum())), largest=False)
        parents, tokens = best.indices // total.shape[1], best.indices % total.shape[1]
        pairs = zip(parents.tolist(), tokens.tolist(), strict=True)
        return [(*rows[parent], token) for parent, token in pairs], best.values
