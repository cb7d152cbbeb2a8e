"""Values of coalitions by the LM's own forward, one row at a time."""

from collections.abc import Callable

import torch

from softlens.lm import LM
from softlens.tasks import Task
from softlens.templates import template_parts


def logits_of(lm: LM, template: str, text: str, vectors: torch.Tensor) -> torch.Tensor:
    """Next-token logits, shape (vocab,); gradients reach `vectors`."""
    before, after = (part.replace("{text}", text) for part in template_parts(template))
    head = lm.embed([lm.bos_id, *(lm.encode(before) if before else [])])
    tail = lm.embed(lm.encode(after, leading_space=True) if after else [])
    row = torch.cat([head, vectors, tail])[None]
    return lm.model(inputs_embeds=row).logits[0, -1]


def log_prob(lm: LM, task: Task, index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The value of vectors on one test text: log-probability of the right label word."""
    words = torch.tensor(task.answer_ids(lm))
    label = task.test.labels[index]

    def value(vectors: torch.Tensor) -> torch.Tensor:
        logits = logits_of(lm, task.template, task.test.texts[index], vectors)
        return logits[words].log_softmax(dim=-1)[label]

    return value
