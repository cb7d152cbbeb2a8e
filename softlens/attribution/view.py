"""The view: `attribute`, and what it returns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import pandas as pd

from softlens.attribution.game import Game, Texts, make_game
from softlens.attribution.methods import METHODS, checked
from softlens.attribution.targets import TARGETS
from softlens.attribution.words import WordAttribution, of_words
from softlens.decode import position_ids
from softlens.display import Result, marks, piece, show, token_boxes, visible
from softlens.errors import SoftlensError, near
from softlens.evaluation import AnyPrompt, scored_as
from softlens.lm import LM
from softlens.prompts import Prompt, meant
from softlens.tasks import Task
from softlens.templates import template_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Attribution(Result):
    """Which positions of a prompt carry the answer."""

    method: str
    """A name in `softlens.attribution.METHODS`."""
    target: str
    """A name in `softlens.attribution.TARGETS`: what is attributed."""
    unit: str
    """Of the attributions: "nats", "accuracy", or "share of attention" of a rollout."""
    absent: str | None
    """What positions are where they are absent; None for a method that knows no absence."""
    scored: str
    """What the LM was fed: "soft" vectors (named by their nearest tokens), "tokens" or "text"."""
    total: float
    """Sum of the attributions."""
    value: float
    """The target with the whole prompt, mean over texts."""
    value_absent: float
    """The target with every position absent. A complete method's total is `value` minus this; NaN
    where nothing is absent."""
    n: int
    """Texts."""
    split: str
    """Which split they are from."""
    note: str
    """How it was done: "exact: all 32 coalitions", "sampled: 64 permutations, ..."."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``position, token, attribution, standard_error, sampling_error``: how far another draw of as
    many texts may move an attribution, and how far sampled coalitions may (NaN if not sampled)."""
    by_text: np.ndarray = field(repr=False, compare=False)
    """Attributions text by text, shape (texts, length)."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The tokens as `softlens.display.piece` gives them, for views."""

    @property
    def gap(self) -> float:
        """Total minus (value - value_absent): how far from complete the attributions are."""
        return self.total - (self.value - self.value_absent)

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        named = ", positions named by their nearest tokens" if self.scored == "soft" else ""
        what = f"{self.method} of a {self.scored} prompt{named}"
        how = f"; {self.note}" if self.note else ""
        if self.absent is None:
            return f"{what}: {self.unit}, mean over {self.n} {self.split} texts{how}"
        # Only a path that was followed too coarsely leaves a complete method with a gap.
        why = "raise steps=" if METHODS[self.method].complete else "not a complete method"
        gap = "" if abs(self.gap) < 5e-3 else f" (gap {self.gap:+.3f}: {why})"
        return (
            f"{what} for {TARGETS[self.target].says} ({self.unit}), absent: "
            f"{self.absent}; {self.value_absent:.3f} without any position, {self.value:.3f} with "
            f"all, attributed {self.total:+.3f}{gap}; mean over {self.n} {self.split} texts{how}"
        )

    @property
    def signed(self) -> bool:
        """Whether attributions may be on both sides of zero; attention is not."""
        return self.absent is not None

    @property
    def table(self) -> pd.DataFrame:
        """A row a position, with its attribution as signs."""
        shown = visible(self.frame.drop(columns="token").dropna(axis="columns", how="all"))
        shown.insert(1, "token", [show(token) for token in self.pieces])
        shown.insert(3, "", marks(self.frame["attribution"].tolist(), self.signed))
        return shown

    def plot(self, ax: "Axes | None" = None, kind: str = "bars") -> "Axes":
        """Attribution of each position: "bars" with 95% intervals over texts, or "tokens"."""
        from softlens.plots import plot_attribution

        return plot_attribution(self, ax, kind)

    def _repr_html_(self) -> str:
        boxes = token_boxes(
            self.pieces,
            self.frame["attribution"].tolist(),
            self.unit,
            f"{self.method} attribution of each position",
            signed=self.signed,
        )
        return boxes + super()._repr_html_()


OF = ("prompt", "text")


