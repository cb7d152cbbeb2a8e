"""What is proposed and where: the prompts of one step, and what stays the same for a run.

Task losses and proxies read from here, so that a surprisal or a label's logit that two of them need
is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.lm import (
    LM,
    EncodedTexts,
    answer_logits,
    score_answers,
    token_surprisal,
    word_logits,
)
from softlens.people import span_band


@dataclass(frozen=True)
class Setting:
    """What stays the same for all proposals of a run.

    Attributes:
        lm: the LM that is tuned.
        words: ids of the label words.
        before: a few real training texts that stand before the prompt; None where the template
            puts the text behind it.
        judge: another LM, which no tuner sees.
        description: the user's description of the task.
    """

    lm: LM
    words: Int[Tensor, " classes"]
    before: EncodedTexts | None = None
    judge: LM | None = None
    description: str | None = None

    @cached_property
    def described(self) -> Float[Tensor, " hidden"]:
        """Mean embedding of the description's tokens, relative to the vocabulary's mean."""
        ids = self.lm.encode(self.description or "", leading_space=True)
        return (self.lm.embed(ids) - self.lm.embedding.mean(dim=0)).mean(dim=0)

    def band(self, length: int) -> tuple[float, float]:
        """`softlens.people.span_band` of the texts before the prompt."""
        return span_band(self.lm, self.before, length)


@dataclass(frozen=True)
class Proposals:
    """Prompts to be judged, and what the proxies share about them, computed at most once.

    Attributes:
        setting: of the run.
        ids: tokens of each prompt; of a soft one, the nearest.
        vectors: what the LM is fed; gradients reach them.
        free: the continuous copy of a tuner that projects, else the same as `vectors`.
        texts: texts of the batch that task losses are taken on, if any.
        policy: log-probability of each token under the tuner's own policy, if it has one.
    """

    setting: Setting
    ids: Int[Tensor, "prompts length"]
    vectors: Float[Tensor, "prompts length hidden"]
    free: Float[Tensor, "prompts length hidden"] | None = None
    texts: EncodedTexts | None = None
    policy: Float[Tensor, "prompts length"] | None = None

    @classmethod
    def of_ids(
        cls,
        setting: Setting,
        rows: Sequence[Sequence[int]],
        texts: EncodedTexts | None = None,
        policy: Float[Tensor, "prompts length"] | None = None,
    ) -> Proposals:
        """Hard prompts of one length."""
        ids = torch.tensor([list(row) for row in rows], device=setting.lm.device)
        return cls(setting, ids, setting.lm.embedding[ids], texts=texts, policy=policy)

    @cached_property
    def surprisal(self) -> Float[Tensor, "prompts length"]:
        """Nats of each token after BOS (and a full stop where BOS is an attention sink)."""
        return token_surprisal(self.setting.lm, self.ids.tolist(), vectors=self.vectors)[:, 0]

    @cached_property
    def surprisal_as_targets(self) -> Float[Tensor, "prompts length"]:
        """The same numbers; gradients reach a token also as what is predicted."""
        rows = self.ids.tolist()
        lm = self.setting.lm
        return token_surprisal(lm, rows, vectors=self.vectors, as_targets=True)[:, 0]

    @cached_property
    def surprisal_after_texts(self) -> Float[Tensor, "prompts length"]:
        """Nats of each token where the prompt will stand: after real texts, their mean."""
        rows, before = self.ids.tolist(), self.setting.before
        return token_surprisal(self.setting.lm, rows, before, self.vectors).mean(dim=1)

    @cached_property
    def word_logits(self) -> Float[Tensor, "prompts texts classes"]:
        """Logits of the label words on the batch's texts."""
        lm, words = self.setting.lm, self.setting.words
        assert self.texts is not None
        ask = answer_logits if self.vectors.requires_grad else word_logits
        return ask(lm, self.vectors, self.texts, words)

    @cached_property
    def word_log_probs(self) -> Float[Tensor, "prompts texts classes"]:
        """Their log-probabilities among all tokens, which costs the whole head."""
        lm, words = self.setting.lm, self.setting.words
        assert self.texts is not None
        if self.vectors.requires_grad:
            return answer_logits(lm, self.vectors, self.texts).log_softmax(dim=-1)[..., words]
        return score_answers(lm, self.vectors, self.texts, words).log_probs.to(lm.device)

    @property
    def judged(self) -> list[str]:
        """The prompts' texts, for another LM."""
        return [self.setting.lm.decode(row) for row in self.ids.tolist()]
