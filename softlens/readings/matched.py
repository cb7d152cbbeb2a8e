"""The most faithful readable text: a search under the LM's prior for what does as the prompt does.

The tandem tuner's machinery with another loss: candidates are drawn from the LM, each once, raced
on as few texts as decide their fate, and repaired word by word. What they are worth is how well
their answers agree with the prompt's, KL over the whole vocabulary, on texts whose labels nobody
looks at. A ladder of weights on surprisal keeps candidates at every price, as EPO does (Thompson et
al. 2024, arXiv 2402.01702), so that one search gives the whole path from faithful to readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import pandas as pd
import torch
from pydantic import Field, ValidationError
from torch import Tensor
from tqdm.auto import tqdm

from softlens.behaviour import closed, kl_from
from softlens.constraints import Ban, allowed_tokens
from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts
from softlens.objectives import Objective
from softlens.proposals import Proposals, Setting
from softlens.readings.base import Reading
from softlens.readings.registry import Asked, reader
from softlens.statistics import undominated
from softlens.tuners.base import Problem, TunerOptions
from softlens.tuners.pool import Pool, Row
from softlens.tuners.tandem import TandemOptions, TandemTuner

LENGTH = 5
SMALL_BUDGET = 30_000
"""Evaluations on a small LM: half of what a tuner has, for every text tells of all tokens."""
WEIGHT = 0.05
LEAST = 32
"""Texts of one answer that the search keeps, however few texts have another."""
FEW = 8
"""Finalists on a larger LM."""
LADDER = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Weights of surprisal, KL nats for a nat per token, whose best candidates all stay in the race."""


@dataclass
class Agreement(Objective):
    """KL from the prompt's answers, in the place of a task loss; no label is seen.

    Attributes:
        targets: log-probabilities of every token under the prompt, by what stands around it.
    """

    targets: dict[tuple[Row, Row], Tensor] = field(default_factory=dict)

    def know(self, texts: EncodedTexts, log_probs: Tensor) -> None:
        """Remember the prompt's answers on `texts`."""
        around = zip(texts.befores, texts.afters, strict=True)
        self.targets |= dict(zip(around, log_probs, strict=True))

    def word_scores(self, proposals: Proposals) -> Tensor:
        """KL on each text, shape (prompts, texts, 1), counted as evaluations."""
        texts = proposals.texts
        assert texts is not None
        self.evaluations += len(proposals.ids) * len(texts)
        around = zip(texts.befores, texts.afters, strict=True)
        target = torch.stack([self.targets[key] for key in around])
        return kl_from(self.setting.lm, target, proposals.vectors, texts)[..., None]

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean KL over texts, nats, shape (prompts,)."""
        return scores[..., 0].mean(dim=1)


class MatchOptions(TandemOptions):
    """Options of the search; bounds are wide, for the path is to show what a bound would hide."""

    first: int | None = Field(
        default=None,
        ge=1,
        description="texts that every candidate is asked, four times as many at each further "
        "stage; None: 1 for a small LM, else 2. One text tells of all tokens, not of one label",
    )
    finalists: int = Field(default=32, ge=1, description="candidates whose path is shown")
    most_nats: float = Field(default=8.0, gt=0, description="nats per token, at most")
    most_share: float = Field(default=1.0, gt=0, le=1, description="no bound: no label is known")
    weight: float = Field(default=WEIGHT, ge=0, description="KL nats for a nat per token")

    def for_lm(self, lm: Any) -> MatchOptions:
        """Settle what depends on the LM; what a reading is relevant to, only the prompt knows."""
        settled = cast(MatchOptions, super().for_lm(lm))
        changes: dict[str, Any] = {"most_relevance": self.most_relevance, "mass": 0.0}
        changes["first"] = self.first or (1 if lm.is_small else 2)
        # Bounds are wide, so that nothing is gained by drawing what is likely.
        changes["temperature"] = self.temperature or 1.0
        if not lm.is_small and "finalists" not in self.model_fields_set:
            # A smaller budget would all go to what finalists are asked.
            changes["finalists"] = FEW
        return settled.model_copy(update=changes)


class MatchSearch(TandemTuner):
    """Draw, race, repair; then the path on texts that the search has not seen."""

    Options: ClassVar[type[TunerOptions]] = MatchOptions
    options: MatchOptions
    path: pd.DataFrame
    _right: Row = ()

    def stand_between(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Draw after `left`, and count the surprisal of `right` after what was drawn."""
        place = self._place
        after_texts, at_bos = self._source is place, place is self._bos
        self._bos = self._bos.followed_by(left)
        # Real texts hold `left` already: the template puts it between text and prompt.
        self._place = self._bos if at_bos else place
        self._source = self._place if after_texts else self._bos
        self._right = tuple(right)

    def _nats_of(self, rows: list[Row]) -> Tensor:
        """As tandem's, over what was drawn and what the frame has after it."""
        ends = [(*row, *self._right) for row in rows]
        return super()._nats_of(ends)

    def _rank(self, pool: Pool) -> Tensor:
        totals = pool.totals
        if int(pool.asked.min()) < self._stages[1]:
            return totals
        nats = self._surprisal(pool.rows)
        places = [(totals + w * nats).argsort(stable=True).argsort(stable=True) for w in LADDER]
        # The ladder's rungs take turns: the best of each rung come first.
        return torch.stack(places).amin(dim=0).float()

    def _choose(self) -> dict[str, float]:
        p = self.problem
        unseen = Pool(replace(p, train=p.dev, labels=p.dev_labels), self.objective, self._seed)
        unseen.add(self.pool.rows)
        unseen.ask(len(p.dev))
        row = self.row()
        found, nats = unseen.totals, self._surprisal(unseen.rows)
        after, bos = self._nats_of(unseen.rows).unbind(dim=1)
        self._best = unseen.rows[int((found + self.options.weight * nats).argmin())]
        self.path = pd.DataFrame(
            {
                "token_ids": unseen.rows,
                "kl_vocab": found.double().numpy(),
                "nats_per_token": bos.double().numpy(),
                "nats_after_texts": after.double().numpy(),
                "on_path": undominated((-found).numpy(), nats.numpy()),
                "chosen": [row == self._best for row in unseen.rows],
            }
        )
        return row


