"""Nearness of vectors to the rows of an LM's embedding, by several metrics.

With embedding rows e_t and a prompt vector v, the score of token t is

    cosine            e_t . v / (|e_t| |v|)      high is near
    centred_cosine    the same after the vocabulary's mean row is subtracted from e_t and v
    whitened_cosine   the same after that and after whitening, so that all directions of the
                      embedding have the same variance
    l2                |e_t - v|                  low is near
    dot               e_t . v                    high is near

The rows of an embedding share a large common part, which makes everything look alike to the plain
cosine (Mu & Viswanath 2018, arXiv 1702.01417); centring takes it away, whitening (Su et al. 2021,
arXiv 2103.15316) whatever else dominates.

All tokens are scored in float32 by one product of matrices; those that its rounding cannot tell
from the k nearest are scored again in float64, and these scores are returned and ranked.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from softlens.lm import LM

METRICS = ("cosine", "centred_cosine", "whitened_cosine", "l2", "dot")
WHITENING_FLOOR = 1e-6
"""Of a direction's variance, relative to the largest: below, it is noise and not blown up."""


def nearest(
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
        exact = torch.cat(
            [exact_scores(lm, part, vector, metric) for part in candidates.split(4096)]
        )
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
    if metric not in ("l2", "dot"):
        # Divided by its largest entry first: squares of tiny or huge ones leave float32.
        moved = moved_to(lm, vectors, metric)
        directions = (moved / moved.abs().amax(dim=1, keepdim=True)).float()
        nearness = torch.nn.functional.normalize(directions, dim=1) @ _unit_rows(lm, metric).T
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


def exact_scores(lm: LM, ids: Tensor, vector: Tensor, metric: str) -> Tensor:
    """The scores of tokens `ids` in float64, on the CPU: not every device has that type."""
    rows = moved_to(lm, lm.embedding[ids], metric).cpu().double()
    one = moved_to(lm, vector[None], metric)[0].cpu().double()
    if metric == "l2":
        return (rows - one).norm(dim=1)
    products = (rows * one).sum(dim=1)
    if metric == "dot":
        return products
    return products / (rows.norm(dim=1) * one.norm()).clamp_min(torch.finfo(torch.float64).tiny)


def moved_to(lm: LM, rows: Float[Tensor, "rows hidden"], metric: str) -> Tensor:
    """`rows` where the metric takes cosines: centred and whitened ones in float64, on the CPU."""
    if metric not in ("centred_cosine", "whitened_cosine"):
        return rows
    if metric not in lm.memo:
        table = lm.embedding[lm.ordinary_ids.to(lm.device)].cpu().double()
        mean = table.mean(dim=0)
        turn = torch.eye(len(mean), dtype=torch.float64)
        if metric == "whitened_cosine":
            centred = table - mean
            variances, directions = torch.linalg.eigh(centred.T @ centred / len(table))
            floor = WHITENING_FLOOR * variances.max()
            turn = directions / variances.clamp_min(floor).sqrt()
        lm.memo[metric] = (mean, turn)
    mean, turn = lm.memo[metric]
    centred = rows.cpu().double() - mean
    return centred if metric == "centred_cosine" else centred @ turn


def _unit_rows(lm: LM, metric: str) -> Float[Tensor, "vocab hidden"]:
    if metric == "cosine":
        return lm.unit_embedding
    key = (metric, "unit rows")
    if key not in lm.memo:
        rows = torch.nn.functional.normalize(moved_to(lm, lm.embedding, metric), dim=1)
        lm.memo[key] = rows.float().to(lm.device)
    return lm.memo[key]
