"""What an LM does on each text: under the prompt, under readings of it, and under the controls."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.behaviour import kl, log_answers
from softlens.controls import random_prompts
from softlens.framework.texts import Domain
from softlens.lm import LM, EncodedTexts
from softlens.lm.texts import logits_together
from softlens.readings.base import Reading
from softlens.tasks import Task

PROMPT, READING, RETOKENISED = "prompt", "reading", "reading, re-tokenised"
EMPTY, RANDOM = "empty", "random"

Watched = dict[str, dict[str, np.ndarray]]
"""What was seen on each text, by what was scored: arrays of shape (texts,)."""


@torch.no_grad()
def watch(
    lm: LM, task: Task, prompt: Tensor, claims: Sequence[Reading], domain: Domain
) -> tuple[Watched, list[Watched]]:
    """What the prompt and the controls do on each text, and what each reading does."""
    longest = max([len(prompt), *(len(c.token_ids) for c in claims)])
    longest = max(longest, *(len(c.text_ids) for c in claims))
    longest = max(longest, *(len(e.token_ids) for c in claims for e in c.experts), 1)
    encoded = lm.encode_texts(task.template, domain.texts, reserve=longest, truncate=True)
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    lengths = sorted({len(c.token_ids) for c in claims})
    shared: list[Watched] = []
    own: list[list[Watched]] = [[] for _ in claims]
    most = 2 + len(lengths)
    size = logits_together(lm.vocab_size * most)
    for start in range(0, len(encoded), size):
        block = encoded.subset(range(start, min(start + size, len(encoded))))
        target = log_answers(lm, prompt[None], block)[0]
        empty = log_answers(lm, [[]], block)[0]
        shared.append(
            {PROMPT: _seen(target, target, words), EMPTY: _seen(target, empty, words)}
            | {f"{RANDOM} {n}": _seen_random(lm, target, n, block, words) for n in lengths}
        )
        for index, claim in enumerate(claims):
            one = {READING: _seen(target, claim.log_answers(lm, block), words)}
            if not claim.round_trip:
                typed = log_answers(lm, [claim.text_ids], block)[0]
                one[RETOKENISED] = _seen(target, typed, words)
            own[index].append(one)
    whole = _joined(shared)
    found = []
    for claim, blocks in zip(claims, own, strict=True):
        found.append(_joined(blocks) | {RANDOM: whole[f"{RANDOM} {len(claim.token_ids)}"]})
    return {PROMPT: whole[PROMPT], EMPTY: whole[EMPTY]}, found


def _seen(
    target: Float[Tensor, "texts vocab"], other: Float[Tensor, "texts vocab"], words: Tensor
) -> dict[str, np.ndarray]:
    among = target[:, words].log_softmax(dim=-1), other[:, words].log_softmax(dim=-1)
    numbers = {
        "predicted": among[1].argmax(dim=-1),
        "agreement": among[0].argmax(dim=-1) == among[1].argmax(dim=-1),
        "kl_labels": kl(*among).clamp(min=0),
        "kl_vocab": kl(target, other).clamp(min=0),
        "label_mass": other[:, words].exp().sum(dim=-1),
    }
    # Off the device first: MPS has no float64.
    return {name: value.cpu().double().numpy() for name, value in numbers.items()}


def _seen_random(
    lm: LM, target: Tensor, length: int, block: EncodedTexts, words: Tensor
) -> dict[str, np.ndarray]:
    """The mean over random texts of this length; what each predicts stays apart."""
    each = [
        _seen(target, log_answers(lm, [row], block)[0], words) for row in random_prompts(lm, length)
    ]
    stacked = {name: np.stack([one[name] for one in each]) for name in each[0]}
    return {
        name: value if name == "predicted" else value.mean(axis=0)
        for name, value in stacked.items()
    }


def _joined(blocks: Sequence[Watched]) -> Watched:
    """Blocks of texts put together again, texts being the last axis."""
    return {
        scored: {
            name: np.concatenate([block[scored][name] for block in blocks], axis=-1)
            for name in blocks[0][scored]
        }
        for scored in blocks[0]
    }
