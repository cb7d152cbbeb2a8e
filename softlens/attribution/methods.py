"""Methods of attribution: one function each, from a `Game` to numbers for each text and position.

To add one, write a function, and name it in `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb

import numpy as np
import torch

from softlens.attribution.game import Game
from softlens.attribution.targets import TARGETS
from softlens.errors import SoftlensError, near
from softlens.lm import inside

EXACT_LENGTH = 12
"""Players up to which all 2 ** players coalitions are asked, where the LM is small enough."""
PERMUTATIONS, FEWEST = 64, 8
"""Permutations that are drawn above, and on a large LM at least."""
QUICK_WORK = 6e10
"""Positions x weights that take about two seconds on a core."""


@dataclass(frozen=True)
class Found:
    """What a method found.

    Attributes:
        by_text: attributions, shape (texts, players); their mean over texts is the result.
        sampling_error: standard error of the mean that comes from sampling coalitions, shape
            (players,); None where nothing was sampled.
        note: how it was done.
    """

    by_text: np.ndarray
    sampling_error: np.ndarray | None = None
    note: str = ""


Attribute = Callable[[Game, int | None, int, int], Found]
"""From a game, the number of samples (None: its own), of steps, and a seed."""


def shapley(game: Game, samples: int | None, steps: int, seed: int) -> Found:
    """Shapley value: a player's mean contribution over all orders in which players arrive.

    Shapley (1953). Exact from all coalitions, or sampled (see `plan`): permutations are drawn in
    pairs of an order and its reverse (Mitchell et al. 2022, arXiv 2104.12199, section 3; after
    Castro et al. 2009), and the standard error is that of the pairs' mean.
    """
    count, why = plan(game, samples)
    players = game.players
    if count is None:
        return Found(exact_shapley(game), note=f"exact: all {2**players} coalitions")
    pairs = count // 2
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(players) for _ in range(pairs)]
    orders = [order for each in orders for order in (each, each[::-1])]
    present = np.zeros((len(orders), players + 1, players), dtype=bool)
    for row, order in enumerate(orders):
        for size, player in enumerate(order, 1):
            present[row, size:, player] = True
    values = game.values(present.reshape(-1, players)).reshape(len(orders), players + 1, -1)
    gains = np.empty((len(orders), players, values.shape[-1]))
    for row, order in enumerate(orders):
        gains[row, order] = np.diff(values[row], axis=0)
    by_pair = gains.reshape(pairs, 2, players, -1).mean(axis=1)
    error = by_pair.mean(axis=-1).std(axis=0, ddof=1) / np.sqrt(pairs)
    return Found(by_pair.mean(axis=0).T, error, f"sampled: {2 * pairs} permutations{why}")


def plan(game: Game, samples: int | None) -> tuple[int | None, str]:
    """How many permutations to draw, or None for all coalitions; and why.

    Unless asked otherwise: all coalitions up to `EXACT_LENGTH` players on a small LM, and on a
    large one up to as many as `QUICK_WORK` affords; above, `PERMUTATIONS`, or again what is
    affordable, but no fewer than `FEWEST`. Where all coalitions are as few as the samples asked
    for would take, they are what is computed.
    """
    players = game.players
    if samples is not None:
        if samples < 4:
            raise SoftlensError(
                f"Got samples={samples}, wanted at least 4 permutations, from which an error can "
                "be estimated, or None for all coalitions where that is quick."
            )
        # All but the empty and the full one, which every permutation shares.
        all_as_few = players < 64 and 2**players - 2 <= 2 * (samples // 2) * (players - 1)
        return (None, "") if all_as_few else (samples, "")
    affordable = QUICK_WORK / (game.lm.parameters * len(game.texts))
    if players <= EXACT_LENGTH and (
        game.lm.is_small or game.tokens(2**players, exact=True) <= affordable
    ):
        return None, ""
    if game.lm.is_small:
        return PERMUTATIONS, f", as there are more than {EXACT_LENGTH}"
    each = game.tokens(players - 1, exact=False)
    count = int(np.clip(affordable // each, FEWEST, PERMUTATIONS)) // 2 * 2
    return count, ", which take seconds on an LM of this size (samples= draws more)"


def exact_shapley(game: Game) -> np.ndarray:
    """Shapley values from all coalitions, shape (texts, players)."""
    weights = np.array([order_share(size, game.players) for size in range(game.players)])
    return np.stack([weights[sizes] @ gains for sizes, gains in all_gains(game)], axis=1)


def all_gains(game: Game) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each player adds to each coalition without it.

    Returns:
        For each player the coalitions' sizes, shape (2 ** (players - 1),), and its gains there,
        shape (2 ** (players - 1), texts).
    """
    players = game.players
    bits = np.arange(2**players)[:, None] >> np.arange(players) & 1
    values = game.values(bits.astype(bool))
    found = []
    for player in range(players):
        without = np.flatnonzero(bits[:, player] == 0)
        gains = values[without | 1 << player] - values[without]
        found.append((bits[without].sum(axis=1), gains))
    return found


