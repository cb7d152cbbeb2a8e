"""RLPrompt's policy: a frozen LM says a prompt token by token, with an adaptor on its last state.

The adaptor is a perceptron of one hidden layer between the LM's last hidden state and its head
(Deng et al. 2022, RLPrompt, arXiv 2205.12548, section 3.2, and its code). Since the LM is frozen,
its state after a prefix is computed once in a run, whoever asks: the policy, its target network, or
a later step.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softlens.lm import LM, default_context
from softlens.lm.answers import folded, is_fast
from softlens.lm.surprisals import context_texts
from softlens.lm.transformer import after_texts, plain
from softlens.tuners.memory import MEMORY_BYTES, Recent, Row
from softlens.tuners.soft_q import sparse_maximum, sparsemax

Start = Literal["random", "lm"]
"""An adaptor that knows nothing, as published, or one that begins as the LM itself."""
RANDOM_GAIN = 1e-4
"""Scale of the published start: all tokens nearly alike, chance decides which come first."""


class PrefixStates:
    """The LM's last hidden state after the context (`default_context`) and a prefix."""

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self._context = context_texts(lm, default_context(lm))
        self._known: Recent[Tensor] = Recent(MEMORY_BYTES // (4 * lm.hidden_size))

    def __call__(self, rows: Sequence[Row]) -> Float[Tensor, "rows hidden"]:
        """States that predict what follows each of `rows`, which are of one length."""
        found = {row: self._known[row] for row in dict.fromkeys(rows) if row in self._known}
        new = [row for row in dict.fromkeys(rows) if row not in found]
        together, _ = folded(self.lm, len(rows[0]), self._context)
        for start in range(0, len(new), together):
            some = new[start : start + together]
            for row, state in zip(some, self._computed(some), strict=True):
                self._known[row] = found[row] = state
        return torch.stack([found[row] for row in rows])

    @torch.no_grad()
    def _computed(self, rows: Sequence[Row]) -> Float[Tensor, "rows hidden"]:
        lm, texts = self.lm, self._context
        vectors = torch.stack([lm.embed(row) for row in rows])
        length = vectors.shape[1]
        if not is_fast(lm, length, texts):
            sizes = torch.full((len(rows),), length, device=lm.device)
            return plain(lm.model, texts.befores, vectors, sizes, texts.afters)[1][0].float()
        prefix = texts.prefix()
        if length == 0:
            return prefix.last_hidden.float().expand(len(rows), -1)
        return after_texts(lm.model, prefix, vectors)[0, :, -1].float()


class Adaptor(torch.nn.Module):
    """``last(relu(first(state)))``, added to the state where `start` is "lm".

    Args:
        hidden: width of the LM's states.
        width: of the hidden layer.
        start: "random": published, Xavier weights of a tiny gain; "lm": the last layer is zero.
        generator: the source of chance.
    """

    def __init__(self, hidden: int, width: int, start: Start, generator: torch.Generator) -> None:
        super().__init__()
        self.residual = start == "lm"
        # Without torch's own start, which would draw from its global generator.
        self.first = torch.nn.utils.skip_init(torch.nn.Linear, hidden, width)
        self.last = torch.nn.utils.skip_init(torch.nn.Linear, width, hidden)
        gain = 1.0 if self.residual else RANDOM_GAIN
        for layer in (self.first, self.last):
            torch.nn.init.xavier_uniform_(layer.weight, gain, generator=generator)
            torch.nn.init.constant_(layer.bias, 0.0 if self.residual else -RANDOM_GAIN)
        if self.residual:
            torch.nn.init.zeros_(self.last.weight)

    def forward(self, states: Float[Tensor, "states hidden"]) -> Float[Tensor, "states hidden"]:
        """What the head gets in the place of the LM's own states."""
        change = self.last(self.first(states).relu())
        return states + change if self.residual else change


@dataclass(frozen=True)
class Episodes:
    """Prompts that a policy said, and what it thought of them; gradients reach the policy.

    Attributes:
        rows: the prompts.
        greedy: the prompt made of the policy's first choices.
        states: the LM's states after the distinct prefixes.
        own: the LM's own logits in these states, -inf for what may not be said; None if unused.
        where: in which of the states each token was chosen.
        log_probs: of each token under the policy that drew it, nats.
        q: value Q of each token, as `Policy.q`.
        v: value V of the state it was chosen in, as `Policy.v`.
        entropy: of the policy, nats a token: the mean over the choices it made.
    """

    rows: list[Row]
    greedy: Row
    states: Float[Tensor, "states hidden"]
    own: Float[Tensor, "states vocab"] | None
    where: Int[Tensor, "prompts length"]
    log_probs: Float[Tensor, "prompts length"]
    q: Float[Tensor, "prompts length"]
    v: Float[Tensor, "prompts length"]
    entropy: float

    def own_log_probs(self) -> Float[Tensor, "prompts length"]:
        """Of each token under the LM itself, among the tokens that may be said."""
        assert self.own is not None
        return self.own.log_softmax(dim=-1)[self.where, torch.tensor(self.rows)]


class Policy:
    """What each next token of a prompt is worth, and how likely the policy is to say it.

    Args:
        lm: the frozen LM that says prompts.
        allowed: the tokens that may be said.
        start: of the adaptor.
        width: of its hidden layer.
        top_k: only so many of the most valued tokens are drawn from (published: 256).
        fluency: only so many tokens may be said, those likeliest under the LM in each state.
        sparse: values become probabilities by sparsemax, which makes most of them 0, as in PIN
            (Choi et al. 2024, arXiv 2407.14733); else by softmax.
        needs_own: whether the LM's own logits are wanted in `Episodes`.
        generator: the source of chance (on the CPU).
    """

    def __init__(
        self,
        lm: LM,
        allowed: Bool[Tensor, " vocab"],
        start: Start,
        width: int,
        generator: torch.Generator,
        top_k: int | None = None,
        fluency: int | None = None,
        sparse: bool = False,
        needs_own: bool = False,
    ) -> None:
        self.lm, self.allowed, self.generator = lm, allowed, generator
        self.top_k, self.fluency, self.sparse = top_k, fluency, sparse
        self.states = PrefixStates(lm)
        self.adaptor = Adaptor(lm.hidden_size, width, start, generator).to(lm.device)
        self.target = deepcopy(self.adaptor).requires_grad_(False)
        self._needs_own = needs_own or fluency is not None or self.adaptor.residual

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return list(self.adaptor.parameters())

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the target network towards the policy by this share of the way."""
        pairs = zip(self.target.parameters(), self.adaptor.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, share)

    @torch.no_grad()
    def own(self, states: Float[Tensor, "states hidden"]) -> Float[Tensor, "states vocab"] | None:
        """The LM's own logits, -inf for tokens that may not be said."""
        if not self._needs_own:
            return None
        own = self.lm.logits(states).masked_fill(~self.allowed, -torch.inf)
        return own if self.fluency is None else _only_highest(own, self.fluency)

    def q(
        self,
        states: Float[Tensor, "states hidden"],
        own: Float[Tensor, "states vocab"] | None,
        target: bool = False,
    ) -> Float[Tensor, "states vocab"]:
        """Value Q of each token, in units of the reward; -inf for those that may not be said.

        From the start "lm" they begin as the LM's log-probabilities: its logits as they are may
        lie at -100, far from any reward.
        """
        adaptor = self.target if target else self.adaptor
        q = self.lm.logits(adaptor(states))
        if own is None:
            return q.masked_fill(~self.allowed, -torch.inf)
        if adaptor.residual:
            q = q - own.logsumexp(dim=-1, keepdim=True)
        return q.masked_fill(own == -torch.inf, -torch.inf)

    def v(self, q: Float[Tensor, "states vocab"]) -> Float[Tensor, " states"]:
        """Value V of a state: the maximum of Q, softened by the entropy that is rewarded."""
        return sparse_maximum(q) if self.sparse else q.logsumexp(dim=-1)

    def log_probs(self, q: Float[Tensor, "states vocab"]) -> Float[Tensor, "states vocab"]:
        """Log-probabilities that tokens are drawn by, nats; -inf for what is never drawn."""
        if self.top_k is not None:
            q = _only_highest(q, self.top_k)
        if not self.sparse:
            return q.log_softmax(dim=-1)
        shares = sparsemax(q)
        # The logarithm of an exact 0 would send NaN back, even where nobody asks for it.
        return torch.where(shares > 0, shares, 1.0).log().masked_fill(shares == 0, -torch.inf)

    def draw(self, count: int, length: int) -> Episodes:
        """Let the policy say `count` prompts of `length` tokens, and its first choices."""
        rows: list[Row] = [()] * (count + 1)
        states, owns, where, chosen, entropies, known = [], [], [], [], [], 0
        for _ in range(length):
            distinct = {row: i for i, row in enumerate(dict.fromkeys(rows))}
            at = torch.tensor([distinct[row] for row in rows[:-1]])
            state = self.states(list(distinct))
            own = self.own(state)
            q = self.q(state, own)
            log_probs = self.log_probs(q)
            shares = log_probs.detach().exp().cpu()
            drawn = torch.multinomial(shares[at], 1, generator=self.generator)[:, 0]
            first = int(q[distinct[rows[-1]]].argmax())
            chosen.append((log_probs[at, drawn], q[at, drawn], self.v(q)[at]))
            entropies.append(torch.special.entr(shares).sum(dim=-1)[at].mean())
            states.append(state)
            owns += [] if own is None else [own]
            where.append(at + known)
            known += len(state)
            rows = [(*row, t) for row, t in zip(rows, [*drawn.tolist(), first], strict=True)]
        log_probs, q, v = (torch.stack(column, dim=1) for column in zip(*chosen, strict=True))
        return Episodes(
            rows=rows[:-1],
            greedy=rows[-1],
            states=torch.cat(states),
            own=torch.cat(owns) if owns else None,
            where=torch.stack(where, dim=1),
            log_probs=log_probs,
            q=q,
            v=v,
            entropy=float(torch.stack(entropies).mean()),
        )

    @torch.no_grad()
    def target_v(self, said: Episodes) -> Float[Tensor, "prompts length"]:
        """V under the target network of the states in which the prompts' tokens were chosen."""
        return self.v(self.q(said.states, said.own, target=True))[said.where]


def _only_highest(values: Float[Tensor, "rows vocab"], count: int) -> Float[Tensor, "rows vocab"]:
    """-inf in the place of all but the `count` highest of each row."""
    if count >= values.shape[-1]:
        return values
    lowest = values.detach().topk(count).values[:, -1:]
    return values.masked_fill(values.detach() < lowest, -torch.inf)
