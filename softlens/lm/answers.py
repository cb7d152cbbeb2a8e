"""The first primitive: answer scores of prompts on texts, at the answer position.

Text before the prompt: its keys and values come from memory, and only prompt positions are
forwarded. Prompt before the text: packed rows. Both are tested against the plain forward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from softlens.errors import SoftlensError
from softlens.lm import transformer
from softlens.lm.frozen import LM
from softlens.lm.texts import CHUNK_TOKENS, EncodedTexts, logits_together

# Prompts are folded onto the query axis up to this many positions: beyond, the block-diagonal
# mask wastes more than the shared cache saves.
FOLD_TOKENS = 128
# Where texts are forwarded with each prompt, so many positions of prompts on one text at most.
ROW_TOKENS = 8 * CHUNK_TOKENS

Prompts = (
    Float[Tensor, "prompts length hidden"]
    | Sequence[Float[Tensor, "_ hidden"]]
    | Sequence[Sequence[int]]
)
"""Soft vectors (one tensor, or one for each prompt), or token ids; a length of 0 is empty."""
Hears = Callable[[int], None]
"""Hears of pairs of a prompt and a text, as they are scored."""


def answer_logits(
    lm: LM,
    prompts: Prompts,
    texts: EncodedTexts,
    words: Int[Tensor, " words"] | None = None,
) -> Float[Tensor, "prompts texts answers"]:
    """Logits of the next token after each text and prompt in the texts' template.

    Args:
        lm: the LM.
        prompts: P soft prompts as a float tensor (P, length, hidden), through which gradients
            flow, or P sequences of token ids.
        texts: T encoded texts.
        words: token ids whose logits are wanted; None for the whole vocabulary.

    Returns:
        Logits, float32 (float64 of a float64 LM). One forward of all pairs: split large sets with
        `score_answers`, which is built for that.

    Raises:
        SoftlensError: for vectors of another width, or rows longer than the LM's context.
    """
    vectors, sizes = as_vectors(lm, prompts, texts)
    hidden = _answer_states(lm, vectors, sizes, texts)
    return lm.logits(hidden.transpose(0, 1), words)


def answer_logits_each(
    lm: LM,
    prompts: Float[Tensor, "texts prompts length hidden"],
    texts: EncodedTexts,
    words: Int[Tensor, " words"] | None = None,
) -> Float[Tensor, "texts prompts answers"]:
    """`answer_logits` where every text has prompts of its own, for gradients text by text."""
    count, length = prompts.shape[1:3]
    if not is_fast(lm, length, texts) or not texts.text_first or not length:
        rows = [answer_logits(lm, p, texts.subset([t]), words) for t, p in enumerate(prompts)]
        return torch.cat(rows, dim=1).transpose(0, 1)
    tail = lm.embed(texts.afters[0]).expand(len(texts), count, -1, -1)
    longer = torch.cat([prompts.to(lm.device), tail], dim=2)
    states = transformer.after_texts(lm.model, texts.prefix(), longer)
    return lm.logits(states[:, :, -1], words)


@dataclass(frozen=True)
class AnswerScores:
    """Scores of P prompts on T texts over A answer words.

    Attributes:
        log_probs: log-probability of each answer word, normalised over the whole vocabulary,
            nats, shape (prompts, texts, answers).
        top_ids: the most probable token of the whole vocabulary, shape (prompts, texts).
    """

    log_probs: Float[Tensor, "prompts texts answers"]
    top_ids: Int[Tensor, "prompts texts"]


@torch.no_grad()
def score_answers(
    lm: LM,
    prompts: Prompts,
    texts: EncodedTexts,
    words: Int[Tensor, " words"],
    hears: Hears = lambda pairs: None,
) -> AnswerScores:
    """Log-probabilities of `words` for every prompt on every text, in chunks that fit a laptop.

    Args:
        lm: the LM.
        prompts: token ids or vectors, shape (length, hidden), of any lengths.
        texts: what `LM.encode_texts` gave.
        words: ids of the label words.
        hears: hears of each chunk how many pairs of a prompt and a text it had.
    """
    count = len(prompts)
    log_probs = torch.empty(count, len(texts), len(words))
    top_ids = torch.empty(count, len(texts), dtype=torch.long)
    for some_prompts, some_texts, logits in answer_chunks(lm, prompts, texts):
        at = torch.tensor(some_prompts)[:, None], torch.tensor(some_texts)[None, :]
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        log_probs[at] = (logits[..., words] - normaliser).cpu()
        top_ids[at] = logits.argmax(dim=-1).cpu()
        hears(len(some_prompts) * len(some_texts))
    return AnswerScores(log_probs, top_ids)


@torch.no_grad()
def word_logits(
    lm: LM, prompts: Prompts, texts: EncodedTexts, words: Int[Tensor, " words"] | None
) -> Float[Tensor, "prompts texts answers"]:
    """`answer_logits` without gradients, in chunks: for many prompts on many texts."""
    count = lm.vocab_size if words is None else len(words)
    found = torch.empty(len(prompts), len(texts), count, device=lm.device)
    for some_prompts, some_texts, logits in answer_chunks(lm, prompts, texts, words):
        found[torch.tensor(some_prompts)[:, None], torch.tensor(some_texts)[None, :]] = logits
    return found


@torch.no_grad()
def answer_chunks(
    lm: LM, prompts: Prompts, texts: EncodedTexts, words: Int[Tensor, " words"] | None = None
) -> Iterator[tuple[list[int], list[int], Float[Tensor, "prompts texts answers"]]]:
    """Yield (prompt indices, text indices, logits of `words` or of all tokens), part by part."""
    vectors, sizes = as_vectors(lm, prompts, texts)
    together, each = folded(lm, vectors.shape[1], texts)
    together = min(len(sizes), together)
    # Logits over a large vocabulary, not hidden states, are what fills the memory.
    most_pairs = logits_together(lm.vocab_size if words is None else len(words))
    for chosen in texts.chunks(together * each, min(CHUNK_TOKENS, most_pairs * each)):
        part = texts.subset(chosen)
        for start in range(0, len(sizes), together):
            stop = min(start + together, len(sizes))
            hidden = _answer_states(lm, vectors[start:stop], sizes[start:stop], part)
            logits = lm.logits(hidden.transpose(0, 1), words).float()
            yield list(range(start, stop)), chosen, logits


def is_fast(lm: LM, length: int, texts: EncodedTexts) -> bool:
    """Whether prompts of `length` positions on `texts` take the fast layouts."""
    return lm.path != "plain" and length + texts.longest <= lm.fast_length


def folded(lm: LM, length: int, texts: EncodedTexts) -> tuple[int, int]:
    """How many prompts of `length` are asked at once, and the positions of one on one text.

    The fast path does not forward a text before the prompt again; all else has it in every row.
    """
    each = max(1, length)
    rows = each + texts.longest
    positions = each if texts.text_first and is_fast(lm, length, texts) else rows
    return max(1, min(FOLD_TOKENS // each, ROW_TOKENS // positions)), positions


def as_vectors(
    lm: LM, prompts: Prompts, texts: EncodedTexts | None = None
) -> tuple[Float[Tensor, "prompts length hidden"], Int[Tensor, " prompts"]]:
    """Prompts as padded vectors and their lengths, checked against the LM and the texts."""
    if not len(prompts):
        raise SoftlensError("Got no prompts, wanted at least one.")
    soft = [p for p in prompts if isinstance(p, Tensor) and p.is_floating_point()]
    if len(soft) == len(prompts):
        for prompt in soft:
            if prompt.ndim != 2 or prompt.shape[1] != lm.hidden_size:
                raise SoftlensError(
                    f"Got prompt vectors of shape {tuple(prompt.shape)}, wanted (length, "
                    f"{lm.hidden_size}) for {lm.name!r}. Was the prompt trained on another LM?"
                )
        sizes = torch.tensor([len(prompt) for prompt in soft], device=lm.device)
        whole = prompts if isinstance(prompts, Tensor) else pad_sequence(soft, batch_first=True)
        vectors = whole.to(lm.device)
    else:
        rows = [[int(i) for i in row] for row in prompts]
        outside = sorted({i for row in rows for i in row if not 0 <= i < lm.vocab_size})
        if outside:
            raise SoftlensError(
                f"Got token ids {outside[:5]}, wanted 0 to {lm.vocab_size - 1}, the rows of the "
                f"embedding of {lm.name!r}."
            )
        width = max((len(row) for row in rows), default=0)
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long)
        vectors = lm.embedding[padded.to(lm.device)]
        sizes = torch.tensor([len(row) for row in rows], device=lm.device)
    if texts is not None and vectors.shape[1] + texts.longest > lm.context_length:
        raise SoftlensError(
            f"A prompt of {vectors.shape[1]} tokens and a text of {texts.longest} exceed the "
            f"{lm.context_length} positions of {lm.name!r}. Shorten the prompt, or encode the "
            "texts with truncate=True."
        )
    if texts is not None and not texts.shortest and not int(sizes.min()):
        raise SoftlensError(
            "Got a row without a single token, after which nothing can be asked: no BOS, no text, "
            "no words of a template and an empty prompt. Give a prompt, a template with words of "
            "its own, or load the LM with bos=True; where words of a text are absent, "
            "absent='mean_embedding' keeps their places."
        )
    return vectors, sizes


def _answer_states(
    lm: LM, vectors: Tensor, sizes: Tensor, texts: EncodedTexts
) -> Float[Tensor, "texts prompts hidden"]:
    if not is_fast(lm, vectors.shape[1], texts):
        return transformer.plain(lm.model, texts.befores, vectors, sizes, texts.afters)[1]
    if texts.text_first:
        vectors, sizes = _with_suffix(lm, vectors, sizes, texts.afters[0])
        prefix = texts.prefix()
        if vectors.shape[1] == 0:
            return prefix.last_hidden[:, None].expand(-1, len(sizes), -1)
        states = transformer.after_texts(lm.model, prefix, vectors)
        picked = states[:, torch.arange(len(sizes), device=lm.device), sizes.clamp(min=1) - 1]
        empty = (sizes == 0)[None, :, None]
        return torch.where(empty, prefix.last_hidden[:, None].to(picked.dtype), picked)
    if len(set(texts.befores)) > 1:
        raise SoftlensError("Texts must stand on one side of the prompt, before or after it.")
    return transformer.packed(lm.model, texts.befores[0], vectors, sizes, texts.afters)


def _with_suffix(
    lm: LM, vectors: Tensor, sizes: Tensor, suffix: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Append the fixed tokens after the prompt; shorter prompts have them where they end."""
    if not suffix:
        return vectors, sizes
    tail = lm.embed(suffix)
    if bool((sizes == vectors.shape[1]).all()):
        return torch.cat([vectors, tail.expand(len(sizes), -1, -1)], dim=1), sizes + len(tail)
    rows = [torch.cat([v[:n], tail]) for v, n in zip(vectors, sizes.tolist(), strict=True)]
    return pad_sequence(rows, batch_first=True), sizes + len(tail)
