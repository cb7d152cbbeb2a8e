"""What an LM said of prompts, remembered: a policy that settles says the same ones ever again."""

import math
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from softlens.lm import EncodedTexts
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.proxies import PROXIES

Row = tuple[int, ...]
Value = TypeVar("Value")
MEMORY_BYTES = 1 << 28
"""Of each kind of thing that a run remembers."""


class Recent(Generic[Value]):
    """What was found out about prompts; the least recently asked give way beyond `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self._kept: dict[Row, Value] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, row: Row) -> bool:
        return row in self._kept

    def __getitem__(self, row: Row) -> Value:
        self._kept[row] = self._kept.pop(row)
        return self._kept[row]

    def __setitem__(self, row: Row, value: Value) -> None:
        self._kept.pop(row, None)
        self._kept[row] = value
        if len(self._kept) > self.limit:
            del self._kept[next(iter(self._kept))]


class Memory:
    """What the LM says of prompts, asked once: answers by prompt and text, proxies by prompt.

    Args:
        texts: all texts that may be asked about.
        objective: what is asked, and where it is counted.
    """

    def __init__(self, texts: EncodedTexts, objective: Objective) -> None:
        self.objective = objective
        pairs = zip(texts.befores, texts.afters, strict=True)
        self._column = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        shape = len(self._column), len(objective.setting.words)
        self._blank = torch.full(shape, math.nan)
        self._answers: Recent[Tensor] = Recent(MEMORY_BYTES // self._blank.nbytes)
        self._proxies: Recent[dict[str, Tensor]] = Recent(MEMORY_BYTES >> 12)
        # Two see more than the prompt: the batch of texts, and the policy as it is now.
        policy = {name for name in objective.weights if "policy" in PROXIES[name].needs}
        self._fixed = [n for n in objective.weights if n != "label_mass" and n not in policy]
        self._surprisal = bool(policy)

    def answers(
        self, rows: list[Row], texts: EncodedTexts
    ) -> Float[Tensor, "prompts texts classes"]:
        """Scores of the label words, as `Objective.loss` takes them."""
        columns = torch.tensor(
            [self._column[pair] for pair in zip(texts.befores, texts.afters, strict=True)]
        )
        known = {
            row: self._answers[row] if row in self._answers else self._blank.clone()
            for row in dict.fromkeys(rows)
        }
        unknown: dict[tuple[int, ...], list[Row]] = {}
        for row, asked in known.items():
            gaps = asked[columns, 0].isnan().nonzero()[:, 0].tolist()
            unknown.setdefault(tuple(gaps), []).append(row)
        unknown.pop((), None)
        for missing, some in unknown.items():
            part = texts.subset(missing)
            proposals = Proposals.of_ids(self.objective.setting, some, part)
            found = self.objective.word_scores(proposals).cpu()
            for row, scores in zip(some, found, strict=True):
                known[row][columns[list(missing)]] = scores
        for row, asked in known.items():
            self._answers[row] = asked
        return torch.stack([known[row][columns] for row in rows])

    def proxies(
        self,
        rows: list[Row],
        log_probs: Float[Tensor, "prompts length"],
        texts: EncodedTexts,
        answers: Float[Tensor, "prompts texts classes"],
    ) -> dict[str, Float[Tensor, " prompts"]]:
        """Each proxy's score of each prompt, as its unit says.

        Args:
            rows: the prompts.
            log_probs: of their tokens under the policy, as it is now.
            texts: the batch.
            answers: of the prompts on the batch.
        """
        known = {row: self._proxies[row] for row in dict.fromkeys(rows) if row in self._proxies}
        if new := [row for row in dict.fromkeys(rows) if row not in known]:
            proposals = Proposals.of_ids(self.objective.setting, new)
            self.objective.evaluations += len(new) * self.objective.contexts
            found = {name: PROXIES[name].score(proposals).cpu() for name in self._fixed}
            if self._surprisal:
                found["surprisal"] = proposals.surprisal.cpu()
            for i, row in enumerate(new):
                self._proxies[row] = known[row] = {name: score[i] for name, score in found.items()}
        now = Proposals.of_ids(self.objective.setting, rows, texts, log_probs)
        # What is known takes the place of a cached property, so that no proxy asks again.
        vars(now)["word_log_probs"] = answers.to(log_probs.device)
        if self._surprisal:
            surprisal = torch.stack([known[row]["surprisal"] for row in rows])
            vars(now)["surprisal"] = surprisal.to(log_probs.device)
        return {
            name: torch.stack([known[row][name] for row in rows])
            if name in self._fixed
            else PROXIES[name].score(now).cpu()
            for name in self.objective.weights
        }
