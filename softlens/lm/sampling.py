"""Prompts drawn from the LM itself: with replacement, or each at most once.

A frozen LM repeats what is likely: of ten thousand draws most are copies of a few. Without
replacement every draw is a new prompt, and what is rare comes up after what is common.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.lm.answers import answer_chunks
from softlens.lm.frozen import LM
from softlens.lm.surprisals import Context, context_texts, default_context
from softlens.lm.texts import EncodedTexts


@dataclass(frozen=True)
class Drawn:
    """Distinct prompts, the likeliest first.

    Attributes:
        ids: token ids, shape (prompts, length).
        nats: mean surprisal per token where they were drawn, under the LM restricted to the
            allowed tokens; of a prompt drawn after several texts, the lowest.
        counts: how often each was drawn; 1 without replacement.
    """

    ids: Int[Tensor, "prompts length"]
    nats: Float[Tensor, " prompts"]
    counts: Int[Tensor, " prompts"]

    def __len__(self) -> int:
        return len(self.ids)


@torch.no_grad()
def draw_prompts(
    lm: LM,
    length: int,
    count: int,
    generator: torch.Generator,
    context: Context | None = None,
    allowed: Bool[Tensor, " vocab"] | None = None,
    replacement: bool = False,
    temperature: float = 1.0,
) -> Drawn:
    """Draw `count` prompts of `length` tokens from the LM.

    Without replacement they are a stochastic beam: the `count` highest of all sequences after
    Gumbel noise, found by one pass from left to right (Kool, van Hoof, Welling 2019, "Stochastic
    Beams and Where to Find Them", arXiv 1903.06059). With replacement, draws that share their
    beginning share its forward pass; equal ones are merged and counted.

    Args:
        lm: the LM.
        length: tokens of each prompt.
        count: how many; over several contexts they are divided evenly.
        generator: the source of chance (on the CPU).
        context: what stands before, as in `token_surprisal`; None means `default_context`.
        allowed: the tokens that may be drawn; all by default.
        replacement: whether a prompt may be drawn twice.
        temperature: below one, likely prompts are drawn more often than the LM says them; `nats`
            stay those of the LM itself.

    Raises:
        SoftlensError: for a length or a count below one, a temperature that is not above zero, or
            if no token is allowed.
    """
    if not temperature > 0:
        raise SoftlensError(
            f"Got temperature {temperature}, wanted more than 0; 1 is the LM's own."
        )
    if length < 1 or count < 1:
        raise SoftlensError(f"Got length {length} and count {count}, wanted at least 1 of each.")
    if allowed is not None and not allowed.any():
        raise SoftlensError("No token is allowed, so there is nothing to draw.")
    texts = context_texts(lm, default_context(lm) if context is None else context)
    every = max(1, -(-count // len(texts)))
    grow = _with_replacement if replacement else _without_replacement
    found = [
        grow(
            lm,
            texts.subset([i]),
            length,
            min(every, count - i * every),
            generator,
            allowed,
            temperature,
        )
        for i in range(len(texts))
        if count > i * every
    ]
    return _merged(*(torch.cat(parts) for parts in zip(*found, strict=True)))


Grown = tuple[Tensor, Tensor, Tensor]


def _without_replacement(
    lm: LM,
    text: EncodedTexts,
    length: int,
    count: int,
    generator: torch.Generator,
    allowed: Tensor | None,
    temperature: float,
) -> Grown:
    rows = torch.empty(1, 0, dtype=torch.long)
    # Of what is drawn from (the LM at a temperature), and of the LM itself.
    log_prob, own, noisy = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    for _ in range(length):
        parents, tokens, scores, owns, noise = [], [], [], [], []
        for some, next_log_probs in _next(lm, rows, text, allowed):
            child = log_prob[some, None] + _at(temperature, next_log_probs)
            perturbed = _conditioned(child, noisy[some], generator)
            # A prefix has at most `count` children among the best `count` of all.
            best = perturbed.flatten().topk(min(count, perturbed.numel()))
            real = best.values > -torch.inf
            flat = best.indices[real]
            parents.append(some[flat // child.shape[1]])
            tokens.append(flat % child.shape[1])
            scores.append(child.flatten()[flat])
            owns.append((own[some, None] + next_log_probs).flatten()[flat])
            noise.append(best.values[real])
        top = torch.cat(noise).topk(min(count, sum(map(len, noise)))).indices
        rows = torch.cat([rows[torch.cat(parents)[top]], torch.cat(tokens)[top, None]], dim=1)
        log_prob, own, noisy = (torch.cat(parts)[top] for parts in (scores, owns, noise))
    return rows, -own / length, torch.ones(len(rows), dtype=torch.long)


def _conditioned(
    child: Float[Tensor, "rows vocab"], parent: Float[Tensor, " rows"], generator: torch.Generator
) -> Float[Tensor, "rows vocab"]:
    """Gumbel noise on log-probabilities, given that each row's maximum is its parent's value.

    Kool et al., appendix B.3, in the form that neither overflows nor cancels.
    """
    uniform = torch.rand(child.shape, generator=generator).clamp_(1e-20, 1 - 1e-7)
    noisy = child - (-uniform.log()).log()
    gap = (noisy - noisy.amax(dim=1, keepdim=True)).clamp(max=-1e-7)
    shift = parent[:, None] - noisy + torch.log1p(-gap.exp())
    conditioned = parent[:, None] - shift.relu() - torch.log1p((-shift.abs()).exp())
    return conditioned.masked_fill(child == -torch.inf, -torch.inf)


def _with_replacement(
    lm: LM,
    text: EncodedTexts,
    length: int,
    count: int,
    generator: torch.Generator,
    allowed: Tensor | None,
    temperature: float,
) -> Grown:
    rows = torch.empty(1, 0, dtype=torch.long)
    log_prob, counts = torch.zeros(1), torch.tensor([count])
    for _ in range(length):
        parents, tokens, scores, numbers = [], [], [], []
        for some, next_log_probs in _next(lm, rows, text, allowed):
            shares = _at(temperature, next_log_probs).exp()
            for row, parent in enumerate(some.tolist()):
                drawn = torch.multinomial(
                    shares[row], int(counts[parent]), replacement=True, generator=generator
                )
                token, times = drawn.unique(return_counts=True)
                parents += [parent] * len(token)
                tokens.append(token)
                scores.append(log_prob[parent] + next_log_probs[row, token])
                numbers.append(times)
        rows = torch.cat([rows[torch.tensor(parents)], torch.cat(tokens)[:, None]], dim=1)
        log_prob, counts = torch.cat(scores), torch.cat(numbers)
    return rows, -log_prob / length, counts


def _at(temperature: float, log_probs: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    return log_probs if temperature == 1 else (log_probs / temperature).log_softmax(dim=-1)


def _next(
    lm: LM, rows: Int[Tensor, "prompts length"], text: EncodedTexts, allowed: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of prefixes, and log-probabilities of their next token, part by part."""
    for some, _, logits in answer_chunks(lm, rows.tolist(), text):
        scores = logits[:, 0]
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        yield torch.tensor(some), scores.log_softmax(dim=-1).cpu()


def _merged(ids: Tensor, nats: Tensor, counts: Tensor) -> Drawn:
    distinct, where = ids.unique(dim=0, return_inverse=True)
    lowest = torch.full((len(distinct),), torch.inf).scatter_reduce(0, where, nats, "amin")
    total = torch.zeros(len(distinct), dtype=torch.long).scatter_add(0, where, counts)
    order = lowest.argsort(stable=True)
    return Drawn(distinct[order], lowest[order], total[order])