def order_share(size: int, players: int) -> float:
    """Share of orders in which exactly a given coalition of `size` precedes a player."""
    return 1 / (players * comb(players - 1, size))


def leave_one_out(game: Game, samples: int | None, steps: int, seed: int) -> Found:
    """What is lost when one player is absent and all others are there (occlusion).

    Zeiler & Fergus (2014); Li, Monroe & Jurafsky (2016), arXiv 1612.08220.
    """
    present = np.ones((game.players + 1, game.players), dtype=bool)
    present[1:][np.eye(game.players, dtype=bool)] = False
    values = game.values(present)
    return Found((values[0] - values[1:]).T)


@torch.no_grad()
def integrated_gradients(game: Game, samples: int | None, steps: int, seed: int) -> Found:
    """The gradient along the straight line from the absent prompt, times that line.

    Sundararajan, Taly & Yan (2017), arXiv 1703.01365. The integral is taken by Gauss-Legendre
    quadrature with `steps` points.
    """
    if steps < 1:
        raise SoftlensError(f"Got steps={steps}, wanted at least 1.")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    along = torch.tensor((nodes + 1) / 2, dtype=torch.float32)[:, None, None]
    share = torch.tensor(weights / 2, dtype=torch.float32)
    total = np.zeros((len(game.texts), game.players))
    for start in game.stand_ins.cpu():
        line = game.vectors.cpu() - start
        slopes = game.gradients(start + along * line)
        mean = torch.einsum("s,tslh->tlh", share, slopes)
        total += game.by_player((mean.double() * line.double()).sum(dim=-1).numpy())
    return Found(total / len(game.stand_ins), note=f"{steps} points of the path")


@torch.no_grad()
def gradient_x_input(game: Game, samples: int | None, steps: int, seed: int) -> Found:
    """The gradient at the prompt, times the prompt's distance from the absent one.

    Shrikumar et al. (2016), arXiv 1605.01713, where the absent prompt is zero.
    """
    slopes = game.gradients(game.vectors[None])[:, 0].double()
    line = (game.vectors - game.stand_ins.mean(dim=0)).cpu().double()
    return Found(game.by_player((slopes * line).sum(dim=-1).numpy()))


@torch.no_grad()
def attention_rollout(game: Game, samples: int | None, steps: int, seed: int) -> Found:
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
        inside.attention_weights(lm.model, rows), texts.befores, strict=True
    ):
        reached = torch.eye(weights.shape[-1], device=weights.device)
        for layer in weights.mean(dim=1):
            reached = (layer + torch.eye(len(layer), device=layer.device)) / 2 @ reached
        own = slice(len(before), len(before) + len(game.vectors))
        found.append(reached[-1, own].cpu().double().numpy())
    return Found(game.by_player(np.stack(found)))


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


def checked(method: str, target: str | tuple[str, str], absent: str | None) -> str | None:
    """What absence means for `method`, after checking that it can have this target."""
    if method not in METHODS:
        raise SoftlensError(
            f"Unknown method {method!r}.{near(method, METHODS)} Known: {[*METHODS]}."
        )
    known = METHODS[method]
    if known.absent is None:
        if absent is not None:
            raise SoftlensError(f"{method!r} knows no absent positions; leave absent= out.")
        return None
    chosen = absent or known.absent
    if not known.gradient:
        return chosen
    if chosen == "removed":
        raise SoftlensError(
            f"{method!r} follows a path to the absent prompt, and there is none to one that is "
            "shorter. Use absent='mean_embedding', 'random_row' or 'zero', or another method."
        )
    if isinstance(target, str) and target in TARGETS and not TARGETS[target].gradient:
        raise SoftlensError(
            f"The target {target!r} has no gradient, and {method!r} follows one. Use "
            "target='log_prob', or method='shapley'."
        )
    if method == "gradient_x_input" and target == "kl":
        raise SoftlensError(
            "The KL divergence from the whole prompt is at its minimum there, so its gradient is "
            "zero. Use 'integrated_gradients', or another target."
        )
    return chosen
