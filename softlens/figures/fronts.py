"""The trade-off of a method beside the gold front, and the gap taken apart."""

import pandas as pd

from softlens import plots
from softlens.figures.base import Drawn, Ground, figure
from softlens.statistics import mean_interval
from softlens.tradeoff import price_split

SHOWN = [
    "task", "method", "proxy", "weight", "seed", "text", "accuracy", "accuracy_dev", "label_mass",
    "nats_per_token", "chance", "empty_accuracy", "random_accuracy", "readable_accuracy",
]  # fmt: skip


def turned_up(ground: Ground) -> pd.DataFrame:
    """The runs whose only proxy, if any, is perplexity."""
    frame = ground.sweep.frame
    return frame[frame["proxy"].isin(["none", "perplexity"])]


def _tradeoff(ground: Ground, method: str, says: str) -> Drawn:
    frame = turned_up(ground)
    frame = frame[frame["method"].isin([method, "soft"])]
    axes = plots.plot_tradeoff(frame)
    first = axes.ravel()[0] if hasattr(axes, "ravel") else axes
    known = "what could be had: the gold front, every question of the language scored"
    if not ground.is_organism:
        known = "the pooled bound: the best of these runs, chosen on dev; the truth is above it"
    caption = (
        f"{says} Points are runs, larger with more weight on the perplexity proxy "
        f"({', '.join(f'{w:g}' for w in sorted(frame['weight'].unique()))}). Coloured steps: what "
        "is reached at each surprisal, the run of each seed chosen on dev, then averaged, with its "
        f"interval. Black: {known}. Thin lines: the best readable prompt, random prompts (mean of "
        "five) and no prompt; dashed blue: the mean of soft prompts of that length. "
        f"{ground.stated()}"
    )
    return Drawn(first.figure, frame[SHOWN], caption)


@figure(2, "The trade-off of PEZ")
def tradeoff_pez(ground: Ground) -> Drawn:
    """PEZ asked to be fluent, more and more."""
    return _tradeoff(ground, "pez", "PEZ asked to be fluent, more and more, and what could be had.")


@figure(3, "The trade-off of RLPrompt")
def tradeoff_rlprompt(ground: Ground) -> Drawn:
    """RLPrompt, whose policy starts at the LM."""
    return _tradeoff(
        ground, "rlprompt", "RLPrompt, whose policy starts at the LM and so is fluent from the "
        "first step."
    )  # fmt: skip


def prices(split: pd.DataFrame) -> str:
    """Each method's two prices, the means over all of its runs, as captions say them."""
    parts = ["price_of_interpretability", "price_of_optimiser"]
    means = split.groupby("method", sort=False)[parts].mean()
    return "; ".join(f"{m} {one:.2f} and {other:.2f}" for m, one, other in means.itertuples())


@figure(4, "The price taken apart")
def price_apart(ground: Ground) -> Drawn:
    """What being readable costs, and what the optimiser costs."""
    split = price_split(turned_up(ground))
    axes = plots.plot_price(split)
    first = axes.ravel()[0] if hasattr(axes, "ravel") else axes
    parts = ["gap", "price_of_interpretability", "price_of_optimiser"]
    by = ["task", "method", "weight"]
    means = pd.concat([mean_interval(split, by, part).assign(part=part) for part in parts])
    reference = split["reference"].iloc[0]
    above = ""
    if (split["price_of_optimiser"] < -1e-9).any():
        above = "A part below zero belongs to runs above the front"
        above += ", which was measured on more texts. " if ground.quick else ". "
    caption = (
        "How far each run's test accuracy lies below the best readable prompt's, in two parts that "
        f"add up: the price of interpretability (what the {reference} itself loses at the run's "
        "surprisal) and the price of the optimiser (the rest: what could be had at that surprisal "
        "and was not found). Bars are means over seeds, points the gaps of the runs, lines their "
        f"intervals. {above}"
        "Mean over tasks and seeds (interpretability and optimiser), without a proxy: "
        f"{prices(split[split['weight'] == 0])}; with one, over its weights: "
        f"{prices(split[split['weight'] > 0])}. "
        + ("" if reference == "gold front" else "The price of the optimiser is at least this. ")
        + ground.stated()
    )
    columns = [*SHOWN[:6], "accuracy", "nats_per_token", "reference", "best", "reachable", *parts]
    frame = pd.concat([split[columns].assign(part="run"), means], ignore_index=True)
    return Drawn(first.figure, frame, caption)
