"""Nearest-token decoding: for each vector of a prompt, the tokens whose embeddings are nearest.

What near means is a metric of `softlens.nearness`, exact in float64. Nearness is a claim about
geometry, not about what the prompt does: see `softlens.evaluate`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.display import Result, piece, show, show_text, token_boxes
from softlens.errors import SoftlensError, near, whole
from softlens.lm import LM
from softlens.nearness import METRICS, exact_scores, moved_to, nearest
from softlens.prompts import Prompt, PromptLike, as_prompt

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class NearestTokens(Result):
    """The tokens nearest to each position of a prompt."""

    text: str
    """The nearest tokens in order, decoded exactly."""
    token_ids: tuple[int, ...]
    """Their ids."""
    metric: str
    """What the scores are, a name in `METRICS`: "l2" is low where near, all others are high."""
    unchanged: float | None
    """Share of positions whose nearest token is the one they started from; None if unknown."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``position, rank, token_id, token, score, start_token``; positions start at 0, ranks at 1."""
    margins: tuple[float, ...] = field(repr=False, compare=False)
    """By how much the nearest token of each position is nearer than the second; NaN if alone."""
    tracked: pd.DataFrame = field(repr=False, compare=False)
    """``position, token_id, token, rank, score`` of the tokens asked for with `track`."""
    chance: pd.DataFrame | None = field(repr=False, compare=False)
    """``position, score, random_median, random_nearest, p_value``: how near the nearest tokens of
    random vectors of the same norm are; None if it was not asked for."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The token of each row as `softlens.display.piece` gives it, for views."""
    start_pieces: tuple[str, ...] | None = field(repr=False, compare=False)
    """The same of the token each position started from."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        share = "" if self.unchanged is None else f"; {self.unchanged:.0%} are the start's tokens"
        chance = ""
        if self.chance is not None:
            near_ones = int((self.chance["p_value"] < 0.05).sum())
            chance = (
                f"; {near_ones} of {len(self.chance)} positions are nearer to a token than random "
                "vectors of their norm (p < .05)"
            )
        return f"nearest tokens by {self.metric}: {show_text(self.text)}{share}{chance}"

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
        if self.chance is not None:
            wide["p (chance)"] = [f"{p:.2g}" for p in self.chance["p_value"]]
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
    prompt: Prompt | str | PromptLike | Float[Tensor, "length hidden"],
    k: int = 5,
    metric: str = "cosine",
    exclude: str | Iterable[int | str] | None = "special",
    *,
    track: Sequence[int | str] = (),
    chance: int = 0,
    seed: int = 0,
) -> NearestTokens:
    """The `k` tokens whose embeddings are nearest to each vector of `prompt`.

    Args:
        lm: the LM whose embedding is searched.
        prompt: a prompt of this LM (or a `Run`, a `Reading`, a text), or vectors of shape (length,
            hidden).
        k: tokens a position.
        metric: "cosine"; "centred_cosine" and "whitened_cosine", after what all tokens share is
            taken away; "l2" (Euclidean distance); or "dot".
        exclude: "special" leaves out control tokens; or token ids and token texts; None leaves
            out nothing. Rows of the embedding that no token maps to are never offered.
        track: tokens whose rank at each position is wanted, as ids or as texts of one token.
        chance: random directions, given each position's norm, whose nearest tokens it is compared
            with; 0 compares with none. Unlike a trained vector they started from no token.
        seed: of these directions.

    Returns:
        A `NearestTokens`. Equal scores (in float64) are ordered by token id, the lower first.

    Raises:
        SoftlensError: an unknown metric; vectors of another width, not finite, or of length zero
            under "cosine"; a prompt of another LM; `k` above the tokens that are left.
    """
    if metric not in METRICS:
        raise SoftlensError(f"Got metric {metric!r}, wanted {METRICS}.{near(metric, METRICS)}")
    starts = None
    if not isinstance(prompt, Tensor):
        found = as_prompt(lm, prompt)
        prompt, starts = found.vectors, found.start_ids
    vectors = _checked(lm, prompt, metric)
    left_out = sorted(_excluded(lm, exclude) | lm.unused_ids)
    most = lm.vocab_size - len(left_out)
    of = f"{lm.name!r} has {lm.vocab_size} tokens and {len(left_out)} are left out"
    k = whole("k", k, most, of)
    if starts is not None and len(starts) != len(vectors):
        raise SoftlensError(
            f"Got {len(starts)} start_ids for a prompt of {len(vectors)} positions, wanted one for "
            "each."
        )
    wide_ids, wide_scores = nearest(lm, vectors, metric, left_out, min(max(k, 2), most))
    ids, scores = [row[:k] for row in wide_ids], [row[:k] for row in wide_scores]
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
        margins=tuple(abs(row[0] - row[1]) if most > 1 else float("nan") for row in wide_scores),
        tracked=_tracked(lm, vectors, metric, left_out, track),
        chance=_chance(lm, vectors, metric, left_out, [row[0] for row in scores], chance, seed),
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
    zero = (moved_to(lm, vectors, metric) == 0).all(dim=1).nonzero().flatten().tolist()
    if zero and metric not in ("l2", "dot"):
        what = "zero" if metric == "cosine" else "the vocabulary's mean"
        raise SoftlensError(
            f"The vector at position {zero[0]} is {what}, which has no direction. "
            "Use metric='l2' or metric='dot'."
        )
    return vectors


def position_ids(lm: LM, prompt: Prompt | Float[Tensor, "length hidden"]) -> tuple[int, ...]:
    """A token to name each position by: the prompt's own, or the nearest by cosine."""
    if isinstance(prompt, Prompt) and prompt.token_ids is not None:
        return prompt.token_ids
    vectors = prompt.vectors if isinstance(prompt, Prompt) else prompt
    metric = "cosine" if bool((vectors != 0).any(dim=1).all()) else "l2"
    return nearest_tokens(lm, vectors, k=1, metric=metric).token_ids


