"""What a prompt is worth: the task losses, in nats, one home for each formula."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.lm import LM, EncodedTexts, answer_logits

TaskLoss = Literal["labels", "vocabulary"]
"""Cross-entropy over the label words, or over the whole vocabulary.

The latter optimises label mass rather than accuracy: of its 12 to 17 nats on a real LM, only
log(classes) tell the classes apart.
"""


def task_loss(
    lm: LM,
    prompts: Float[Tensor, "prompts length hidden"] | Sequence[Sequence[int]],
    texts: EncodedTexts,
    labels: Int[Tensor, " texts"],
    words: Int[Tensor, " classes"],
    over: TaskLoss = "labels",
) -> Float[Tensor, " prompts"]:
    """Mean cross-entropy of the right label word, nats; gradients reach soft prompts."""
    chosen = words if over == "labels" else None
    logits = answer_logits(lm, prompts, texts, chosen)
    target = labels if over == "labels" else words[labels]
    nats = logits.logsumexp(dim=-1) - logits[:, torch.arange(len(target)), target]
    return nats.mean(dim=1)
