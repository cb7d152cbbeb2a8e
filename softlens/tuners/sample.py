"""Baselines that search among what the LM itself would say: `sample` and `race`."""

import logging
import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field, field_validator

from softlens.lm import LM, draw_prompts
from softlens.lm.surprisals import Context
from softlens.objectives import Objective
from softlens.tuners.base import HardTuner, Problem, TunerOptions
from softlens.tuners.pool import Pool, Row, texts_of_proxies

log = logging.getLogger(__name__)

SMALL_BUDGET, BUDGET = 60_000, 14_400
"""Evaluations by default: on a small LM what a race needed, on others a published PEZ run."""


class SearchOptions(TunerOptions):
    """Options of all methods that search."""

    evaluations: int | None = Field(
        default=None,
        ge=1,
        description="prompt x text forward passes to spend, a drawn prompt counted as one; None: "
        "60,000 for a small LM, else 14,400. A prompt that is drawn again is not counted again",
    )

    def for_lm(self, lm: LM) -> "SearchOptions":
        """Settle the evaluations to spend."""
        return self.model_copy(update={"evaluations": self.evaluations or usual_budget(lm)})


def usual_budget(lm: LM) -> int:
    """Evaluations of a search that is given none."""
    return SMALL_BUDGET if lm.is_small else BUDGET


class SearchTuner(HardTuner):
    """A method with a pool of candidates and a budget of evaluations.

    A subclass says in `step` what one round is, and within it keeps `self._best` up to date by
    `follow`: Ctrl-C may come at any time.
    """

    in_evaluations = True
    keeps_best = True

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        options: SearchOptions,
        steps: int,
        seed: int,
    ) -> None:
        self.problem, self.objective = problem, objective
        self.options = options
        self.generator = torch.Generator().manual_seed(seed)
        self.pool = Pool(problem, objective, seed)
        self._began = objective.evaluations
        self._drawn: set[Row] = set()
        allowed = problem.allowed_ids.cpu()
        pick = torch.randint(len(allowed), (problem.length,), generator=self.generator)
        self._best: Row = tuple(allowed[pick].tolist())
        self.start_ids = list(self._best)

    @property
    def token_ids(self) -> list[int]:
        """The best candidate so far."""
        return list(self._best)

    def follow(self, pool: Pool) -> None:
        """Take the first of the pool for the best so far."""
        if len(pool):
            self._best = pool.rows[0]

    @property
    def least(self) -> int:
        """Evaluations that it needs; with fewer it may spend more than it was given."""
        return 0

    def check_budget(self, method: str) -> None:
        """Warn where the evaluations do not suffice."""
        given = self.options.evaluations
        if given is not None and given < self.least:
            log.warning(
                "Got evaluations=%d, but %r needs at least %d here, with its looks at dev: it will "
                "spend more than it was given, or find little.",
                given,
                method,
                self.least,
            )

    @property
    def left(self) -> int:
        """Evaluations still to spend."""
        assert self.options.evaluations is not None
        return self.options.evaluations - (self.objective.evaluations - self._began)

    def draw(
        self,
        count: int,
        replacement: bool,
        context: Context | None = None,
        temperature: float = 1.0,
        most_nats: float = math.inf,
    ) -> list[Row]:
        """Prompts that the LM says and that were not drawn before; each is one evaluation.

        Those above `most_nats` per token where they were drawn are counted, but not returned.
        """
        drawn = draw_prompts(
            self.problem.lm,
            self.problem.length,
            count,
            self.generator,
            context,
            self.problem.allowed,
            replacement,
            temperature,
        )
        said = zip(map(tuple, drawn.ids.tolist()), drawn.nats.tolist(), strict=True)
        new = {row: nats for row, nats in said if row not in self._drawn}
        self._drawn.update(new)
        self.objective.evaluations += len(new)
        kept = [row for row, nats in new.items() if nats <= most_nats]
        if kept and self.token_ids == self.start_ids:
            self._best = kept[0]
        return kept

    @property
    def _cost_of_proxies(self) -> int:
        """Evaluations for a candidate's proxies, which the pool takes when it comes in."""
        return self.objective.contexts + self._asks_mass * texts_of_proxies(self.problem)

    @property
    def _cost_of_look(self) -> int:
        """Evaluations for a look at dev."""
        return (1 + self._asks_mass) * len(self.problem.dev)

    @property
    def _asks_mass(self) -> bool:
        return "label_mass" in self.objective.weights

    def row(self, best: int | None = None) -> dict[str, float]:
        """The history's columns for one of the pool, on the texts that it was asked about.

        Args:
            best: its place in the pool; None is that of the lowest objective.
        """
        best = self.pool.best() if best is None else best
        self._best = self.pool.rows[best]
        proxies = {name: score[[best]] for name, score in self.pool.proxies.items()}
        total, penalty = float(self.pool.totals[best]), self.objective.penalty(proxies)
        return {
            "objective": total,
            "task_loss": total - float(penalty),
            **{name: float(score) for name, score in proxies.items()},
            "candidates": len(self.pool),
            "texts": int(self.pool.asked.min()),
        }


