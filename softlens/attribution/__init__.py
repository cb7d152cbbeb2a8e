"""Attribution: which positions of a prompt carry the answer, and which method to believe.

`game` says what a coalition of positions is worth, `methods` share that worth out, `view` is the
function `attribute` with its result, and `compare` judges the methods.
"""

from softlens.attribution.compare import AttributionComparison, compare_attributions
from softlens.attribution.game import ABSENT, TARGETS, Game, make_game
from softlens.attribution.methods import EXACT_LENGTH, METHODS
from softlens.attribution.planted import plant, randomised
from softlens.attribution.view import Attribution, attribute

__all__ = [
    "ABSENT",
    "EXACT_LENGTH",
    "METHODS",
    "TARGETS",
    "Attribution",
    "AttributionComparison",
    "Game",
    "attribute",
    "compare_attributions",
    "make_game",
    "plant",
    "randomised",
]
