"""Attribution: which positions of a prompt carry the answer, and which method to believe.

`targets` says what is asked of a text, `game` what a coalition of positions or words is worth,
`methods` share that worth out, `view` is the function `attribute` with its result, `words` its
result on the words of texts. `compare` judges the methods, `paths` shows why two of them differ.
"""

from softlens.attribution.compare import AttributionComparison, compare_attributions
from softlens.attribution.game import ABSENT, Game, make_game
from softlens.attribution.methods import EXACT_LENGTH, METHODS
from softlens.attribution.paths import FadeIn, fade_in
from softlens.attribution.planted import plant, randomised
from softlens.attribution.targets import TARGETS
from softlens.attribution.view import Attribution, attribute
from softlens.attribution.words import WordAttribution

__all__ = [
    "ABSENT",
    "EXACT_LENGTH",
    "METHODS",
    "TARGETS",
    "Attribution",
    "AttributionComparison",
    "FadeIn",
    "Game",
    "WordAttribution",
    "attribute",
    "compare_attributions",
    "fade_in",
    "make_game",
    "plant",
    "randomised",
]