class SampleOptions(SearchOptions):
    """Options of `sample`."""

    texts: int = Field(default=48, ge=1, description="training texts that every candidate is asked")


class SampleTuner(SearchTuner):
    """Best of N: the LM's own samples after BOS, each asked about the same texts.

    How far a prompt can be had by looking alone; the reference for every cleverer method.
    """

    Options: ClassVar[type[TunerOptions]] = SampleOptions
    options: SampleOptions
    ROUND = 256
    IDLE = 20
    _idle = 0

    def step(self) -> dict[str, float]:
        """Draw and ask another block, as large as the budget allows."""
        texts, each = self._texts, self._each
        new = self.draw(max(1, min(self.ROUND, self._affordable(each))), replacement=True)
        self.pool.add(new)
        self.pool.ask(texts)
        self.pool.keep(self.pool.totals.argsort(stable=True)[: self.ROUND])
        self._idle = 0 if new else self._idle + 1
        if self._affordable(each) < 1:
            self.finished = "all evaluations spent"
        elif self._idle == self.IDLE:
            self.finished = "the LM says nothing new"
        return self.row()

    @property
    def least(self) -> int:
        """Two looks at dev, and one candidate."""
        return 2 * self._cost_of_look + self._each

    @property
    def _texts(self) -> int:
        return min(self.options.texts, len(self.problem.train))

    @property
    def _each(self) -> int:
        return self._texts + 1 + self._cost_of_proxies

    def _affordable(self, each: int) -> int:
        return (self.left - self._cost_of_look) // each


class RaceOptions(SearchOptions):
    """Options of `race`."""

    stages: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(6, 24, 48),
        min_length=1,
        description="training texts asked about at each stage, a rising number",
    )

    @field_validator("stages")
    @classmethod
    def _rise(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if list(stages) != sorted(set(stages)):
            raise ValueError("the stages must rise, as in (6, 24, 48)")
        return stages

    kept: float = Field(default=1 / 16, gt=0, lt=1, description="share that goes on after a stage")


class RaceTuner(SearchTuner):
    """Successive halving over many samples of the LM (Jamieson and Talwalkar 2016)."""

    Options: ClassVar[type[TunerOptions]] = RaceOptions
    options: RaceOptions
    LEAST, TRIES = 8, 50

    @property
    def least(self) -> int:
        """Two looks at dev, and one candidate through all stages."""
        texts = min(self.options.stages[-1], len(self.problem.train))
        return 2 * self._cost_of_look + 1 + self._cost_of_proxies + texts

    def step(self) -> dict[str, float]:
        """One race: draw as many prompts as can be afforded, and halve them."""
        stages, share = self.options.stages, self.options.kept
        steps = [later - before for before, later in zip((0, *stages), stages, strict=False)]
        each = 1 + self._cost_of_proxies + sum(n * share**i for i, n in enumerate(steps))
        fixed = self._cost_of_look + self.LEAST * sum(steps[1:])
        wanted = max(1, int((self.left - fixed) / each))
        drawn: list[Row] = []
        for _ in range(self.TRIES):
            # Ever fewer draws are new; what the LM hardly says is not waited for.
            drawn += self.draw(wanted - len(drawn), replacement=True)
            if len(drawn) >= wanted:
                break
        self.pool.add(drawn)
        kept = lambda texts, n: max(self.LEAST, int(n * share))  # noqa: E731
        self.pool.race(stages, kept, after=self.follow)
        self.finished = "all evaluations spent"
        return self.row()
