"""GCG: the gradient names promising swaps of one token; all that are tried are scored exactly.

Zou, Wang, Carlini, Nasr, Kolter, Fredrikson (2023), "Universal and Transferable Adversarial Attacks
on Aligned Language Models", arXiv 2307.15043, algorithm 1. With a fluency term it is that of evil
twins (Melamed, McCabe, Wakhare, Kim, Huang, Boix-Adsera 2023, arXiv 2311.07064, gamma * NLL):
``proxies={"perplexity": gamma * length}``, as their NLL is a sum over tokens and this a mean.

The gradient needs differentiable terms; a proxy without a gradient still takes part in the scoring.

Deviations: swaps are drawn without replacement from all positions together, and never the token
that is there; batches of texts change from step to step; prompts whose text would be encoded
otherwise are not filtered out; the best on dev is kept.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import HardTuner, Problem, TunerOptions


class GcgOptions(TunerOptions):
    """Options of GCG."""

    top_k: int = Field(
        default=256, ge=1, description="tokens a position that the gradient proposes; published"
    )
    candidates: int = Field(
        default=64, ge=1, description="swaps scored a step; published: 512, on one text each"
    )
    only_better: bool = Field(
        default=False,
        description="stay where no swap is better on the step's texts; published: never stay",
    )
    init_text: str | None = Field(
        default=None, description="a text to start from; None: random tokens"
    )


class GcgTuner(HardTuner):
    """Greedy coordinate gradient: one token changes a step."""

    Options: ClassVar[type[TunerOptions]] = GcgOptions
    # A step asks for as many prompts as its candidates, so there are fewer.
    small_budget: ClassVar[int] = 100
    budget: ClassVar[int] = 40

    def __init__(
        self, problem: Problem, objective: Objective, options: GcgOptions, steps: int, seed: int
    ) -> None:
        self.problem, self.objective, self.options = problem, objective, options
        self._ids = self.start_ids = problem.start_ids(options.init_text, seed)
        self._top_k = min(options.top_k, len(problem.allowed_ids) - 1)
        if self._top_k < 1:
            raise SoftlensError(
                f"ban={options.ban!r} leaves one token, and 'gcg' swaps one for another. Ban less."
            )
        self._batches = problem.batches(options.batch_size, seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._visited = {tuple(self._ids)}

    def step(self) -> dict[str, float]:
        """Propose swaps by the gradient, score them on the same texts, take the best."""
        texts, labels = next(self._batches)
        setting, rows = self.objective.setting, self.vectors.requires_grad_()
        ids = torch.tensor([self._ids], device=labels.device)
        current = Proposals(setting, ids, rows[None], texts=texts)
        terms, gradients = self.objective.gradients(current, labels, [rows])
        row = self.objective.row(terms, gradients)

        slope = torch.stack([*gradients.values()]).sum(dim=0)
        candidates = self._swaps(self._promising(slope))
        with torch.no_grad():
            swapped = Proposals.of_ids(setting, candidates.tolist(), texts)
            totals = self.objective.total(self.objective.terms(swapped, labels))
        best = int(totals.argmin())
        if not self.options.only_better or totals[best] < row["objective"]:
            self._ids = candidates[best].tolist()
            self._visited.add(tuple(self._ids))
        return row | {"prompts_visited": len(self._visited)}

    def _promising(self, slope: Float[Tensor, "length hidden"]) -> Int[Tensor, "length tokens"]:
        """The tokens of each position along which the objective falls most steeply.

        The gradient with respect to a one-hot vector is the embedding times that of its row.
        """
        by_token = slope @ self.problem.lm.embedding.T
        by_token.masked_fill_(~self.problem.allowed, torch.inf)
        by_token[torch.arange(len(slope)), self._ids] = torch.inf
        return by_token.topk(self._top_k, dim=1, largest=False).indices.cpu()

    def _swaps(self, tokens: Int[Tensor, "length tokens"]) -> Int[Tensor, "candidates length"]:
        """Some of the prompts that differ from the current one in one of these tokens."""
        drawn = torch.randperm(tokens.numel(), generator=self._generator)
        drawn = drawn[: self.options.candidates]
        position, rank = drawn // tokens.shape[1], drawn % tokens.shape[1]
        swapped = torch.tensor(self._ids).repeat(len(drawn), 1)
        swapped[torch.arange(len(drawn)), position] = tokens[position, rank]
        return swapped

    @property
    def token_ids(self) -> list[int]:
        """The current prompt."""
        return self._ids
