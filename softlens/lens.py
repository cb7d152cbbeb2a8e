"""The logit lens: what the LM's unembedding says at each prompt position and layer.

The hidden state h after a layer is put through the LM's last norm and its head, as if the layers
above were not there: softmax(head(norm(h))). nostalgebraist (2020), "interpreting GPT: the logit
lens". What a position predicts is the token *after* it. Early layers are written in another basis
than the last, so that what they seem to say is often noise (Belrose et al. 2023, arXiv 2303.08112).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch

from softlens.decode import position_ids
from softlens.display import Result, piece, show, show_text, token_boxes
from softlens.errors import SoftlensError, whole
from softlens.evaluation import prompt_vectors
from softlens.lm import LM, default_context, inside
from softlens.lm.surprisals import context_texts
from softlens.prompts import Prompt, PromptLike, as_prompt
from softlens.readings.base import stands_inside
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def layer_name(layer: int) -> str:
    """What views call a layer: what comes in is no layer's work."""
    return str(layer) if layer else "embedding"


@dataclass(frozen=True, repr=False)
class LogitLens(Result):
    """What each layer would predict after each position of a prompt."""

    text: str | None
    """The task's text around the prompt; None where it stands after BOS."""
    context: str
    """What stood before: "bos", "bos." or "text"."""
    layers: int
    """Layers of the LM; layer 0 is the embedding, the last is what the LM predicts."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``layer, position, rank, token_id, token, probability, entropy_nats``; the entropy is that
    of the layer's whole prediction at the position."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The token of each row as `softlens.display.piece` gives it, for views."""
    prompt_pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The prompt's (nearest) tokens."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        where = {"bos": "after BOS", "bos.": "after BOS and a full stop"}
        stands = where.get(self.context) or f"with the text {show_text(self.text or '')[:60]!r}"
        return (
            f"logit lens {stands}: the token that each of {self.layers} layers would predict after "
            "each position (probability); early layers are often noise"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The likeliest token, a row a layer from the last down, a column a position."""
        first = self.frame[self.frame["rank"] == 1]
        cells = [
            f"{show(self.pieces[i])} {p:.2f}"
            for i, p in zip(first.index, first["probability"], strict=True)
        ]
        wide = first.assign(cell=cells).pivot(index="layer", columns="position", values="cell")
        wide = wide.sort_index(ascending=False).rename(index=layer_name)
        wide.columns = [f"after {show(token)}" for token in self.prompt_pieces]
        return wide.reset_index()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Layer x position, each cell the likeliest token, coloured by its probability."""
        from softlens.plots import plot_lens

        return plot_lens(self, ax)

    def _repr_html_(self) -> str:
        rows = self.frame[(self.frame["rank"] == 1) & (self.frame["layer"] == self.layers)]
        boxes = token_boxes(
            [self.pieces[i] for i in rows.index],
            rows["probability"].tolist(),
            "probability",
            "what the last layer predicts after each position",
        )
        return boxes + super()._repr_html_()


@torch.no_grad()
def logit_lens(
    lm: LM,
    prompt: Prompt | str | PromptLike,
    task: Task | None = None,
    k: int = 3,
    *,
    text: str | None = None,
) -> LogitLens:
    """What the unembedding says after each layer at each position of `prompt`.

    Args:
        lm: the LM.
        prompt: a `Prompt`, a text, a `Reading` (the tokens it found) or a `Run`.
        task: puts the prompt into its template with a text; without it the prompt stands after BOS
            (and a full stop, where BOS is an attention sink).
        k: tokens a layer and position.
        text: the text; the task's first test text unless given.

    Raises:
        SoftlensError: the empty prompt; `k` above the vocabulary; a text without a task; an LM
            whose last norm is not found; a prompt of another LM.
    """
    k = whole("k", k, lm.vocab_size, f"{lm.name!r} has as many tokens")
    found = as_prompt(lm, prompt, leading_space=stands_inside(task))
    if task is None:
        if text is not None:
            raise SoftlensError("A text stands in a task's template: pass task=, too.")
        context = default_context(lm)
        texts = context_texts(lm, context)
        vectors = found.vectors
    else:
        context = "text"
        text = task.test.texts[0] if text is None else text
        vectors = prompt_vectors(lm, task, found)
        texts = lm.encode_texts(task.template, [text], reserve=len(vectors))
    if not len(vectors):
        raise SoftlensError("The empty prompt has no position to look at. Give a prompt.")
    before, after = texts.befores[0], texts.afters[0]
    row = torch.cat([lm.embed(before), vectors.to(lm.device), lm.embed(after)])
    states = inside.normed_layers(lm.model, row)[:, len(before) : len(before) + len(vectors)]
    log_probs = lm.logits(states).log_softmax(dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    best = log_probs.topk(k, dim=-1)
    rows = [
        (layer, position, rank + 1, index, lm.token(index), chance, float(entropy[layer, position]))
        for layer, positions in enumerate(best.indices.tolist())
        for position, ids in enumerate(positions)
        for rank, (index, chance) in enumerate(
            zip(ids, best.values[layer, position].exp().tolist(), strict=True)
        )
    ]
    columns = ["layer", "position", "rank", "token_id", "token", "probability", "entropy_nats"]
    frame = pd.DataFrame(rows, columns=columns)
    return LogitLens(
        text=text,
        context=context,
        layers=len(states) - 1,
        frame=frame,
        pieces=tuple(piece(lm, index) for index in frame["token_id"]),
        prompt_pieces=tuple(piece(lm, index) for index in position_ids(lm, found)),
    )