@reader(
    source="ours; after arXiv 2311.07064 (KL), 1903.06059 (drawing), 1502.07943 (racing)",
    fails="only texts that the LM itself might say can be found, of one length; KL of one answer",
)
def matched(
    asked: Asked,
    *,
    length: int = LENGTH,
    weight: float = WEIGHT,
    evaluations: int | None = None,
    ban: Ban = ("labels", "control", "pieces"),
) -> Reading:
    """The text the LM might say whose answers agree best with the prompt's.

    Options: `length`, tokens of the reading (the prompt's own length says little about it);
    `weight`, how many nats of KL one nat per token of surprisal is worth; `evaluations`, the budget
    in prompt x text forward passes (None: 30,000 for a small LM, else 14,400); `ban`, as of tuners.

    `frame` is the path, one row a finalist, by surprisal: ``text, kl_vocab, closed`` (share of KL
    closed, both on texts the search has not seen), ``nats_per_token`` (after BOS),
    ``nats_after_texts, on_path`` (no other is better in both), ``chosen, token_ids``. `score` is
    the share of KL closed.
    """
    lm, task = asked.lm, asked.known_task
    options = match_options(lm, weight, evaluations)
    return search_path(asked, "matched", options, length, allowed_tokens(lm, task, ban))


def match_options(lm: LM, weight: float, evaluations: int | None) -> MatchOptions:
    """The search's options for `lm`.

    Raises:
        SoftlensError: a negative weight or budget.
    """
    if evaluations is None and lm.is_small:
        evaluations = SMALL_BUDGET
    try:
        return MatchOptions(weight=weight, evaluations=evaluations).for_lm(lm)
    except ValidationError as reason:
        raise SoftlensError(
            f"Got weight={weight!r} and evaluations={evaluations!r}, wanted a weight of at least 0 "
            "and a budget of at least 1, or None."
        ) from reason


def search_path(
    asked: Asked,
    method: str,
    options: MatchOptions,
    length: int,
    allowed: Tensor,
    left: Sequence[int] = (),
    right: Sequence[int] = (),
) -> Reading:
    """Run the search where `left` stands before what is looked for, and `right` after it.

    Raises:
        SoftlensError: no tokens are asked for, or more than there is room for.
    """
    lm, probes = asked.lm, asked.probes
    if not 1 <= length <= asked.room:
        raise SoftlensError(
            f"Got length {length} of the reading, wanted 1 to {asked.room} tokens, the room kept "
            "beside the texts."
        )
    words = torch.tensor(asked.known_task.answer_ids(lm), device=lm.device)
    objective = Agreement(Setting(lm, words[:1], probes.before), {})
    objective.know(probes.search, asked.target)
    objective.know(probes.choose, asked.target_choose)
    # Texts take turns by what the prompt answers, so that a race's first few hold what is rare too.
    guesses = [answers.argmax(dim=1) for answers in (asked.target, asked.target_choose)]
    told = telling(guesses[0])
    problem = Problem(
        lm,
        asked.known_task,
        length,
        words[:1],
        probes.search.subset(told.tolist()),
        guesses[0][told],
        probes.choose,
        guesses[1],
        allowed,
    )
    search = MatchSearch(problem, objective, options, 1000, asked.seed)
    if left or right:
        search.stand_between(left, right)
    off = not asked.progress
    with tqdm(total=options.evaluations, desc=method, disable=off, leave=False) as bar:
        while not search.finished:
            before = objective.evaluations
            search.step()
            bar.update(objective.evaluations - before)
    empty = float(kl_from(lm, asked.target_choose, [[]], probes.choose).mean())
    return asked.reading(
        search.token_ids,
        method,
        score=closed(float(search.path["kl_vocab"][search.path["chosen"]].iloc[0]), empty),
        score_unit="share of KL closed",
        frame=_shown(asked, search.path, empty),
    )


def telling(answers: Tensor) -> Tensor:
    """Texts to search on: of the commonest answer no more than of all others together.

    A question that most texts leave open is told apart by the few that answer it.
    """
    commonest = answers == answers.mode().values
    most = max(LEAST, int((~commonest).sum()))
    kept = ~commonest | (commonest.cumsum(dim=0) <= most)
    return kept.nonzero()[:, 0].cpu()


def _shown(asked: Asked, path: pd.DataFrame, empty: float) -> pd.DataFrame:
    texts = [asked.lm.decode(row) for row in path["token_ids"]]
    shares = [closed(value, empty) for value in path["kl_vocab"]]
    path = path.assign(text=texts, closed=shares).sort_values("nats_per_token", ignore_index=True)
    order = ["text", "kl_vocab", "closed", "nats_per_token", "nats_after_texts", "on_path"]
    return path[[*order, "chosen", "token_ids"]]
