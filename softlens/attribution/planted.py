"""Cases with a known answer: a prompt that works through one position, an LM that is broken."""

import copy

import torch

from softlens.errors import SoftlensError
from softlens.evaluation import encode_split
from softlens.lm import LM, answer_logits
from softlens.prompts import Prompt
from softlens.tasks import Task

PLANT_TEXTS = 32
PLANT_STEPS = 100
PLANT_CONTEXTS = 4
"""Draws of random tokens around the planted vector, at each step."""


def plant(
    lm: LM, task: Task, length: int, position: int, seed: int = 0, steps: int = PLANT_STEPS
) -> Prompt:
    """A prompt of random tokens in which one vector was trained to do the task.

    The tokens around it are drawn anew at every step, so that it learns to work whatever they are:
    that position carries the answer by construction, and the others are as good as any.

    Args:
        lm: the LM.
        task: whose training texts the vector is trained on, by Adam on the loss over label words.
        length: positions, at least 2.
        position: the one that is trained.
        seed: of the random tokens.
        steps: updates.
    """
    if not 0 <= position < length or length < 2:
        raise SoftlensError(
            f"Got position {position} of a prompt of {length}, wanted 0 to {length - 1} and a "
            "length of at least 2: one position to plant, others to tell it from."
        )
    generator = torch.Generator().manual_seed(seed)
    ordinary = lm.ordinary_ids
    starts = ordinary[torch.randint(len(ordinary), (length,), generator=generator)].tolist()
    source = task.train.take(min(PLANT_TEXTS, len(task.train)))
    texts = encode_split(lm, task, source, reserve=length, truncate=True)
    labels = torch.tensor(source.labels, device=lm.device)
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    rows = lm.embed(starts)
    lm.need_gradients("planting a position")
    vector = rows[position].clone().requires_grad_()
    adam = torch.optim.Adam([vector], lr=lm.vector_rate)
    for _ in range(steps):
        others = torch.randint(len(ordinary), (PLANT_CONTEXTS, length), generator=generator)
        prompts = lm.embedding[ordinary[others].to(lm.device)].clone()
        prompts[:, position] = vector
        logits = answer_logits(lm, prompts, texts, words)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.repeat(PLANT_CONTEXTS)
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    rows = rows.clone()
    rows[position] = vector.detach()
    return Prompt.soft(lm, rows, start_ids=starts)


def randomised(lm: LM, seed: int = 0) -> LM:
    """A copy of `lm` that knows nothing: the entries of each inner weight are shuffled.

    Embeddings stay, so that prompts mean the same vectors. Adebayo et al. (2018), arXiv 1810.03292,
    section 3, who redraw weights; shuffled ones keep their sizes. An attribution that is the same
    on such an LM does not depend on what the LM learned.
    """
    model = copy.deepcopy(lm.model)
    generator = torch.Generator().manual_seed(seed)
    kept = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and id(weight) not in kept:
                order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    name = f"{lm.name} with shuffled weights"
    return LM(model, lm.tokenizer, name=name, bos_id=lm.start_id, bos=bool(lm.start))