def _excluded(lm: LM, exclude: str | Iterable[int | str] | None) -> frozenset[int]:
    if exclude is None:
        return frozenset()
    if exclude == "special":
        return lm.special_ids
    if isinstance(exclude, str):
        raise SoftlensError(
            f"Got exclude={exclude!r}, wanted 'special', None, or a list of tokens."
        )
    return frozenset(_single_tokens(lm, exclude, "exclude"))


def _single_tokens(lm: LM, items: Iterable[int | str], name: str) -> list[int]:
    """Ids of tokens given as ids or texts."""
    if isinstance(items, str):
        raise SoftlensError(f"Got {name}={items!r}, wanted a list of tokens: {name}=[{items!r}].")
    ids = []
    for item in items:
        pieces = lm.encode(item) if isinstance(item, str) else [int(item)]
        if len(pieces) != 1 or not 0 <= pieces[0] < lm.vocab_size:
            raise SoftlensError(
                f"{name} has {item!r}, which is {[lm.token(i) for i in pieces]} for {lm.name!r}. "
                f"Wanted single tokens, or ids from 0 to {lm.vocab_size - 1}."
                if isinstance(item, str)
                else f"{name} has the id {item}, wanted 0 to {lm.vocab_size - 1}."
            )
        ids.append(pieces[0])
    return ids


def _tracked(
    lm: LM, vectors: Tensor, metric: str, left_out: list[int], track: Sequence[int | str]
) -> pd.DataFrame:
    """The rank of each token of `track` at each position, among the tokens that are offered."""
    wanted = _single_tokens(lm, track, "track")
    if outside := [i for i in wanted if i in left_out]:
        raise SoftlensError(
            f"track has {lm.token(outside[0])!r}, which is left out of the ranking. "
            "Change exclude=."
        )
    rows = []
    every = torch.arange(lm.vocab_size, device=lm.device)
    for position, vector in enumerate(vectors if wanted else []):
        scores = torch.cat([exact_scores(lm, part, vector, metric) for part in every.split(4096)])
        far = scores if metric == "l2" else -scores
        far[left_out] = torch.inf
        for index in wanted:
            nearer = (far < far[index]) | ((far == far[index]) & (every.cpu() < index))
            rows.append((position, index, lm.token(index), int(nearer.sum()) + 1,
                         float(scores[index])))  # fmt: skip
    return pd.DataFrame(rows, columns=["position", "token_id", "token", "rank", "score"])


def _chance(
    lm: LM,
    vectors: Tensor,
    metric: str,
    left_out: list[int],
    best: list[float],
    count: int,
    seed: int,
) -> pd.DataFrame | None:
    """How near random vectors of each position's norm come to their nearest tokens."""
    if not count:
        return None
    if count < 20:
        raise SoftlensError(
            f"Got chance={count}, wanted at least 20 random directions: below, no p-value is under "
            ".05. Or 0, for no comparison."
        )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, lm.hidden_size, generator=generator).to(lm.device)
    directions = torch.nn.functional.normalize(noise, dim=1)
    rows = []
    for position, (vector, score) in enumerate(zip(vectors, best, strict=True)):
        drawn = directions * vector.norm()
        if metric != "cosine" or not position:
            # The plain cosine sees no norm: one set of neighbours serves all positions.
            if not vector.any() and metric not in ("l2", "dot"):
                drawn = directions
            found = torch.tensor(nearest(lm, drawn, metric, left_out, 1)[1]).flatten()
        nearer = (found <= score) if metric == "l2" else (found >= score)
        closest = found.min() if metric == "l2" else found.max()
        p_value = (1 + int(nearer.sum())) / (1 + count)
        rows.append((position, score, float(found.median()), float(closest), p_value))
    columns = ["position", "score", "random_median", "random_nearest", "p_value"]
    return pd.DataFrame(rows, columns=columns)
