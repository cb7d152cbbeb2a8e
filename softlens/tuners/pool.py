"""A pool of candidate prompts, raced: each is asked about as few texts as decide its fate.

What a candidate scored on a text is kept, so that no pair of prompt and text is asked twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softlens.lm import EncodedTexts
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.tuners.base import Problem

Row = tuple[int, ...]


class Pool:
    """Candidates and their objective on a growing number of training texts.

    Args:
        problem: the task, encoded.
        objective: what a candidate is worth.
        seed: of the order in which texts are asked; classes take turns in it.

    Attributes:
        rows: the candidates' tokens.
        asked: texts that each has been asked about.
    """

    def __init__(self, problem: Problem, objective: Objective, seed: int) -> None:
        self.problem, self.objective = problem, objective
        self.order = in_turns(problem.labels.cpu(), seed)
        self._labels = problem.labels.cpu()[self.order]
        self.rows: list[Row] = []
        self.asked = torch.zeros(0, dtype=torch.long)
        self._scores = torch.empty(0, len(self.order), len(problem.words))
        self._proxies = torch.empty(0, len(objective.weights))

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: Sequence[Row]) -> int:
        """Take in candidates that are not there yet; how many those were."""
        known = set(self.rows)
        new = [row for row in dict.fromkeys(rows) if row not in known]
        self.rows += new
        self.asked = torch.cat([self.asked, torch.zeros(len(new), dtype=torch.long)])
        empty = torch.full((len(new), *self._scores.shape[1:]), math.nan)
        self._scores = torch.cat([self._scores, empty])
        self._proxies = torch.cat([self._proxies, self._proxy_scores(new)])
        return len(new)

    def ask(self, texts: int) -> None:
        """Ask every candidate about the first `texts` texts, where it has not been."""
        texts = min(texts, len(self.order))
        for done in self.asked.unique().tolist():
            if done >= texts:
                continue
            behind = (self.asked == done).nonzero()[:, 0]
            part = self.problem.train.subset(self.order[done:texts].tolist())
            rows = [self.rows[i] for i in behind.tolist()]
            self._scores[behind, done:texts] = self._word_scores(rows, part)
            self.asked[behind] = texts

    def keep(self, which: Bool[Tensor, " candidates"] | Int[Tensor, " kept"]) -> None:
        """Drop all other candidates."""
        chosen = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        self.rows = [self.rows[i] for i in chosen.tolist()]
        self.asked, self._scores = self.asked[chosen], self._scores[chosen]
        self._proxies = self._proxies[chosen]

    @property
    def totals(self) -> Float[Tensor, " candidates"]:
        """The objective of each candidate on the texts that *all* have been asked about."""
        shared = int(self.asked.min()) if len(self) else 0
        loss = self.objective.loss(self._scores[:, :shared], self._labels[:shared])
        return self.objective.total({"task_loss": loss, **self.proxies})

    @property
    def proxies(self) -> dict[str, Float[Tensor, " candidates"]]:
        """Each proxy's score of each candidate."""
        return dict(zip(self.objective.weights, self._proxies.T, strict=True))

    @property
    def losses(self) -> Float[Tensor, "candidates texts"]:
        """The task loss of each candidate on each text that all have been asked about, nats."""
        shared = int(self.asked.min()) if len(self) else 0
        return torch.stack(
            [
                self.objective.loss(self._scores[:, i : i + 1], self._labels[i : i + 1])
                for i in range(shared)
            ],
            dim=1,
        )

    @property
    def largest_share(self) -> Float[Tensor, " candidates"]:
        """Share of those texts that a candidate answers with its most frequent label word."""
        shared = int(self.asked.min()) if len(self) else 0
        guesses = self._scores[:, :shared].argmax(dim=-1)
        counts = torch.nn.functional.one_hot(guesses, self._scores.shape[-1]).float().mean(dim=1)
        return counts.amax(dim=-1)

    def best(self) -> int:
        """Index of the candidate with the lowest objective."""
        return int(self.totals.argmin())

    def race(
        self,
        stages: Sequence[int],
        kept: Callable[[int, int], int],
        narrow: Callable[[Pool], None] | None = None,
        rank: Callable[[Pool], Tensor] | None = None,
        after: Callable[[Pool], None] | None = None,
    ) -> None:
        """Successive halving: at each stage ask about more texts, and keep the best.

        Jamieson and Talwalkar (2016), "Non-stochastic Best Arm Identification", arXiv 1502.07943.

        Args:
            stages: numbers of texts, rising.
            kept: from the stage's number of texts and of candidates, how many go on.
            narrow: called after each stage's questions, to drop what breaks a constraint.
            rank: what the kept ones are lowest in; the objective by default.
            after: called at the end of each stage, when the best one comes first.
        """
        for texts in stages:
            self.ask(texts)
            if narrow is not None:
                narrow(self)
            if not len(self):
                return
            score = self.totals if rank is None else rank(self)
            self.keep(score.argsort(stable=True)[: kept(texts, len(self))])
            if after is not None:
                after(self)

    @torch.no_grad()
    def _word_scores(self, rows: Sequence[Row], texts: EncodedTexts) -> Tensor:
        proposals = Proposals.of_ids(self.objective.setting, rows, texts)
        return self.objective.word_scores(proposals).cpu()

    @torch.no_grad()
    def _proxy_scores(self, rows: Sequence[Row]) -> Tensor:
        names = self.objective.weights
        if not names or not rows:
            return torch.empty(len(rows), len(names))
        first = self.problem.train.subset(self.order[: texts_of_proxies(self.problem)].tolist())
        proposals = Proposals.of_ids(self.objective.setting, rows, first)
        scores = self.objective.scores(proposals)
        return torch.stack([scores[name].cpu() for name in names], dim=1)


def texts_of_proxies(problem: Problem) -> int:
    """Training texts that a new candidate's proxies are taken on, where they need any."""
    return min(2 * len(problem.words), len(problem.train))


def in_turns(labels: Int[Tensor, " texts"], seed: int) -> Int[Tensor, " texts"]:
    """A random order of texts in which classes take turns, so that any beginning is balanced."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    turn = torch.zeros(len(labels))
    for label in labels.unique():
        of_class = (labels[shuffled] == label).nonzero()[:, 0]
        # Evenly spread, so that a smaller class does not run out before the others.
        turn[of_class] = (torch.arange(len(of_class)) + 0.5) / len(of_class)
    return shuffled[turn.argsort(stable=True)]
