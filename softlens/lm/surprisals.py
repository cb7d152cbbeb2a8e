"""The second primitive: the surprisal of every prompt token in a stated context."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.lm import transformer
from softlens.lm.answers import as_vectors, folded, is_fast
from softlens.lm.frozen import LM
from softlens.lm.texts import CHUNK_TOKENS, EncodedTexts, logits_together

Context = str | EncodedTexts
"""What stands before the prompt: "bos"; "bos.", BOS and a full stop; or texts (text first)."""


def default_context(lm: LM) -> str:
    """``"bos."`` where the first position is an attention sink, else ``"bos"``.

    After BOS alone such an LM predicts noise: the surprisal of a first token there says nothing.
    Where there is no BOS, the full stop stands alone.
    """
    return "bos." if lm.start_id is None or (lm.sink and len(lm.encode(".")) == 1) else "bos"


def token_surprisal(
    lm: LM,
    prompts: Sequence[Sequence[int]],
    context: Context | None = None,
    vectors: Float[Tensor, "prompts length hidden"] | None = None,
    as_targets: bool = False,
) -> Float[Tensor, "prompts contexts length"]:
    """-log p(token | context and the tokens before it), in nats.

    Args:
        lm: the LM.
        prompts: token ids, P sequences; what is scored.
        context: what stands before; None means `default_context`.
        vectors: what the LM is fed in the place of the ids' embeddings (the same shape), for
            gradients with respect to the prompt as *context*; the scored ids stay.
        as_targets: score `vectors` themselves in the place of the ids' rows of the (tied) head,
            so that gradients also reach a token as what is *predicted*.

    Returns:
        Nats, shape (P, contexts, longest prompt); "bos" and "bos." are one context each. Behind
        the end of a shorter prompt stands NaN.

    Raises:
        SoftlensError: for an empty prompt, texts that do not stand before the prompt, or
            `as_targets` on an LM whose head is not its embedding.
    """
    if as_targets and not lm.head.tied:
        raise SoftlensError(
            f"The head of {lm.name!r} is not its input embedding, so that a prompt's vectors are "
            "no rows of it. Use the surprisal of the tokens ('perplexity') instead."
        )
    texts = context_texts(lm, default_context(lm) if context is None else context)
    if min((len(row) for row in prompts), default=0) == 0:
        raise SoftlensError("The surprisal of an empty prompt is not defined; got a length of 0.")
    own, sizes = as_vectors(lm, prompts, texts)
    fed = own if vectors is None else as_vectors(lm, vectors, texts)[0]
    if fed.shape != own.shape:
        raise SoftlensError(
            f"Got vectors of shape {tuple(fed.shape)} for token ids of shape {tuple(own.shape)}."
        )
    ids = transformer.pad(prompts, lm.device)
    together, each = folded(lm, ids.shape[1], texts)
    rows = []
    for start in range(0, len(ids), together):
        pick = slice(start, start + together)
        parts, order = [], []
        for chosen in texts.chunks(len(ids[pick]) * each, _budget(lm, ids.shape[1], each)):
            rows_of = fed[pick] if as_targets else None
            part = texts.subset(chosen)
            parts.append(_nats(lm, part, fed[pick], sizes[pick], ids[pick], rows_of))
            order += chosen
        columns = torch.cat(parts)[torch.tensor(order, device=lm.device).argsort()]
        rows.append(columns.transpose(0, 1))
    beyond = torch.arange(ids.shape[1], device=lm.device)[None] >= sizes[:, None]
    return torch.cat(rows).masked_fill(beyond[:, None], float("nan"))


def context_texts(lm: LM, context: Context) -> EncodedTexts:
    """A context as texts that stand before a prompt."""
    if isinstance(context, EncodedTexts):
        if any(context.afters):
            raise SoftlensError(
                "Surprisal after a text needs texts that stand before the prompt, with nothing "
                "after it. Encode them with the template '{text} {prompt}'."
            )
        return context
    if context == "bos":
        row: tuple[int, ...] = (lm.bos_id,)
    elif context == "bos.":
        row = (*lm.text_start, *lm.encode("."))
    else:
        raise SoftlensError(f"Got context {context!r}, wanted 'bos', 'bos.' or encoded texts.")
    return EncodedTexts((row,), ((),), (context,), lm.cache, lm.cache.divide([row]))


@torch.no_grad()
def next_token_entropy(
    lm: LM, vectors: Float[Tensor, "prompts length hidden"], context: Context | None = None
) -> Float[Tensor, "prompts contexts length"]:
    """Entropy of the LM's prediction after each prompt position, in nats.

    Args:
        lm: the LM.
        vectors: P prompts, fed as they are.
        context: what stands before, as in `token_surprisal`.

    Returns:
        -sum_t p(t | context, vectors up to here) log p(t | ...), at most log(vocabulary).
    """
    texts = context_texts(lm, default_context(lm) if context is None else context)
    fed, sizes = as_vectors(lm, vectors, texts)
    if not fed.shape[1]:
        raise SoftlensError("An empty prompt has no position after which to predict.")
    together, each = folded(lm, fed.shape[1], texts)
    found = torch.empty(len(fed), len(texts), fed.shape[1], device=lm.device)
    for start in range(0, len(fed), together):
        pick = slice(start, start + together)
        for chosen in texts.chunks(len(fed[pick]) * each, _budget(lm, fed.shape[1], each)):
            states = _states(lm, texts.subset(chosen), fed[pick], sizes[pick])
            log_probs = lm.logits(states).log_softmax(dim=-1)
            nats = -(log_probs.exp() * log_probs).sum(dim=-1)
            found[pick, torch.tensor(chosen, device=lm.device)] = nats.transpose(0, 1).float()
    return found


def _budget(lm: LM, length: int, each: int) -> int:
    """Positions forwarded at once: fewer than elsewhere, for the head is over all the vocabulary.

    Of the `each` positions of a prompt on a text, `length` have logits.
    """
    return min(CHUNK_TOKENS, logits_together(lm.vocab_size) * each // length)


def _states(
    lm: LM, texts: EncodedTexts, fed: Tensor, sizes: Tensor
) -> Float[Tensor, "contexts prompts length hidden"]:
    """Final hidden states at each prompt position."""
    if not is_fast(lm, fed.shape[1], texts):
        # One vector more, so that what predicts the token behind the prompt is there, too.
        longer = torch.cat([fed, torch.zeros_like(fed[:, :1])], dim=1)
        afters = [()] * len(texts)
        return transformer.plain(lm.model, texts.befores, longer, sizes + 1, afters)[0][:, :, 1:]
    return transformer.after_texts(lm.model, texts.prefix(), fed)


def _nats(
    lm: LM,
    texts: EncodedTexts,
    fed: Tensor,
    sizes: Tensor,
    ids: Tensor,
    rows: Tensor | None,
) -> Float[Tensor, "contexts prompts length"]:
    if not is_fast(lm, fed.shape[1], texts):
        afters = [()] * len(texts)
        states = transformer.plain(lm.model, texts.befores, fed, sizes, afters)[0]
    else:
        prefix = texts.prefix()
        first = prefix.last_hidden[:, None, None].expand(-1, len(ids), 1, -1)
        states = first
        if fed.shape[1] > 1:
            inner = transformer.after_texts(lm.model, prefix, fed[:, :-1])
            states = torch.cat([first, inner], dim=2)
    logits = lm.logits(states)
    target = ids[None, :, :, None].expand(len(texts), -1, -1, -1)
    if rows is not None:
        logits = logits.scatter(-1, target, lm.head.own(states, rows, ids)[..., None])
    return logits.logsumexp(dim=-1) - logits.gather(-1, target).squeeze(-1)
