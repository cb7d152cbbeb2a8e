"""Vectors of one LM in the embedding of another, through the tokens that both have.

A soft prompt's vectors mean something in the embedding of their own LM only. The one bridge are
tokens that both LMs have: a linear map takes their rows from one embedding into the other. Where
it cannot even take tokens to themselves that it was not fitted on, vectors are refused.

Sources: transfer of vectors through a trained projector, Su et al. (arXiv 2111.06719), and through
shared tokens, Wu et al. (arXiv 2310.01691), of which the map here is the linear case.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.prompts import Prompt

FOUND = 0.5
"""Share of shared tokens that a map must take to themselves, of those it was not fitted on."""
HELD_OUT = 5
"""Every fifth shared token is held out."""


def carried(prompt: Prompt, source: LM, target: LM) -> tuple[Prompt, dict[str, float | int]]:
    """A soft prompt of `source` as vectors for `target`, and how far that can be trusted.

    Ridge regression from the embedding rows of shared tokens to the target's, both centred.

    Returns:
        The prompt, and ``{"shared": tokens, "found": share of held-out tokens whose image is
        nearest, by cosine, to their own row among all held-out ones}``.

    Raises:
        SoftlensError: fewer shared tokens than the map has freedom, or `found` below `FOUND`.
    """
    ours, theirs = _shared(source, target)
    refused = (
        f"The soft prompt of {source.name!r} cannot be carried to {target.name!r}: "
        "{}. Its vectors mean something in their own LM only. Read it first, and transfer the "
        "text: sl.transfer(sl.read(lm, prompt, 'matched', task), ...)."
    )
    wanted = 2 * source.hidden_size
    if len(ours) < wanted:
        raise SoftlensError(
            refused.format(
                f"they share {len(ours)} tokens, and a map from {source.hidden_size} dimensions "
                f"needs {wanted} to be more than a guess"
            )
        )
    x, y = source.embedding[ours].cpu().double(), target.embedding[theirs].cpu().double()
    held = torch.arange(len(x)) % HELD_OUT == 0
    images = _mapped(x[~held], y[~held], x[held])
    normal = torch.nn.functional.normalize
    centre = y[~held].mean(dim=0)
    nearest = (normal(images - centre) @ normal(y[held] - centre).T).argmax(dim=1)
    found = float((nearest == torch.arange(int(held.sum()))).double().mean())
    if found < FOUND:
        raise SoftlensError(
            refused.format(
                f"a map fitted on {int((~held).sum())} shared tokens takes only {found:.0%} of "
                f"{int(held.sum())} others to themselves ({FOUND:.0%} wanted)"
            )
        )
    vectors = _mapped(x, y, prompt.vectors.double())
    return Prompt.soft(target, vectors.float()), {"shared": len(ours), "found": found}


def _mapped(
    x: Float[Tensor, "tokens wide"], y: Float[Tensor, "tokens hidden"], points: Tensor
) -> Float[Tensor, "points hidden"]:
    mean = x.mean(dim=0)
    centred = x - mean
    gram = centred.T @ centred
    gram.diagonal().add_(1e-3 * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, centred.T @ (y - y.mean(dim=0)))
    return (points - mean) @ weights + y.mean(dim=0)


def _shared(source: LM, target: LM) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """Ids of the tokens that stand for the same text in both LMs."""
    ours, theirs = _texts(source), _texts(target)
    # Vocabularies come in no order of their own, and every fifth of them must be the same ones.
    both = sorted(text for text in ours if text in theirs)
    return torch.tensor([ours[t] for t in both]), torch.tensor([theirs[t] for t in both])


def _texts(lm: LM) -> dict[str, int]:
    ordinary = set(lm.ordinary_ids.tolist())
    # Byte-level and sentencepiece vocabularies mark a leading space by letters of their own; where
    # tokens are whole words, the space is understood.
    marks = str.maketrans({"Ġ": " ", "▁": " "})
    space = "" if lm.tokens_mark_spaces else " "
    known = {t.translate(marks): i for t, i in lm.tokenizer.get_vocab().items() if i in ordinary}
    return {t if t.startswith(" ") else space + t: i for t, i in known.items()}
