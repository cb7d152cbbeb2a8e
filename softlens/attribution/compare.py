"""Judging attributions: which method should be believed?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from softlens.attribution.game import Game, Texts, make_game
from softlens.attribution.methods import METHODS, checked, plan, shapley
from softlens.attribution.planted import plant, randomised
from softlens.attribution.view import Attribution, of_game
from softlens.display import Result, visible
from softlens.errors import SoftlensError
from softlens.evaluation import AnyPrompt, prompt_vectors
from softlens.lm import LM
from softlens.prompts import Prompt, meant
from softlens.tasks import Task

CHANCE = "random order"
"""The row of orders drawn at random: what a method has to beat."""
RANDOM_ORDERS = 24
MEASURES = {
    "comprehensiveness": "loss without the top k\n(high is good)",
    "sufficiency": "loss with the top k only\n(low is good)",
    "rank_correlation": "Spearman with\nexact Shapley",
    "planted": "planted position found\n(share)",
    "randomised_correlation": "Spearman with itself,\nweights shuffled (0 is good)",
}


@dataclass(frozen=True, repr=False)
class AttributionComparison(Result):
    """How methods of attribution do on the same prompts, texts, target and absence."""

    target: str
    unit: str
    """Of comprehensiveness and sufficiency."""
    absent: str
    n: int
    """Texts."""
    reference: str
    """What the rank correlation is with: exact Shapley values, or sampled ones."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """A row a prompt and method: ``prompt, method, comprehensiveness, sufficiency,
    rank_correlation, randomised_correlation, seconds``; NaN where a measure says nothing."""
    planted: pd.DataFrame = field(repr=False, compare=False)
    """A row a planted prompt and method: ``seed, position, found, recovered, gain``, the target's
    gain of the planted prompt over its random start."""

    @property
    def summary(self) -> pd.DataFrame:
        """The mean over prompts of each method, with the share of planted positions found."""
        columns = [c for c in (*MEASURES, "seconds") if c in self.frame]
        means = self.frame.groupby("method", sort=False)[columns].mean()
        if len(self.planted):
            found = self.planted.groupby("method")["recovered"].mean()
            means.insert(3, "planted", found.reindex(means.index))
        return means.reset_index()

    @property
    def table(self) -> pd.DataFrame:
        """`summary`, for showing."""
        return visible(self.summary)

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        prompts = self.frame["prompt"].nunique()
        return (
            f"attribution methods on {prompts} prompt{'s' * (prompts > 1)} and {self.n} texts, "
            f"target {self.target} ({self.unit}), absent: {self.absent}. Comprehensiveness: what "
            "is lost without the top k positions, mean over k, high is good; sufficiency: what is "
            f"lost with the top k only, low is good; rank correlation: Spearman with "
            f"{self.reference}; randomised: with itself on an LM whose weights are shuffled, 0 is "
            "good"
        )

    def plot(self, ax: Any = None) -> np.ndarray:
        """A panel for each measure: points are prompts, ticks their means."""
        from softlens.plots import plot_comparison

        return plot_comparison(self, ax)


def compare_attributions(
    lm: LM,
    task: Task,
    prompts: AnyPrompt | Sequence[AnyPrompt],
    methods: Sequence[str] | None = None,
    target: str | tuple[str, str] = "log_prob",
    absent: str = "mean_embedding",
    *,
    planted: int = 3,
    randomise: bool = True,
    texts: Texts = None,
    split: str = "test",
    samples: int | None = None,
    steps: int = 64,
    seed: int = 0,
    truncate: bool = False,
    progress: bool = True,
) -> AttributionComparison:
    """Judge methods of attribution on prompts of at least two positions.

    All methods are asked for the same target under the same absence, and judged at equal
    retention: comprehensiveness and sufficiency (DeYoung et al. 2020, arXiv 1911.03429, section 4)
    are means over k = 1 to length - 1 positions removed or kept.

    Args:
        lm: the LM.
        task: the task.
        prompts: one or several.
        methods: names in `softlens.attribution.METHODS`; all of them unless given.
        target: as in `softlens.attribute`.
        absent: what absent positions are, for the methods and for the judging alike.
        planted: how many prompts to plant (see `softlens.attribution.plant`), of the length of the
            first prompt, to see whether the planted position is found; 0 plants none.
        randomise: compare each method with itself on an LM whose weights are shuffled.
        texts: how many texts, or which; see `softlens.attribute` for this and what follows.
        split: "test", "dev" or "train".
        samples: permutations, where Shapley values are sampled; the reference has four times as
            many of its own.
        steps: points of the path of integrated gradients.
        seed: of everything that is drawn.
        truncate: shorten texts that exceed the LM's context.
        progress: show a bar.

    Raises:
        SoftlensError: as `attribute` does; prompts of a single position, which leave nothing to
            compare.
    """
    several: list[AnyPrompt] = (
        list(prompts) if isinstance(prompts, Sequence) and not isinstance(prompts, str)
        else [prompts]
    )  # fmt: skip
    asked = [meant(lm, prompt) for prompt in several]
    names = [*METHODS] if methods is None else list(methods)
    if not asked or not names:
        raise SoftlensError("Got no prompts or no methods to compare, wanted at least one of each.")
    how = {name: checked(name, target, absent if _knows_absence(name) else None) for name in names}
    for prompt in asked:
        if (length := len(prompt_vectors(lm, task, prompt))) < 2:
            raise SoftlensError(
                f"Got a prompt of {length} positions, wanted at least 2: with one there is no "
                "order to judge. `softlens.attribute` says what it is worth."
            )

    def game_of(model: LM, prompt: Prompt | str | None) -> Game:
        return make_game(
            model, task, prompt, target, absent, texts, split, seed, truncate, progress
        )

    def run(game: Game, name: str, prompt: Prompt | str | None) -> Attribution:
        return of_game(game, name, how[name], prompt, task, split, samples, steps, seed)

    broken = randomised(lm, seed) if randomise else None
    rows: list[dict[str, Any]] = []
    all_exact = True
    bar = tqdm(total=(len(asked) + planted) * len(names), desc="attributions", delay=2,
               leave=False, disable=not progress)  # fmt: skip
    rng = np.random.default_rng(seed)
    for number, prompt in enumerate(asked):
        judge = game_of(lm, prompt)
        reference, exact = _reference(judge, samples, seed)
        all_exact &= exact
        shuffled = None
        if broken is not None:
            vectors = prompt_vectors(lm, task, prompt)
            shuffled = game_of(broken, Prompt.soft(broken, vectors))
        for name in names:
            began = time.perf_counter()
            # A game of its own, so that each method pays for the values it asks.
            found = run(game_of(lm, prompt), name, prompt)
            seconds = time.perf_counter() - began
            scores = found.by_text.mean(axis=0)
            row = {"prompt": number, "method": name, **_retention(judge, [np.argsort(-scores)])}
            row["rank_correlation"] = _spearman(scores, reference)
            if shuffled is not None:
                again = run(shuffled, name, Prompt.soft(shuffled.lm, shuffled.vectors))
                row["randomised_correlation"] = _spearman(scores, again.by_text.mean(axis=0))
            rows.append(row | {"seconds": seconds})
            bar.update()
        orders = [rng.permutation(judge.players) for _ in range(RANDOM_ORDERS)]
        rows.append({"prompt": number, "method": CHANCE, **_retention(judge, orders)})
    hidden: list[dict[str, Any]] = []
    length = len(prompt_vectors(lm, task, asked[0]))
    for number in range(planted):
        position = int(rng.integers(length))
        prompt = plant(lm, task, length, position, seed=seed + number)
        game = game_of(lm, prompt)
        assert prompt.start_ids is not None
        start = game_of(lm, Prompt.from_ids(lm, prompt.start_ids))
        everything = np.ones((1, length), dtype=bool)
        gain = float(game.values(everything).mean() - start.values(everything).mean())
        for name in names:
            best = int(run(game, name, prompt).by_text.mean(axis=0).argmax())
            hidden.append(
                {
                    "seed": seed + number,
                    "method": name,
                    "position": position,
                    "found": best,
                    "recovered": best == position,
                    "gain": gain,
                }
            )
            bar.update()
        hidden.append({"seed": seed + number, "method": CHANCE, "position": position,
                       "recovered": 1 / length, "gain": gain})  # fmt: skip
    bar.close()
    return AttributionComparison(
        target=judge.target.name,
        unit=judge.target.unit,
        absent=absent,
        n=len(judge.texts),
        reference="exact Shapley values" if all_exact else "Shapley values, sampled where long",
        frame=pd.DataFrame(rows),
        planted=pd.DataFrame(
            hidden, columns=["seed", "method", "position", "found", "recovered", "gain"]
        ),
    )


def _knows_absence(method: str) -> bool:
    return method not in METHODS or METHODS[method].absent is not None


def _reference(game: Game, samples: int | None, seed: int) -> tuple[np.ndarray, bool]:
    """Shapley values to hold others against, and whether they are exact."""
    count, _ = plan(game, samples)
    found = shapley(game, None if count is None else 4 * count, 0, seed + 1)
    return found.by_text.mean(axis=0), found.sampling_error is None


def _retention(game: Game, orders: Sequence[np.ndarray]) -> dict[str, float]:
    """Comprehensiveness and sufficiency of orders (most important first), mean over orders."""
    present = []
    for order in orders:
        for k in range(1, game.players):
            kept = np.zeros(game.players, dtype=bool)
            kept[order[:k]] = True
            present += [kept, ~kept]
    values = game.values(np.array([np.ones(game.players, dtype=bool), *present])).mean(axis=1)
    return {
        "comprehensiveness": float(values[0] - values[2::2].mean()),
        "sufficiency": float(values[0] - values[1::2].mean()),
    }


def _spearman(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Rank correlation; NaN where either side has no order at all."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)
