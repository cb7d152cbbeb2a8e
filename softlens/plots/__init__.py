"""Pictures of results: functions that draw tables, and need no LM."""

from softlens.plots.attribution import plot_attribution
from softlens.plots.cells import heat_map
from softlens.plots.comparison import plot_comparison
from softlens.plots.controls import plot_controls
from softlens.plots.front import plot_front
from softlens.plots.goodhart import plot_overoptimisation
from softlens.plots.history import plot_history
from softlens.plots.nearest import (
    plot_lens,
    plot_nearest,
    plot_nearest_by_metric,
    plot_path,
)
from softlens.plots.oddities import plot_oddities
from softlens.plots.paths import plot_fade_in
from softlens.plots.reading import plot_reading
from softlens.plots.style import COLOURS, MARKERS, METHODS, look, save, show_plot, style
from softlens.plots.surprisal import plot_surprisal
from softlens.plots.tested import plot_curve, plot_faithfulness, plot_loss
from softlens.plots.tokens import plot_bars, plot_tokens
from softlens.plots.tradeoff import plot_price, plot_tradeoff
from softlens.plots.weights import plot_weights
from softlens.plots.words import plot_words

__all__ = [
    "COLOURS",
    "MARKERS",
    "METHODS",
    "heat_map",
    "look",
    "plot_attribution",
    "plot_bars",
    "plot_comparison",
    "plot_controls",
    "plot_curve",
    "plot_fade_in",
    "plot_faithfulness",
    "plot_front",
    "plot_history",
    "plot_lens",
    "plot_loss",
    "plot_nearest",
    "plot_nearest_by_metric",
    "plot_oddities",
    "plot_overoptimisation",
    "plot_path",
    "plot_price",
    "plot_reading",
    "plot_surprisal",
    "plot_tokens",
    "plot_tradeoff",
    "plot_weights",
    "plot_words",
    "save",
    "show_plot",
    "style",
]
