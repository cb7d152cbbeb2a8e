"""A reading: a text proposed as what a prompt says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.behaviour import log_answers
from softlens.display import Result, piece, show_text
from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts
from softlens.prompts import LMName, Prompt, lacking
from softlens.tasks import Task
from softlens.templates import template_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Expert:
    """One of several texts that a reading mixes, and its weight in the product."""

    text: str
    token_ids: tuple[int, ...]
    weight: float
    low: float
    """Lower end of the weight's 95% bootstrap interval over texts."""
    high: float


@dataclass(frozen=True, repr=False)
class Reading(Result):
    """A text proposed as what a prompt says: a claim, to be tested by `softlens.faithfulness`."""

    text: str
    """What the prompt is said to say."""
    token_ids: tuple[int, ...]
    """Its tokens as the method found them; what is scored first."""
    text_ids: tuple[int, ...]
    """The tokens of `text` where it stands; what is scored if somebody types the reading in."""
    method: str
    """How it was obtained."""
    lm: LMName
    """The LM it is a reading of."""
    score: float | None = None
    """The method's own score, in `score_unit`; not comparable between methods."""
    score_unit: str = ""
    """What the score is, and which way is better."""
    experts: tuple[Expert, ...] = ()
    """The texts of a mixture; `text` and `token_ids` are then those of the heaviest."""
    frame: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    """What else the method found, as its docstring says."""
    pieces: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """The tokens as `softlens.display.piece` gives them, for views."""

    @classmethod
    def from_ids(
        cls, lm: LM, ids: Sequence[int], method: str, leading_space: bool = True, **known: Any
    ) -> Reading:
        """A reading of these tokens; `known` are further fields.

        Raises:
            SoftlensError: no tokens, or ids outside the vocabulary.
        """
        if not len(ids):
            raise SoftlensError(
                "The reading is empty: a prompt that says nothing is the empty prompt, which "
                "stands beside every reading as a control. Give at least one token."
            )
        prompt = Prompt.from_ids(lm, ids)
        assert prompt.token_ids is not None
        assert prompt.text is not None
        return cls(
            text=prompt.text,
            token_ids=prompt.token_ids,
            text_ids=tuple(lm.encode(prompt.text, leading_space=leading_space)),
            method=method,
            lm=prompt.lm,
            pieces=tuple(piece(lm, index) for index in prompt.token_ids),
            **known,
        )

    @classmethod
    def from_text(
        cls, lm: LM, text: str, method: str = "given", task: Task | None = None
    ) -> Reading:
        """A reading that somebody proposes: `text`, encoded as it stands in the task's template.

        Raises:
            SoftlensError: no tokens, or words that the LM does not have.
        """
        space = stands_inside(task)
        return cls.from_ids(lm, tokens_of(lm, text, "reading", space), method, space)

    @property
    def round_trip(self) -> bool:
        """Whether the text's own tokens are those that were found."""
        return self.token_ids == self.text_ids

    @property
    def shown(self) -> str:
        """The reading in words, inert; of a mixture, its weights and texts."""
        if not self.experts:
            return show_text(self.text)
        return " ".join(
            f"{e.weight:+.2f} × ({show_text(e.text) or 'no prompt'})" for e in self.experts
        )

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        score = "" if self.score is None else f"; {self.score_unit} {self.score:.3f}"
        trip = "" if self.round_trip else "; typed in, it has other tokens"
        return f"reading by {self.method}: {self.shown}{score}{trip}"

    def check(self, lm: LM) -> None:
        """Raise `SoftlensError` unless this is a reading of `lm`."""
        if self.lm.checksum != lm.checksum:
            raise SoftlensError(
                f"The reading {show_text(self.text)!r} is of {self.lm.name!r} (checksum "
                f"{self.lm.checksum}), and this is {lm.name!r} (checksum {lm.checksum}). Its text "
                "can be carried over: sl.Reading.from_text(lm, reading.text)."
            )

    def as_prompt(self, lm: LM) -> Prompt:
        """The hard prompt of the tokens that were found.

        Raises:
            SoftlensError: a reading of another LM, or a mixture: several texts are no prompt.
        """
        self.check(lm)
        if self.experts:
            raise SoftlensError(
                f"This reading mixes {len(self.experts)} texts, which no prompt says. Look at one: "
                "reading.experts[0].text, or reading.text, the heaviest."
            )
        return Prompt.from_ids(lm, self.token_ids)

    def log_answers(self, lm: LM, texts: EncodedTexts) -> Float[Tensor, "texts vocab"]:
        """Log-probabilities at the answer position under the reading, nats.

        A mixture's are the normalised product of its experts', each to the power of its weight.
        """
        if not self.experts:
            return log_answers(lm, [self.token_ids], texts)[0]
        each = log_answers(lm, [expert.token_ids for expert in self.experts], texts)
        return product_of(each, torch.tensor([expert.weight for expert in self.experts]))

    def plot(self, ax: Axes | None = None) -> Axes:
        """What the method has to show: a path, weights, or nearest tokens' scores."""
        from softlens.plots import plot_reading

        return plot_reading(self, ax)


def product_of(
    log_probs: Float[Tensor, "experts texts answers"], weights: Float[Tensor, " experts"]
) -> Float[Tensor, "texts answers"]:
    """Log of the normalised weighted product of experts (Hinton 2002)."""
    weighted = torch.tensordot(weights.to(log_probs), log_probs, dims=1)
    return weighted.log_softmax(dim=-1)


def tokens_of(lm: LM, text: str, what: str, leading_space: bool = True) -> list[int]:
    """Tokens of a text that somebody gives.

    Raises:
        SoftlensError: it has words that the LM does not have; `what` names the text.
    """
    if missing := lacking(lm, text):
        lower = "" if lacking(lm, text.lower()) else " In lower case it has them."
        raise SoftlensError(
            f"The {what} {text!r} has words that {lm.name!r} does not have: "
            f"{', '.join(map(repr, missing))}.{lower} Use words that it has."
        )
    return lm.encode(text, leading_space=leading_space)


def stands_inside(task: Task | None) -> bool:
    """Whether something stands before the prompt, so that its text has a leading space."""
    return task is None or bool(template_parts(task.template)[0])
