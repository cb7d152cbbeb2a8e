"""Nearest-token decoding: for each vector of a prompt, the tokens whose embeddings are nearest.

With embedding rows e_t and a prompt vector v, the score of token t is

    cosine   e_t . v / (|e_t| |v|)      high is near
    l2       |e_t - v|                  low is near
    dot      e_t . v                    high is near

Nearness is a claim about geometry, not about what the prompt does: see `softlens.evaluate`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.display import Result, show, show_text, token_boxes
from softlens.errors import SoftlensError, near
from softlens.lm import LM
from softlens.prompts import Prompt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("cosine", "l2", "dot")


@dataclass(frozen=True, repr=False)
class NearestTokens(Result):
    """The tokens nearest to each position of a prompt."""

    text: str
    """The nearest tokens in order, decoded exactly."""
    token_ids: tuple[int, ...]
    """Their ids."""
    metric: str
    """What the scores are: "cosine" and "dot" are high where near, "l2" is low."""
    unchanged: float | None
    """Share of positions whose nearest token is the one they started from; None if unknown."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``position, rank, token_id, token, score, start_token``; ranks start at 1."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        share = "" if self.unchanged is None else f"; {self.unchanged:.0%} are the start's tokens"
        return f"nearest tokens by {self.metric}: {show_text(self.text)}{share}"

    @property
    def table(self) -> pd.DataFrame:
        """One row a position, one column a rank."""
        cells = self.frame.assign(
            cell=[
                f"{show(token)} {score:.2f}"
                for token, score in zip(self.frame["token"], self.frame["score"], strict=True)
            ]
        )
        wide = cells.pivot(index="position", columns="rank", values="cell")
        wide.columns = [f"rank {rank}" for rank in wide.columns]
        starts = self.frame[self.frame["rank"] == 1].set_index("position")["start_token"]
        if starts.notna().any():
            wide.insert(0, "started from", starts.map(show))
        return wide.reset_index()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Position x rank, each cell a token, coloured by its score."""
        from softlens.plots import plot_nearest

        return plot_nearest(self, ax)

    def _repr_html_(self) -> str:
        first = self.frame[self.frame["rank"] == 1]
        boxes = token_boxes(
            first["token"].tolist(), first["score"].tolist(), self.metric, "nearest tokens"
        )
        return boxes + super()._repr_html_()


@torch.no_grad()
def nearest_tokens(
    lm: LM,
    prompt: Prompt | Float[Tensor, "length hidden"],
    k: int = 5,
    metric: str = "cosine",
    exclude: str | Iterable[int | str] | None = "special",
) -> NearestTokens:
    """The `k` tokens whose embeddings are nearest to each vector of `prompt`.

    Args:
        lm: the LM whose embedding is searched.
        prompt: a prompt of this LM, or vectors of shape (length, hidden).
        k: tokens a position.
        metric: "cosine", "l2" (Euclidean distance) or "dot".
        exclude: "special" leaves out control tokens; or token ids and token texts; None leaves
            out nothing. Rows of the embedding that no token maps to are never offered.

    Returns:
        A `NearestTokens`. Equal scores are ordered by token id, the lower first.

    Raises:
        SoftlensError: an unknown metric; vectors of another width, not finite, or of length zero
            under "cosine"; a prompt of another LM; `k` above the tokens that are left.
    """
    if metric not in METRICS:
        raise SoftlensError(f"Got metric {metric!r}, wanted {METRICS}.{near(metric, METRICS)}")
    if isinstance(prompt, Prompt):
        prompt.check(lm)
        vectors, starts = prompt.vectors, prompt.start_ids
    else:
        vectors, starts = prompt, None
    vectors = _checked(lm, vectors, metric)
    left_out = sorted(_excluded(lm, exclude) | lm.unused_ids)
    if not 1 <= k <= lm.vocab_size - len(left_out):
        raise SoftlensError(
            f"Got k={k}, wanted 1 to {lm.vocab_size - len(left_out)}: {lm.name!r} has "
            f"{lm.vocab_size} tokens and {len(left_out)} are left out."
        )
    scores = _scores(lm, vectors, metric)
    nearness = -scores if metric == "l2" else scores.clone()
    nearness[:, left_out] = -torch.inf
    ids = _top(nearness, k)
    picked = scores.gather(1, ids)
    rows = [
        {
            "position": position,
            "rank": rank + 1,
            "token_id": int(ids[position, rank]),
            "token": lm.token(int(ids[position, rank])),
            "score": float(picked[position, rank]),
            "start_token": None if starts is None else lm.token(starts[position]),
        }
        for position in range(len(ids))
        for rank in range(k)
    ]
    best = tuple(ids[:, 0].tolist())
    kept = None if starts is None else sum(a == b for a, b in zip(best, starts, strict=True))
    return NearestTokens(
        text=lm.decode(best),
        token_ids=best,
        metric=metric,
        unchanged=None if kept is None else kept / len(best),
        frame=pd.DataFrame(rows),
    )


def _checked(lm: LM, vectors: Tensor, metric: str) -> Float[Tensor, "length hidden"]:
    if vectors.ndim != 2 or vectors.shape[1] != lm.hidden_size or not len(vectors):
        raise SoftlensError(
            f"Got vectors of shape {tuple(vectors.shape)}, wanted (length, {lm.hidden_size}), the "
            f"width of {lm.name!r}. Was the prompt trained on another LM?"
        )
    vectors = vectors.detach().to(lm.device, torch.float32)
    bad = (~torch.isfinite(vectors)).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise SoftlensError(f"The vector at position {bad[0]} holds NaN or infinity.")
    zero = (vectors == 0).all(dim=1).nonzero().flatten().tolist()
    if zero and metric == "cosine":
        raise SoftlensError(
            f"The vector at position {zero[0]} is zero, which has no direction. "
            "Use metric='l2' or metric='dot'."
        )
    return vectors


def _excluded(lm: LM, exclude: str | Iterable[int | str] | None) -> frozenset[int]:
    if exclude is None:
        return frozenset()
    if exclude == "special":
        return lm.special_ids
    if isinstance(exclude, str):
        raise SoftlensError(
            f"Got exclude={exclude!r}, wanted 'special', None, or a list of tokens."
        )
    ids = set()
    for item in exclude:
        pieces = lm.encode(item) if isinstance(item, str) else [int(item)]
        if len(pieces) != 1 or not 0 <= pieces[0] < lm.vocab_size:
            raise SoftlensError(
                f"exclude has {item!r}, which is {[lm.token(i) for i in pieces]} for {lm.name!r}. "
                f"Wanted single tokens, or ids from 0 to {lm.vocab_size - 1}."
                if isinstance(item, str)
                else f"exclude has the id {item}, wanted 0 to {lm.vocab_size - 1}."
            )
        ids.add(pieces[0])
    return frozenset(ids)


def _scores(lm: LM, vectors: Tensor, metric: str) -> Float[Tensor, "length vocab"]:
    if metric == "cosine":
        return torch.nn.functional.normalize(vectors, dim=1) @ lm.unit_embedding.T
    if metric == "dot":
        return vectors @ lm.embedding.T
    # |e - v|^2 expanded would lose the digits that tell near vectors apart.
    return torch.cdist(vectors, lm.embedding, compute_mode="donot_use_mm_for_euclid_dist")


def _top(nearness: Tensor, k: int) -> Tensor:
    """Ids of the `k` highest, ties by the lower id; topk alone leaves the order of ties open."""
    worst = nearness.topk(k, dim=1).values[:, -1:]
    rows = []
    for row, limit in zip(nearness, worst, strict=True):
        candidates = (row >= limit).nonzero().flatten()
        order = torch.argsort(row[candidates], descending=True, stable=True)
        rows.append(candidates[order][:k])
    return torch.stack(rows)
