"""From the absent prompt to the whole one, on the two paths that attributions take.

Integrated gradients and Shapley values share out the same difference, by what each position adds on
the way from nothing to everything. They take different ways (Owen 1972; Sundararajan et al. 2017):

* *faded*: all positions at once, each vector a mixture of the absent and its own. What is met
  between are vectors that the LM never saw;
* *drawn*: whole positions, each present with the same probability. What is met between are prompts
  with holes.

At a share q of the way, the target is that of the mixture, or its mean over coalitions drawn so.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import betainc
from scipy.stats import spearmanr

from softlens.attribution.game import Game, Texts, make_game
from softlens.attribution.methods import all_gains, checked, order_share, plan
from softlens.attribution.targets import TARGETS
from softlens.attribution.view import position_tokens
from softlens.display import Result, number, piece, show, token_boxes, visible
from softlens.errors import SoftlensError
from softlens.evaluation import AnyPrompt, scored_as
from softlens.lm import LM
from softlens.prompts import meant
from softlens.tasks import Task

FADED, DRAWN = "faded", "drawn"
SEGMENTS = 16
"""Places on the way at which the target is shown."""


@dataclass(frozen=True, repr=False)
class FadeIn(Result):
    """What the target is on the way to the whole prompt, and which positions it is owed to."""

    target: str
    """A name in `softlens.attribution.TARGETS`."""
    unit: str
    """Of the target and of attributions."""
    absent: str
    """Where the way begins: what absent positions are."""
    scored: str
    """What the LM was fed: "soft" vectors (named by their nearest tokens), "tokens" or "text"."""
    n: int
    """Texts."""
    split: str
    """Which split they are from."""
    note: str
    """What is missing, or empty."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``path, share, value, gain, standard_error``: the target's mean over texts at each share of
    the way, what it has gained since the beginning, and how far another draw of as many texts may
    move that gain."""
    gathered: pd.DataFrame = field(repr=False, compare=False)
    """``path, share, position, token, attribution``: what each position has added up to there; at
    share 1 the integrated gradient (faded) and the exact Shapley value (drawn)."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The tokens as `softlens.display.piece` gives them, for views."""

    def ends(self, path: str) -> np.ndarray:
        """Attributions at the end of a path, shape (length,)."""
        rows = self.gathered[(self.gathered["path"] == path) & (self.gathered["share"] == 1)]
        return rows["attribution"].to_numpy()

    @property
    def rank_correlation(self) -> float:
        """Spearman between where the two paths end; NaN where one is missing or has no order."""
        one, other = self.ends(FADED), self.ends(DRAWN)
        if len(one) != len(other) or np.ptp(one) == 0 or np.ptp(other) == 0:
            return float("nan")
        return float(spearmanr(one, other).statistic)

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        named = ", positions named by their nearest tokens" if self.scored == "soft" else ""
        faded = self.frame[self.frame["path"] == FADED]
        low, high = faded["value"].min(), faded["value"].max()
        said = (
            f"the way to a {self.scored} prompt{named}, from absent: {self.absent}. "
            f"{TARGETS[self.target].says} ({self.unit}), mean over {self.n} {self.split} texts: "
            f"{faded['value'].iloc[0]:.3f} at its beginning, {faded['value'].iloc[-1]:.3f} at its "
            f"end; between, {low:.3f} to {high:.3f} with vectors faded in"
        )
        drawn = self.frame[self.frame["path"] == DRAWN]
        if len(drawn):
            said += (
                f", {drawn['value'].min():.3f} to {drawn['value'].max():.3f} with positions drawn "
                f"in; rank correlation of the ends {number(self.rank_correlation) or 'undefined'}"
            )
        return said + (f"; {self.note}" if self.note else "")

    @property
    def table(self) -> pd.DataFrame:
        """A row a position: what each path owes to it."""
        columns = {"position": range(len(self.pieces)), "token": map(show, self.pieces)}
        ends = {f"{path} ({name})": self.ends(path) for path, name in _NAMES.items()}
        return visible(pd.DataFrame(columns | {k: v for k, v in ends.items() if len(v)}))

    def plot(self, ax: Any = None) -> np.ndarray:
        """A panel for each path: what each position has added, and all of them."""
        from softlens.plots import plot_fade_in

        return plot_fade_in(self, ax)

    def _repr_html_(self) -> str:
        boxes = [
            token_boxes(self.pieces, self.ends(path).tolist(), f"{self.unit}, {name}",
                        f"{name} of each position", signed=True)
            for path, name in _NAMES.items()
            if len(self.ends(path))
        ]  # fmt: skip
        return "".join(boxes) + super()._repr_html_()


_NAMES = {FADED: "integrated gradients", DRAWN: "Shapley values"}


