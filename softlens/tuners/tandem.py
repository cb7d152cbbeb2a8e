"""Tandem: the LM says what it would say here, the task decides among it.

A readable prompt that does the task is a sentence that the LM itself might say where the prompt
will stand. So nothing is optimised into existence: candidates are *drawn* from the LM, each once;
*raced* on as few texts as decide their fate; the survivors are *repaired* word by word with what
the LM would say there; and of all that do the task equally well, the least surprising is *chosen*.
Where the LM says much that is not readable (a large one, after texts), what it draws is asked how
readable it is before it is asked about the task.

It builds on stochastic beams (Kool et al. 2019, arXiv 1903.06059) for drawing without replacement,
successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), and rewriting under an LM, as
Gibbs sampling does (compare FluentPrompt, arXiv 2212.10539, and EPO, arXiv 2402.01702).
"""

import logging
import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from softlens.lm import LM, draw_prompts, token_surprisal
from softlens.lm.surprisals import context_texts, default_context
from softlens.objectives import Objective
from softlens.tuners.base import Problem, TunerOptions
from softlens.tuners.pool import Pool, Row
from softlens.tuners.sample import SearchOptions, SearchTuner

log = logging.getLogger(__name__)

BLOCK = 64
"""Prompts drawn after one text."""
MOST_TEXTS = 64
"""Texts of each class, from which on a race is decided."""
LOSS_ELSEWHERE = 0.5
"""Nats per token by which prompts that are drawn after one text cost more after others, at least:
on the reviews, of those drawn above 2.5 nats none kept a bound of 3 elsewhere."""


class TandemOptions(SearchOptions):
    """Options of `tandem`; its constraints are bounds, for in a sum one term swamps the others."""

    ban: tuple[str | int, ...] = Field(
        default=("labels", "control", "pieces"), description="tokens that may not be used"
    )
    draw_after: Literal["texts", "bos"] | None = Field(
        default=None,
        description="where candidates are drawn; None: after BOS for a small LM, else after texts",
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="of drawing; below 1, likely prompts come more often than the LM says them; "
        "None: 1 for a small LM, else 0.6",
    )
    first: int | None = Field(
        default=None,
        ge=1,
        description="texts of each class that every candidate is asked, four times as many at each "
        "further stage, until it is 64; None: 1 for a small LM, else 4",
    )
    kept: float = Field(default=1 / 8, gt=0, lt=1, description="share that goes on after a stage")
    finalists: int | None = Field(
        default=None,
        ge=1,
        description="candidates that are asked about dev; None: 8 for a small LM, else 4",
    )
    drawn: float = Field(
        default=0.6, gt=0, lt=1, description="share of the budget for drawing and racing"
    )
    rounds: int = Field(default=2, ge=0, description="of repair, with what is left of the budget")
    most_nats: float = Field(
        default=3.0,
        gt=0,
        description="nats per token where the prompt will stand (after real texts, where the "
        "template has the text first and nothing behind the prompt; else after BOS), and where it "
        "was drawn",
    )
    most_relevance: float | None = Field(
        default=None,
        description="nats after real texts minus nats after BOS; None: -0.2 for candidates drawn "
        "after texts, no bound for those drawn after BOS",
    )
    most_share: float = Field(
        default=0.9, gt=0, le=1, description="of the texts answered with one label word"
    )
    indifference: float = Field(
        default=0.02,
        ge=0,
        description="nats of loss within which candidates do the task equally well",
    )

    def for_lm(self, lm: LM) -> "TandemOptions":
        """Settle the budget, where to draw, how many texts come first, and what mass weighs."""
        settled = self.model_copy(update={"evaluations": super().for_lm(lm).evaluations})
        changes: dict[str, object] = {
            "temperature": self.temperature or (1.0 if lm.is_small else 0.6),
            "first": self.first or (1 if lm.is_small else 4),
            "finalists": self.finalists or (8 if lm.is_small else 4),
            "draw_after": self.draw_after or ("bos" if lm.is_small else "texts"),
        }
        if changes["draw_after"] == "texts" and self.most_relevance is None:
            changes["most_relevance"] = -0.2
        if "mass" not in self.model_fields_set and lm.is_small:
            # Where right prompts have all the mass, accuracies without it are noise.
            changes["mass"] = 0.1
        return settled.model_copy(update=changes)


