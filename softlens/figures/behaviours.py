"""Odd behaviour counted, and the proxy beside its held-out gauges."""

from softlens.figures.base import Drawn, Ground, figure
from softlens.figures.fronts import turned_up
from softlens.goodhart import Overoptimisation, overoptimisation
from softlens.oddities import odd_rules, oddities


@figure(5, "Odd behaviour, counted")
def odd_behaviour(ground: Ground) -> Drawn:
    """Named behaviours by stated rules, for each method and weight."""
    found = oddities(turned_up(ground))
    axes = found.plot()
    rules = "; ".join(
        f"*{row['behaviour'].replace('_', ' ')}*: {row['stated']}"
        for row in odd_rules().to_dict("records")
    )
    counts = found.counts(["method", "weight"])
    caption = (
        "How many prompts of each method and weight of the perplexity proxy show each behaviour, "
        f"of how many, all tasks and seeds together. The rules: {rules}. "
        f"{ground.stated()} The CSV has Wilson's 95% intervals of the shares."
    )
    return Drawn(axes.figure, counts, caption)  # type: ignore[arg-type]


def where_they_part(found: Overoptimisation) -> str:
    """Each gauge that parts from its proxy, with the weight from which on it does."""
    parted = found.parts.dropna(subset=["parts_at"])
    says = "; ".join(
        f"{row['task']} {row['method']}: {row['gauge'].replace('_', ' ')} at {row['parts_at']:g}"
        for row in parted.to_dict("records")
    )
    untold = f"{found.untold} of {len(found.parts)} cannot be told (one seed)"
    return (says or "nowhere") + (f"; {untold}" if found.untold else "")


@figure(6, "Over-optimisation of the proxy")
def over_optimisation(ground: Ground) -> Drawn:
    """The perplexity proxy against gauges that no tuner saw."""
    found = overoptimisation(turned_up(ground))
    axes = found.plot()
    caption = (
        "The proxy that is optimised (first panel of each task) and what it stands for, along its "
        "weight. Lines are means over seeds, bands their intervals; arrows say which way is good. "
        "A star stands where a gauge parts from the proxy: compared with the gauge's best smaller "
        "weight, the proxy is better and the gauge worse, both beyond their paired 95% intervals "
        "(of fewer than six seeds: in every seed, too) and by as much as matters (.05 of a share, "
        ".25 nats). Thin lines: the controls. They "
        f"part: {where_they_part(found)}. So few seeds make rough intervals. {ground.stated()}"
    )
    return Drawn(axes.ravel()[0].figure, found.frame, caption)
