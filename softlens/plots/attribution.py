"""Attributions, position by position."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from softlens.errors import SoftlensError, near
from softlens.plots.surprisal import KINDS
from softlens.plots.tokens import plot_bars, plot_tokens

if TYPE_CHECKING:
    from softlens.attribution import Attribution


def plot_attribution(found: "Attribution", ax: Axes | None = None, kind: str = "bars") -> Axes:
    """Attribution of each position of a prompt.

    Args:
        found: what `softlens.attribute` returned.
        ax: where to draw; a new figure unless given.
        kind: "bars", with 95% intervals of the mean over texts; or "tokens": boxes in reading
            order. What is negative is orange, and hatched in bars.
    """
    if kind not in KINDS:
        raise SoftlensError(f"Got kind {kind!r}, wanted one of {KINDS}.{near(kind, KINDS)}")
    values = found.frame["attribution"].tolist()
    unit = f"{found.method.replace('_', ' ')} ({found.unit})"
    if kind == "tokens":
        return plot_tokens(found.pieces, values, unit, ax, signed=found.signed)
    errors = found.frame["standard_error"].tolist()
    return plot_bars(found.pieces, values, unit.replace(" (", "\n("), ax, errors, found.signed)
