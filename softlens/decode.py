"""Nearest-token decoding: for each vector of a prompt, the tokens whose embeddings are nearest.

With embedding rows e_t and a prompt vector v, the score of token t is

    cosine   e_t . v / (|e_t| |v|)      high is near
    l2       |e_t - v|                  low is near
    dot      e_t . v                    high is near

All tokens are scored in float32 by one product of matrices; those that its rounding cannot tell
from the k nearest are scored again in float64, and these scores are returned and ranked.

Nearness is a claim about geometry, not about what the prompt does: see `softlens.evaluate`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.display import Result, piece, show, show_text, token_boxes
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
    """``position, rank, token_id, token, score, start_token``; positions start at 0, ranks at 1."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The token of each row as `softlens.display.piece` gives it, for views."""
    start_pieces: tuple[str, ...] | None = field(repr=False, compare=False)
    """The same of the token each position started from."""

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
                for token, score in zip(self.pieces, self.frame["score"], strict=True)
            ]
        )
        wide = cells.pivot(index="position", columns="rank", values="cell")
        wide.columns = [f"rank {rank}" for rank in wide.columns]
        if self.start_pieces is not None:
            wide.insert(0, "started from", [show(token) for token in self.start_pieces])
        return wide.reset_index()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Position x rank, each cell a token, coloured by its score."""
        from softlens.plots import plot_nearest

        return plot_nearest(self, ax)

    def _repr_html_(self) -> str:
        first = self.frame["rank"] == 1
        boxes = token_boxes(
            [token for token, nearest in zip(self.pieces, first, strict=True) if nearest],
            self.frame["score"][first].tolist(),
            self.metric,
            "nearest tokens",
            strong="low" if self.metric == "l2" else "high",
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
        A `NearestTokens`. Equal scores (in float64) are ordered by token id, the lower first.

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
    if starts is not None and len(starts) != len(vectors):
        raise SoftlensError(
            f"Got {len(starts)} start_ids for a prompt of {len(vectors)} positions, wanted one for "
            "each."
        )
    ids, scores = _nearest(lm, vectors, metric, left_out, k)
    rows = [
        {
            "position": position,
            "rank": rank + 1,
            "token_id": index,
            "token": lm.token(index),
            "score": score,
            "start_token": None if starts is None else lm.token(starts[position]),
        }
        for position in range(len(ids))
        for rank, (index, score) in enumerate(zip(ids[position], scores[position], strict=True))
    ]
    best = tuple(row[0] for row in ids)
    kept = None if starts is None else sum(a == b for a, b in zip(best, starts, strict=True))
    return NearestTokens(
        text=lm.decode(best),
        token_ids=best,
        metric=metric,
        unchanged=None if kept is None else kept / len(best),
        frame=pd.DataFrame(rows),
        pieces=tuple(piece(lm, index) for row in ids for index in row),
        start_pieces=None if starts is None else tuple(piece(lm, index) for index in starts),
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


def _nearest(
    lm: LM, vectors: Float[Tensor, "length hidden"], metric: str, left_out: list[int], k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Ids and scores of the `k` nearest tokens of each vector, nearest first."""
    nearness, slack = nearness_of(lm, vectors, metric)
    nearness[:, left_out] = -torch.inf
    # At least the k nearest, and whatever rounding may have put behind them.
    limits = nearness.topk(k, dim=1).values[:, -1] - slack
    ids, scores = [], []
    for row, limit, vector in zip(nearness, limits, vectors, strict=True):
        kept = (row >= limit) & (row > -torch.inf)
        candidates = kept.nonzero().flatten()  # by id, the lower first
        exact = torch.cat([_exact(lm, part, vector, metric) for part in candidates.split(4096)])
        order = torch.argsort(exact, descending=metric != "l2", stable=True)[:k]
        ids.append(candidates.cpu()[order].tolist())
        scores.append(exact[order].tolist())
    return ids, scores


def nearness_of(
    lm: LM, vectors: Float[Tensor, "length hidden"], metric: str
) -> tuple[Float[Tensor, "length vocab"], Float[Tensor, " length"]]:
    """What orders the tokens, high is near, in float32; and how far rounding may move two of them.

    For "l2" that is 2 e . v - |e|^2, which falls as |e - v|^2 grows.
    """
    sizes = vectors.norm(dim=1)
    if metric == "cosine":
        # Divided by its largest entry first: squares of tiny or huge ones leave float32.
        directions = vectors / vectors.abs().amax(dim=1, keepdim=True)
        nearness = torch.nn.functional.normalize(directions, dim=1) @ lm.unit_embedding.T
        scale = torch.ones_like(sizes)
    else:
        if "squared lengths" not in lm.memo:
            lm.memo["squared lengths"] = lm.embedding.square().sum(dim=1)
        squares = lm.memo["squared lengths"]
        nearness, scale = vectors @ lm.embedding.T, sizes * squares.max().sqrt()
        if metric == "l2":
            nearness, scale = 2 * nearness - squares, 2 * scale + squares.max()
    # |fl(x . y) - x . y| <= n eps |x| |y| for n products (Higham 2002, section 3.1), for each.
    return nearness, 2 * lm.hidden_size * torch.finfo(torch.float32).eps * scale


def _exact(lm: LM, ids: Tensor, vector: Tensor, metric: str) -> Tensor:
    """The scores of tokens `ids` in float64, on the CPU: not every device has that type."""
    rows, one = lm.embedding[ids].cpu().double(), vector.cpu().double()
    if metric == "l2":
        return (rows - one).norm(dim=1)
    products = (rows * one).sum(dim=1)
    if metric == "dot":
        return products
    return products / (rows.norm(dim=1) * one.norm()).clamp_min(torch.finfo(torch.float64).tiny)
