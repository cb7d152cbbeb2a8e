"""Pictures of results: functions that draw tables, and need no LM."""

from softlens.plots.controls import plot_controls
from softlens.plots.front import plot_front
from softlens.plots.history import plot_history
from softlens.plots.nearest import plot_nearest
from softlens.plots.reading import plot_reading
from softlens.plots.style import COLOURS, MARKERS, METHODS, look, save, show_plot, style
from softlens.plots.tested import plot_curve, plot_faithfulness, plot_loss, plot_surprisals
from softlens.plots.weights import plot_weights

__all__ = [
    "COLOURS",
    "MARKERS",
    "METHODS",
    "look",
    "plot_controls",
    "plot_curve",
    "plot_faithfulness",
    "plot_front",
    "plot_history",
    "plot_loss",
    "plot_nearest",
    "plot_reading",
    "plot_surprisals",
    "plot_weights",
    "save",
    "show_plot",
    "style",
]