class TandemTuner(SearchTuner):
    """Draw, race, repair, choose."""

    Options: ClassVar[type[TunerOptions]] = TandemOptions
    options: TandemOptions

    def __init__(
        self, problem: Problem, objective: Objective, options: TandemOptions, steps: int, seed: int
    ) -> None:
        super().__init__(problem, objective, options, steps, seed)
        lm, self._seed = problem.lm, seed
        stages = [options.first or 1]
        while stages[-1] < MOST_TEXTS or len(stages) < 3:
            stages.append(4 * stages[-1])
        self._stages = [min(n * len(problem.words), len(problem.train)) for n in stages]
        self._bos = context_texts(lm, default_context(lm))
        # Where the template puts the text behind the prompt, it stands after BOS.
        self._place = objective.setting.before or self._bos
        self._source = self._place if options.draw_after == "texts" else self._bos
        # A bound on relevance is what most draws break; bounds on nats alone are asked later.
        after_texts = self._source is not self._bos
        self._screens = after_texts and options.most_relevance is not None
        self._temperature, self._finalists = options.temperature or 1.0, options.finalists or 8
        self._nats: dict[Row, tuple[float, float]] = {}
        self._rounds = 0

    @property
    def least(self) -> int:
        """A look at dev, and what pays for a race of the finalists and for the choice on dev."""
        drawing = self._finalists * (1 + self._screens * self._cost_of_nats)
        race, choice, drawn = drawing + self._costs()[1], self._reserve, self.options.drawn
        parts = (race / drawn, choice / (1 - drawn)) if self.options.rounds else (race + choice,)
        return self._cost_of_look + math.ceil(max(parts))

    # The whole method: one call draws and races, the next ones repair, the last one chooses.
    def step(self) -> dict[str, float]:
        """One round."""
        rounds = self.options.rounds
        if self._rounds == 0:
            budget = self.options.drawn * self.left if rounds else self.left - self._reserve
            self._race(self.pool, self._candidates(budget))
        else:
            budget = (self.left - self._reserve) / (rounds + 1 - self._rounds)
            edited = Pool(self.problem, self.objective, self._seed)
            edits = self._edits(max(1, self._affordable(budget)))
            self._race(edited, self._readable(edits) if self._screens else edits)
            self.pool.add(edited.rows)
            self.pool.ask(self._stages[-1])
            self.pool.keep(self._rank(self.pool).argsort(stable=True)[: self._finalists])
        self._rounds += 1
        affordable = self._affordable(self.left - self._reserve)
        if self._rounds > rounds or affordable < self._finalists * self.problem.length:
            self.finished = "all rounds done" if self._rounds > rounds else "evaluations spent"
            return self._choose()
        return self.row()

    def _candidates(self, budget: float | int) -> list[Row]:
        """Draw as many as can be raced; where the LM says much that breaks the bounds, screened."""
        if not self._screens:
            count = max(1, self._affordable(budget))
            return self.draw(count, False, self._source, self._temperature)
        stop, readable = self.left - budget, list[Row]()
        # One text after another, for each suggests other words.
        for text in self.pool.order.tolist():
            spare = int(self.left - stop - self._cost_of_race(len(readable)))
            if spare < self._cost_of_nats:
                break
            drawn = self.draw(
                min(BLOCK, spare // self._cost_of_nats),
                False,
                self.problem.train.subset([text]),
                self._temperature,
                self.options.most_nats - LOSS_ELSEWHERE,
            )
            readable += self._readable(drawn)
            if readable:
                self._best = min(readable, key=lambda row: self._nats[row][0])
        if not readable:
            log.info("Nothing that was drawn keeps the bounds; the least surprising stays.")
            known = sorted(self._nats, key=lambda row: self._nats[row][0])
            readable = known[: self._finalists]
        return readable or self.draw(self._finalists, False, self._source, self._temperature)

    def _race(self, pool: Pool, rows: list[Row]) -> None:
        """Halve candidates over the stages; from the second on, only what keeps the bounds."""
        share, finalists = self.options.kept, self._finalists
        pool.add(rows)
        keep = lambda texts, n: max(finalists, int(n * share))  # noqa: E731
        follow = self.follow if pool is self.pool else None
        pool.race(self._stages, keep, self._narrow, self._rank, follow)

    def _rank(self, pool: Pool) -> Tensor:
        """The objective; of those that are as good as the best, the least surprising come first."""
        totals = pool.totals
        if int(pool.asked.min()) < self._stages[1]:
            return totals
        behind = (totals - totals.min() - self.options.indifference).relu()
        # Nats are far below a million: they only order what is equal.
        return behind + 1e-6 * self._surprisal(pool.rows)

    def _narrow(self, pool: Pool) -> None:
        asked = int(pool.asked.min()) if len(pool) else 0
        if asked < self._stages[1]:
            return
        within = self._within(pool.rows)
        if asked >= self._stages[2]:
            within &= pool.largest_share <= self.options.most_share
        if within.any() or pool is not self.pool:
            pool.keep(within)
        else:
            log.info("No candidate keeps the bounds after %d texts; the best stay.", asked)

    def _readable(self, rows: list[Row]) -> list[Row]:
        """Those that keep the bounds on nats and relevance."""
        if not rows:
            return []
        kept = self._within(rows).tolist()
        return [row for row, keeps in zip(rows, kept, strict=True) if keeps]

    def _within(self, rows: list[Row]) -> Bool[Tensor, " candidates"]:
        place, bos = self._nats_of(rows).unbind(dim=1)
        within = self._surprisal(rows) <= self.options.most_nats
        # With no text before the prompt there is nothing to be relevant to.
        if self.options.most_relevance is not None and self._place is not self._bos:
            within &= place - bos <= self.options.most_relevance
        return within

    def _edits(self, count: int) -> list[Row]:
        """Finalists rewritten by the LM at every place: one word, or all that follows."""
        lm, length = self.problem.lm, self.problem.length
        spans = [(i, stop) for i in range(length) for stop in {i + 1, length}]
        each = max(1, count // (len(self.pool) * len(spans)))
        edits: dict[Row, None] = {}
        for row in self.pool.rows:
            text = self._source.subset([int(self._below(len(self._source)))])
            for start, stop in spans:
                drawn = draw_prompts(
                    lm,
                    stop - start,
                    each,
                    self.generator,
                    text.followed_by(row[:start]),
                    self.problem.allowed,
                    temperature=self._temperature,
                )
                edits |= {(*row[:start], *new, *row[stop:]): None for new in drawn.ids.tolist()}
        new = [row for row in edits if row not in self._drawn]
        self._drawn.update(new)
        self.objective.evaluations += len(new)
        return new

    def _choose(self) -> dict[str, float]:
        """Of the finalists that do as well on dev as the best, the least surprising."""
        p = self.problem
        on_dev = Pool(replace(p, train=p.dev, labels=p.dev_labels), self.objective, self._seed)
        on_dev.add(self.pool.rows)
        on_dev.ask(len(p.dev))
        chosen = on_dev.rows[int(self._rank(on_dev).argmin())]
        return self.row(self.pool.rows.index(chosen))

    def _surprisal(self, rows: list[Row]) -> Float[Tensor, " candidates"]:
        """Nats per token where a prompt will stand or where it was drawn, whichever is more.

        An LM may say by itself what it would never say after a text, and the other way round.
        """
        place, bos = self._nats_of(rows).unbind(dim=1)
        return torch.maximum(place, bos) if self._source is self._bos else place

    def _nats_of(self, rows: list[Row]) -> Float[Tensor, "candidates 2"]:
        """Nats per token where a prompt will stand, and after BOS; each asked once."""
        new = [row for row in rows if row not in self._nats]
        if new:
            lm = self.problem.lm
            with torch.no_grad():
                bos = token_surprisal(lm, new, self._bos)[:, 0].mean(dim=-1)
                place = bos
                if self._place is not self._bos:
                    place = token_surprisal(lm, new, self._place).mean(dim=(1, 2))
            self.objective.evaluations += len(new) * self._cost_of_nats
            pairs = zip(place.tolist(), bos.tolist(), strict=True)
            self._nats |= dict(zip(new, pairs, strict=True))
        return torch.tensor([self._nats[row] for row in rows])

    @property
    def _reserve(self) -> int:
        """What the choice on dev, and the loop's own looks at dev, will cost."""
        return self._finalists * len(self.problem.dev) + 2 * self._cost_of_look

    @property
    def _cost_of_nats(self) -> int:
        """Evaluations for a prompt's surprisal where it will stand, and after BOS."""
        return 1 if self._place is self._bos else 1 + len(self._place)

    def _cost_of_race(self, count: int) -> float:
        """Evaluations that a race of so many takes, without drawing them."""
        each, fixed = self._costs()
        return fixed + count * each

    def _affordable(self, budget: float | int) -> int:
        """How many candidates can be drawn and raced, with their surprisals."""
        each, fixed = self._costs()
        return max(0, int((budget - fixed) / (1 + each + self._screens * self._cost_of_nats)))

    def _costs(self) -> tuple[float, int]:
        """Evaluations of a race for each candidate, and however few there are."""
        each, alive, before = float(self._cost_of_proxies), 1.0, 0
        for number, texts in enumerate(self._stages):
            asks_nats = number == 1 and not self._screens
            each += alive * (texts - before + asks_nats * self._cost_of_nats)
            alive, before = alive * self.options.kept, texts
        # The finalists are asked everything.
        return each, self._finalists * (before + (not self._screens) * self._cost_of_nats)

    def _below(self, count: int) -> Tensor:
        return torch.randint(count, (), generator=self.generator)