@torch.no_grad()
def fade_in(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    target: str | tuple[str, str] = "log_prob",
    absent: str = "mean_embedding",
    *,
    texts: Texts = None,
    split: str = "test",
    samples: int | None = None,
    steps: int = 64,
    seed: int = 0,
    truncate: bool = False,
    progress: bool = True,
) -> FadeIn:
    """Follow the target from the absent prompt to the whole one, to see why attributions differ.

    Args:
        lm: the LM.
        task: the task.
        prompt: a `Prompt`, a text, a `Reading` (the tokens it found) or a `Run`.
        target: as in `softlens.attribute`; one with a gradient.
        absent: where the way begins: "mean_embedding", "random_row" or "zero".
        texts: how many, or which; as in `softlens.attribute`.
        split: "test", "dev" or "train".
        samples: as in `softlens.attribute`. The drawn path needs all coalitions, and is left out
            where `attribute` would sample; a larger number asks for them.
        steps: gradients along the faded path.
        seed: of random rows.
        truncate: shorten texts that exceed the LM's context.
        progress: show a bar.

    Raises:
        SoftlensError: as `attribute` does for integrated gradients.

    Source: Sundararajan, Taly & Yan (2017), arXiv 1703.01365; for the drawn path, Owen (1972),
    "Multilinear extensions of games". Side by side: ours.
    """
    checked("integrated_gradients", target, absent)
    if steps < SEGMENTS:
        raise SoftlensError(f"Got steps={steps}, wanted at least {SEGMENTS}, one a segment.")
    asked = meant(lm, prompt)
    game = make_game(lm, task, asked, target, absent, texts, split, seed, truncate, progress)
    shares = np.linspace(0, 1, SEGMENTS + 1)
    paths = {FADED: _faded(game, steps // SEGMENTS)}
    note = f"the path of drawn positions is left out, as {game.players} have too many coalitions"
    if plan(game, samples)[0] is None:
        paths[DRAWN], note = _drawn(game, shares), ""
    ids = position_tokens(lm, task, asked)
    tokens = [lm.token(i) for i in ids]
    count = len(game.texts)
    frames, gathered = [], []
    for path, (values, gains) in paths.items():
        gained = values - values[:, :1]
        spread = np.full(len(shares), np.nan)
        if count > 1:
            spread = gained.std(axis=0, ddof=1) / np.sqrt(count)
        frames.append(
            pd.DataFrame({"path": path, "share": shares, "value": values.mean(axis=0),
                          "gain": gained.mean(axis=0), "standard_error": spread})
        )  # fmt: skip
        gathered.append(
            pd.DataFrame(
                {
                    "path": path,
                    "share": np.repeat(shares, len(ids)),
                    "position": np.tile(np.arange(len(ids)), len(shares)),
                    "token": tokens * len(shares),
                    "attribution": gains.mean(axis=0).ravel(),
                }
            )
        )
    return FadeIn(
        target=game.target.name,
        unit=game.target.unit,
        absent=absent,
        scored=scored_as(asked),
        n=count,
        split=split,
        note=note,
        frame=pd.concat(frames, ignore_index=True),
        gathered=pd.concat(gathered, ignore_index=True),
        pieces=tuple(piece(lm, i) for i in ids),
    )


def _faded(game: Game, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (texts, shares) and what positions have added (texts, shares, length).

    Each segment between two shares has a Gauss-Legendre quadrature of its own.
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    starts = np.arange(SEGMENTS) / SEGMENTS
    between = (starts[:, None] + (nodes + 1) / 2 / SEGMENTS).ravel()
    shares = np.linspace(0, 1, SEGMENTS + 1)
    along = torch.tensor(np.concatenate([shares, between]), dtype=torch.float32)[:, None, None]
    worth = np.zeros((len(game.texts), len(shares)))
    gains = np.zeros((len(game.texts), len(shares), game.players))
    for start in game.stand_ins.cpu():
        line = game.vectors.cpu() - start
        values, slopes = game.followed(start + along * line)
        worth += values[:, : len(shares)].double().numpy()
        by_position = (slopes[:, len(shares) :].double() * line.double()).sum(dim=-1).numpy()
        by_segment = by_position.reshape(len(worth), SEGMENTS, points, -1)
        added = np.einsum("p,tspl->tsl", weights / 2 / SEGMENTS, by_segment)
        gains[:, 1:] += added.cumsum(axis=1)
    return worth / len(game.stand_ins), gains / len(game.stand_ins)


def _drawn(game: Game, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same where positions are present with the probability of the share, all of them alike.

    A position's gain at q is that on a coalition of k others, which has the probability
    q ** k (1 - q) ** (players - 1 - k); its integral to q is an incomplete beta function.
    """
    players = game.players
    sizes = np.arange(players)
    upto = betainc(sizes + 1.0, players - sizes, shares[:, None])
    upto *= [order_share(int(size), players) for size in sizes]
    gains = [upto[:, size] @ gain for size, gain in all_gains(game)]
    nothing = game.values(np.zeros((1, players), dtype=bool))[0]
    added = np.stack(gains, axis=-1).transpose(1, 0, 2)
    return nothing[:, None] + added.sum(axis=-1), added
