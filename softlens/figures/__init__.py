"""The paper's figures, each from nothing to PDF, PNG, CSV and a caption.

``python -m softlens.figures figures`` (``make figures``) draws them all; ``--only NAME`` some,
``--lm gpt2 --task sst2`` those that need no organism on another LM. To add one, write a function of
a `Ground` that returns a `Drawn` in a file here, and name it with `figure`.

`base` says what figures are drawn on and how they are kept; `runs` makes the sweep that most of
them share; the other files hold a figure or two each.
"""

from softlens.figures import (  # noqa: F401  (each file registers its figures)
    behaviours,
    fronts,
    prompts,
    proxied,
    readings,
    real,
    soft_nearest,
    training,
    transferred,
)
from softlens.figures.base import FIGURES, Drawn, Ground, LeftOutError, draw
from softlens.figures.shown import Shown, show
from softlens.figures.soft_nearest import soft_and_nearest

__all__ = [
    "FIGURES",
    "Drawn",
    "Ground",
    "LeftOutError",
    "Shown",
    "draw",
    "show",
    "soft_and_nearest",
]