@overload
def attribute(
    lm: LM, task: Task, prompt: AnyPrompt, method: str = ..., target: str | tuple[str, str] = ...,
    absent: str | None = ..., *, of: Literal["prompt"] = ..., texts: Texts = ..., split: str = ...,
    samples: int | None = ..., steps: int = ..., seed: int = ..., truncate: bool = ...,
    progress: bool = ...,
) -> Attribution: ...  # fmt: skip
@overload
def attribute(
    lm: LM, task: Task, prompt: AnyPrompt, method: str = ..., target: str | tuple[str, str] = ...,
    absent: str | None = ..., *, of: Literal["text"], texts: Texts = ..., split: str = ...,
    samples: int | None = ..., steps: int = ..., seed: int = ..., truncate: bool = ...,
    progress: bool = ...,
) -> WordAttribution: ...  # fmt: skip
def attribute(
    lm: LM,
    task: Task,
    prompt: AnyPrompt,
    method: str = "shapley",
    target: str | tuple[str, str] = "log_prob",
    absent: str | None = None,
    *,
    of: str = "prompt",
    texts: Texts = None,
    split: str = "test",
    samples: int | None = None,
    steps: int = 64,
    seed: int = 0,
    truncate: bool = False,
    progress: bool = True,
) -> Attribution | WordAttribution:
    """What carries the answer: which positions of `prompt`, soft or hard, or which words of texts.

    Args:
        lm: the LM.
        task: the task whose texts and label words are used.
        prompt: a `Prompt`, a text, a `Reading` (the tokens it found) or a `Run`; of words of
            texts, None too, the empty prompt.
        method: "shapley", "leave_one_out", "integrated_gradients", "gradient_x_input", or
            "attention_rollout", the weak baseline.
        target: what is attributed. "log_prob" of the right label word among the label words, or
            "log_prob_vocab" among all tokens (nats); "contrast", the right label's logit minus the
            other's, of two label words to be named where there are more (nats); "accuracy" in
            [0, 1]; "kl", how near the prediction is to that with everything present (nats).
        absent: what positions are where they are absent: "removed", "mean_embedding",
            "random_row" or "zero". None is the method's own: removed for Shapley and
            leave-one-out, the mean embedding for integrated gradients, zero for gradient x input.
        of: "prompt": its positions share out what it adds, on the mean over texts. "text": the
            words of each text do, while the prompt stands there whole.
        texts: how many of the split's first texts, or a list of places in the split. None is 32,
            or 4 for an LM of more than ten million parameters; of words, 4 or 1.
        split: "test", "dev" or "train".
        samples: permutations to draw for Shapley values, which are exact where all coalitions are
            no more work. None: exact to 12 positions, else 64 (of words 16); on an LM of more than
            ten million parameters exact while that takes about two seconds, else what takes
            seconds, at least 8. The result says which, and the error of sampling.
        steps: points of the path of integrated gradients.
        seed: of sampled permutations and of random rows.
        truncate: shorten texts that exceed the LM's context, keeping their end.
        progress: show a bar where it takes more than two seconds.

    Returns:
        An `Attribution`, or a `WordAttribution` of the words of texts.

    Raises:
        SoftlensError: an unknown name; the empty prompt; a target without a gradient for a method
            that follows it; "removed" for such a method; a prompt of another LM.
    """
    if of not in OF:
        raise SoftlensError(f"Got of={of!r}, wanted one of {OF}.{near(of, OF)}")
    chosen, asked = checked(method, target, absent), meant(lm, prompt)
    if of == "text":
        return of_words(lm, task, asked, method, target, chosen, texts, split, samples, steps,
                        seed, truncate, progress)  # fmt: skip
    game = make_game(lm, task, asked, target, chosen or "removed", texts, split, seed, truncate,
                     progress)  # fmt: skip
    return of_game(game, method, chosen, asked, task, split, samples, steps, seed)


def of_game(
    game: Game,
    method: str,
    absent: str | None,
    prompt: Prompt | str | None,
    task: Task,
    split: str,
    samples: int | None,
    steps: int,
    seed: int,
) -> Attribution:
    """The result of one method on a game."""
    found = METHODS[method].run(game, samples, steps, seed)
    lm, count = game.lm, len(game.texts)
    ids = position_tokens(lm, task, prompt)
    spread = np.full(game.players, np.nan)
    if count > 1:
        spread = found.by_text.std(axis=0, ddof=1) / np.sqrt(count)
    ends = np.array([[True] * game.players, [False] * game.players])
    value, nothing = game.values(ends).mean(axis=1)
    mean = found.by_text.mean(axis=0)
    frame = pd.DataFrame(
        {
            "position": range(game.players),
            "token": [lm.token(i) for i in ids],
            "attribution": mean,
            "standard_error": spread,
            "sampling_error": np.nan if found.sampling_error is None else found.sampling_error,
        }
    )
    return Attribution(
        method=method,
        target=game.target.name,
        unit="share of attention" if absent is None else game.target.unit,
        absent=absent,
        scored=scored_as(prompt),
        total=float(mean.sum()),
        value=float(value),
        value_absent=float("nan") if absent is None else float(nothing),
        n=count,
        split=split,
        note=found.note,
        frame=frame,
        by_text=found.by_text,
        pieces=tuple(piece(lm, i) for i in ids),
    )


def position_tokens(lm: LM, task: Task, prompt: Prompt | str | None) -> tuple[int, ...]:
    """A token to name each position by: the prompt's own, or the nearest by cosine."""
    if isinstance(prompt, str):
        return tuple(lm.encode(prompt, leading_space=bool(template_parts(task.template)[0])))
    assert isinstance(prompt, Prompt)
    return position_ids(lm, prompt)
