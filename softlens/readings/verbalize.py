"""The LM itself says what the vectors mean.

The vectors stand in a sentence that asks for their meaning, and the LM goes on. After Patchscopes
(Ghandeharioun et al. 2024, arXiv 2401.06102) and InSPEcT (arXiv 2410.11660).
"""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from softlens.behaviour import closed, kl_from
from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts, word_logits
from softlens.prompts import lacking
from softlens.readings.base import Reading, tokens_of
from softlens.readings.registry import Asked, reader

BLANK = "__"
FRAMES = {
    "means": 'The words "__" mean',
    "asks": 'The instruction "__" asks for the',
    "about": 'A text that ends with "__" is about',
    "summary": "__\nIn other words,",
}
"""Sentences that ask for a meaning. On an LM that lacks their words, only `REPEAT` is used."""
CHAT = 'What do these words ask for? Answer in a few words. "__"'
REPEAT, PAIRS = "repeat", 3
"""Patchscopes' identity: tokens said twice, then the vectors once."""
ENDS = ('"', "\n", ".", ";")


@reader(
    needs_task=False,
    source="Patchscopes (arXiv 2401.06102); InSPEcT (arXiv 2410.11660)",
    fails="the prompt's behaviour leaks into the description; a small LM describes nothing",
)
def verbalize(
    asked: Asked,
    *,
    length: int = 8,
    draws: int = 3,
    frames: Sequence[str] | None = None,
) -> Reading:
    """What the LM says when a sentence asks for the meaning of the vectors.

    Each frame is continued greedily and `draws` times at random, by `length` tokens at most.
    `frames` are your own sentences with ``__`` for the vectors; None uses those of this module,
    the chat frame of an instructed LM, and repetition. What follows the vectors in a sentence does
    so after a space.

    `frame`: ``asked, text, nats_per_token`` (of the description, where it was said) and, with a
    task, ``kl_vocab, closed`` of it as a prompt. With a task the most faithful one is the reading
    (`score` is its share of KL closed), else the least surprising: nothing else says which frame to
    believe.

    Raises:
        SoftlensError: a frame without ``__``, or in words that the LM does not have.
    """
    lm = asked.lm
    if length < 1 or draws < 0:
        raise SoftlensError(f"Got length={length}, draws={draws}, wanted at least 1 and 0.")
    generator = torch.Generator().manual_seed(asked.seed)
    found: dict[tuple[int, ...], tuple[str, float]] = {}
    for name, left, right in _frames(lm, frames):
        for ids, nats in _continued(asked, left, right, length, 1 + draws, generator):
            if ids not in found or nats < found[ids][1]:
                found[ids] = (name, nats)
    rows = list(found)
    table = pd.DataFrame(
        {
            "asked": [name for name, _ in found.values()],
            "text": [lm.decode(ids) for ids in rows],
            "nats_per_token": [nats for _, nats in found.values()],
        }
    )
    if asked.task is None:
        best = int(table["nats_per_token"].argmin())
        score = {"score": float(table["nats_per_token"][best]), "score_unit": "nats per token"}
    else:
        texts = asked.probes.choose
        divergences = kl_from(lm, asked.target_choose, [*rows, []], texts).mean(dim=1).tolist()
        table["kl_vocab"] = divergences[:-1]
        table["closed"] = [closed(each, divergences[-1]) for each in divergences[:-1]]
        best = int(table["kl_vocab"].argmin())
        score = {"score": float(table["closed"][best]), "score_unit": "share of KL closed"}
    return asked.reading(rows[best], "verbalize", frame=table, **score)


def _frames(lm: LM, own: Sequence[str] | None) -> Iterator[tuple[str, list[int], list[int]]]:
    """Each frame's name, and its tokens before and after the vectors."""
    for name, sentence in (FRAMES if own is None else {s: s for s in own}).items():
        if sentence.count(BLANK) != 1:
            raise SoftlensError(
                f"The frame {sentence!r} holds {BLANK!r} {sentence.count(BLANK)} times, wanted "
                "once: where the vectors stand."
            )
        if own is None and any(lacking(lm, side) for side in sentence.split(BLANK)):
            continue
        left, right = (tokens_of(lm, side, "frame") for side in sentence.split(BLANK))
        yield name, left, right
    if own is not None:
        return
    if getattr(lm.tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": CHAT}]
        whole = lm.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before, quote, after = str(whole).partition(f'"{BLANK}"')
        left, after = lm.encode(before + quote[:1]), quote[-1:] + after
        yield "chat", left[1:] if tuple(left[:1]) == lm.text_start else left, lm.encode(after)
    spread = lm.ordinary_ids[:: max(1, len(lm.ordinary_ids) // PAIRS)][:PAIRS].tolist()
    yield REPEAT, [index for index in spread for _ in range(2)], []


@torch.no_grad()
def _continued(
    asked: Asked,
    left: list[int],
    right: list[int],
    length: int,
    count: int,
    generator: torch.Generator,
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Continuations of one frame, the first greedy, and their nats per token."""
    lm = asked.lm
    row = (*lm.text_start, *left)
    place = EncodedTexts((row,), ((),), ("frame",), lm.cache, lm.cache.divide([row]))
    start = torch.cat([asked.prompt.vectors.to(lm.device), lm.embed(right)])
    ordinary = torch.zeros(lm.vocab_size, dtype=torch.bool)
    ordinary[lm.ordinary_ids] = True
    said: list[list[int]] = [[] for _ in range(count)]
    nats, going = [0.0] * count, set(range(count))
    for step in range(length):
        rows = [torch.cat([start, lm.embed(ids)]) for ids in said]
        logits = word_logits(lm, rows, place, None)[:, 0].cpu()
        if step == 0:
            # A description begins with a word, whatever else the LM would rather do.
            logits = logits.masked_fill(~ordinary, -torch.inf)
        log_probs = logits.log_softmax(dim=-1)
        for i in sorted(going):
            token = _next(log_probs[i], i > 0, generator)
            ends = any(mark in lm.token(token) for mark in ENDS)
            if not ordinary[token] or (ends and said[i]):
                going.discard(i)
                continue
            said[i].append(token)
            nats[i] -= float(log_probs[i, token])
        if not going:
            break
    for ids, total in zip(said, nats, strict=True):
        yield tuple(ids), total / len(ids)


def _next(log_probs: Tensor, drawn: bool, generator: torch.Generator) -> int:
    if drawn:
        return int(torch.multinomial(log_probs.exp(), 1, generator=generator))
    return int(log_probs.argmax())
