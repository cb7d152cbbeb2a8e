"""What a prompt does: the LM's answer distributions under it, and how far those of others are.

With p(v | x) the distribution over the vocabulary at the answer position under a prompt, on text x,
and q(v | x) the one under another,

    KL(p, q | x) = sum over v of p(v | x) (log p(v | x) - log q(v | x))        nats

This is the distance of "Prompts have evil twins" (arXiv 2311.07064) with one answer token in the
place of a continuation. `closed` sets it against the empty prompt: 1 is the same behaviour, 0 that
of no prompt at all, below 0 worse than none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts, answer_chunks, word_logits
from softlens.lm.answers import Prompts
from softlens.tasks import Task

SEARCHED, CHOSEN = 256, 128
"""Unlabelled texts that a reading is looked for on, and others that it is chosen on."""
CONTEXTS = 8
"""Of them, texts after which surprisals are taken."""


def log_answers(
    lm: LM, prompts: Prompts, texts: EncodedTexts
) -> Float[Tensor, "prompts texts vocab"]:
    """Log-probability of every token at the answer position; without gradients."""
    return word_logits(lm, prompts, texts, None).log_softmax(dim=-1)


def kl(
    log_p: Float[Tensor, "*#batch answers"], log_q: Float[Tensor, "*#batch answers"]
) -> Float[Tensor, "..."]:
    """KL(p, q) over the last axis, nats, shape (*batch,); both are normalised log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def kl_from(
    lm: LM, target: Float[Tensor, "texts vocab"], prompts: Prompts, texts: EncodedTexts
) -> Float[Tensor, "prompts texts"]:
    """KL from `target`, log-probabilities on these texts, to each prompt's answers; in chunks."""
    found = torch.empty(len(prompts), len(texts), device=lm.device)
    for some_prompts, some_texts, logits in answer_chunks(lm, prompts, texts):
        at = torch.tensor(some_prompts)[:, None], torch.tensor(some_texts)[None, :]
        found[at] = kl(target[some_texts], logits.log_softmax(dim=-1))
    return found


def closed(to_reading: float, to_empty: float) -> float:
    """Share of KL closed, 1 - KL(prompt, reading) / KL(prompt, empty); NaN where both are 0."""
    return 1 - to_reading / to_empty if to_empty else float("nan")


@dataclass(frozen=True)
class Probes:
    """Texts on which a prompt is watched, none of whose labels is looked at.

    Attributes:
        search: texts that a reading is looked for on.
        choose: others, on which it is chosen.
        before: a few of them that stand before the prompt; None where they stand after it.
    """

    search: EncodedTexts
    choose: EncodedTexts
    before: EncodedTexts | None

    @classmethod
    def of(cls, lm: LM, task: Task, reserve: int) -> "Probes":
        """The task's unlabelled texts; where it has too few, its training and dev texts.

        Raises:
            SoftlensError: fewer than four texts.
        """
        pool = task.unlabelled
        if len(pool) < CONTEXTS:
            pool = tuple(dict.fromkeys((*task.train.texts, *task.dev.texts)))
        if len(pool) < 4:
            raise SoftlensError(
                f"Got {len(pool)} texts in {task.name!r} to watch the prompt on, wanted at least "
                "4. Give the task unlabelled texts."
            )
        size = min(SEARCHED, 2 * len(pool) // 3)
        taken = [pool[:size], pool[size : size + CHOSEN]]
        search, choose = (
            lm.encode_texts(task.template, part, reserve=reserve, truncate=True) for part in taken
        )
        before = None
        if search.text_first:
            # Without what follows the prompt: it is what stands before that makes a surprisal.
            few = search.subset(range(min(CONTEXTS, len(search))))
            nothing: tuple[tuple[int, ...], ...] = ((),) * len(few)
            before = EncodedTexts(few.befores, nothing, few.sources, few.cache, few.groups)
        return cls(search, choose, before)
