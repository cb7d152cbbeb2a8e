"""Methods of attribution: one function each, from a `Game` to numbers for each text and position.

To add one, write a function, and name it in `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb

import numpy as np
import torch

from softlens.attribution.game import Game
from softlens.errors import SoftlensError
from softlens.lm import transformer

EXACT_LENGTH = 12
"""Positions up to which all 2 ** length coalitions are asked."""


@dataclass(frozen=True)
class Found:
    """What a method found.

    Attributes:
        by_text: attributions, shape (texts, length); their mean over texts is the result.
        sampling_error: standard error of the mean that comes from sampling coalitions, shape
            (length,); None where nothing was sampled.
        note: how it was done.
    """

    by_text: np.ndarray
    sampling_error: np.ndarray | None = None
    note: str = ""


Attribute = Callable[[Game, int, int, int], Found]
"""From a game, the number of samples, of steps, and a seed."""


def shapley(game: Game, samples: int, steps: int, seed: int) -> Found:
    """Shapley value: a position's mean contribution over all orders in which positions arrive.

    Shapley (1953). Exact up to `EXACT_LENGTH` positions, from all coalitions. Above, permutations
    are drawn in pairs of an order and its reverse (Mitchell et al. 2022, arXiv 2104.12199, section
    3; after Castro et al. 2009), and the standard error is that of the pairs' mean.
    """
    if game.length <= EXACT_LENGTH:
        return Found(exact_shapley(game), note=f"exact: all {2**game.length} coalitions")
    if samples < 4:
        raise SoftlensError(
            f"Got samples={samples}, wanted at least 4 permutations: a prompt of {game.length} "
            f"positions is over {EXACT_LENGTH}, so Shapley values are sampled, with an error."
        )
    pairs, length = samples // 2, game.length
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(length) for _ in range(pairs)]
    orders = [order for each in orders for order in (each, each[::-1])]
    present = np.zeros((len(orders), length + 1, length), dtype=bool)
    for row, order in enumerate(orders):
        for count, position in enumerate(order, 1):
            present[row, count:, position] = True
    values = game.values(present.reshape(-1, length)).reshape(len(orders), length + 1, -1)
    gains = np.empty((len(orders), length, values.shape[-1]))
    for row, order in enumerate(orders):
        gains[row, order] = np.diff(values[row], axis=0)
    by_pair = gains.reshape(pairs, 2, length, -1).mean(axis=1)
    error = by_pair.mean(axis=-1).std(axis=0, ddof=1) / np.sqrt(pairs)
    note = f"sampled: {2 * pairs} permutations, the length is over {EXACT_LENGTH}"
    return Found(by_pair.mean(axis=0).T, error, note)


def exact_shapley(game: Game) -> np.ndarray:
    """Shapley values from all coalitions, shape (texts, length)."""
    length = game.length
    bits = np.arange(2**length)[:, None] >> np.arange(length) & 1
    values = game.values(bits.astype(bool))
    sizes = bits.sum(axis=1)
    weights = np.array([_weight(size, length) for size in range(length)])
    columns = []
    for position in range(length):
        without = np.flatnonzero(bits[:, position] == 0)
        gains = values[without | 1 << position] - values[without]
        columns.append(weights[sizes[without]] @ gains)
    return np.stack(columns, axis=1)


def _weight(size: int, length: int) -> float:
    """Share of orders in which exactly a given coalition of `size` precedes a position."""
    return 1 / (length * comb(length - 1, size))


def leave_one_out(game: Game, samples: int, steps: int, seed: int) -> Found:
    """What is lost when one position is absent and all others are there (occlusion).

    Zeiler & Fergus (2014); Li, Monroe & Jurafsky (2016), arXiv 1612.08220.
    """
    present = np.ones((game.length + 1, game.length), dtype=bool)
    present[1:][np.eye(game.length, dtype=bool)] = False
    values = game.values(present)
    return Found((values[0] - values[1:]).T)


@torch.no_grad()
def integrated_gradients(game: Game, samples: int, steps: int, seed: int) -> Found:
    """The gradient along the straight line from the absent prompt, times that line.

    Sundararajan, Taly & Yan (2017), arXiv 1703.01365. The integral is taken by Gauss-Legendre
    quadrature with `steps` points.
    """
    if steps < 1:
        raise SoftlensError(f"Got steps={steps}, wanted at least 1.")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    along = torch.tensor((nodes + 1) / 2, dtype=torch.float32)[:, None, None]
    share = torch.tensor(weights / 2, dtype=torch.float32)
    total = np.zeros((len(game.texts), game.length))
    for start in game.stand_ins.cpu():
        line = game.vectors.cpu() - start
        slopes = game.gradients(start + along * line)
        mean = torch.einsum("s,tslh->tlh", share, slopes)
        total += (mean.double() * line.double()).sum(dim=-1).numpy()
    return Found(total / len(game.stand_ins), note=f"{steps} points of the path")


@torch.no_grad()
def gradient_x_input(game: Game, samples: int, steps: int, seed: int) -> Found:
    """The gradient at the prompt, times the prompt's distance from the absent one.

    Shrikumar et al. (2016), arXiv 1605.01713, where the absent prompt is zero.
    """
    slopes = game.gradients(game.vectors[None])[:, 0].double()
    line = (game.vectors - game.stand_ins.mean(dim=0)).cpu().double()
    return Found((slopes * line).sum(dim=-1).numpy())


@torch.no_grad()
def attention_rollout(game: Game, samples: int, steps: int, seed: int) -> Found:
    """How much attention reaches each position from the answer, through all layers.

    Abnar & Zuidema (2020), arXiv 2005.00928: heads averaged, half of each layer is the residual.
    It knows neither the target nor the values that attention carries: the weak baseline.
    """
    lm, texts = game.lm, game.texts
    rows = [
        torch.cat([lm.embed(before), game.vectors, lm.embed(after)])
        for before, after in zip(texts.befores, texts.afters, strict=True)
    ]
    found = []
    for weights, before in zip(
        transformer.attention_weights(lm.model, rows), texts.befores, strict=True
    ):
        reached = torch.eye(weights.shape[-1], device=weights.device)
        for layer in weights.mean(dim=1):
            reached = (layer + torch.eye(len(layer), device=layer.device)) / 2 @ reached
        found.append(reached[-1, len(before) : len(before) + game.length].cpu().double().numpy())
    return Found(np.stack(found))


@dataclass(frozen=True)
class Method:
    """A method, and what it needs."""

    run: Attribute = field(repr=False)
    absent: str | None
    """What absent positions are unless asked otherwise; None where the method knows no absence."""
    gradient: bool = False
    complete: bool = False
    """Whether attributions sum to what the whole prompt is worth above the absent one."""


METHODS = {
    "shapley": Method(shapley, "removed", complete=True),
    "leave_one_out": Method(leave_one_out, "removed"),
    "integrated_gradients": Method(
        integrated_gradients, "mean_embedding", gradient=True, complete=True
    ),
    "gradient_x_input": Method(gradient_x_input, "zero", gradient=True),
    "attention_rollout": Method(attention_rollout, None),
}
