"""Surprisal: how unexpected each token of a prompt is to an LM, in a stated context.

For tokens t_1 ... t_n after a context c, in nats,

    surprisal(i) = -log p(t_i | c, t_1 ... t_(i-1))
    perplexity   = exp(mean of surprisal(i) over i = 1 ... n)

The context's tokens are given, not counted. Perplexity is per token of this LM's tokenizer: LMs
that cut words otherwise have other perplexities for one text (`judged` is counted in the judge's).

A soft prompt has no tokens, so two quantities are named apart:

* ``surprisal_nats``: of its *nearest tokens*, fed to the LM as tokens;
* ``entropy_nats``: of the LM's prediction *after* each of its vectors, fed as they are. It says
  how sure the LM is of what follows, and nothing about how likely the vector itself is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from softlens.decode import position_ids
from softlens.display import Result, marks, piece, show, show_text, token_boxes, visible
from softlens.errors import SoftlensError, near
from softlens.lm import LM, EncodedTexts, default_context, next_token_entropy, token_surprisal
from softlens.people import FEWEST_SENTENCES, sentence_nats, sentences
from softlens.prompts import Prompt, PromptLike, as_prompt
from softlens.tasks import Task
from softlens.templates import template_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHERE = {"bos": "after BOS", "bos.": "after BOS and a full stop", "text": "after texts"}
CONTEXTS = tuple(WHERE)
CONTEXT_TEXTS = 8
"""Training texts after which a prompt stands where the context is "text"."""


@dataclass(frozen=True, repr=False)
class Surprisal(Result):
    """How unexpected a text is to an LM, token by token. All surprisals are in nats."""

    text: str
    """What was scored; of a soft prompt, its nearest tokens."""
    token_ids: tuple[int, ...]
    """Its tokens."""
    of: str
    """What the tokens are: "text", "tokens" (of a hard prompt) or "nearest tokens"; and, if so, "of
    a reading" or "of a run"."""
    lm: str
    """Name of the LM."""
    context: str
    """What stood before: "bos"; "bos.", BOS and a full stop; "text", real texts (their mean)."""
    nats_per_token: float
    """Mean surprisal of the tokens."""
    nats_after_texts: float | None
    """The same after training texts of the task, their mean; None without a task, or where its
    template puts no text before the prompt, or words behind it."""
    people: tuple[float, ...] = field(repr=False)
    """Nats per token of different sentences that people wrote (or the grammar did), of as many
    tokens and in the same context; empty where there are none."""
    people_are: str
    """What these sentences are."""
    judged: "Surprisal | None" = field(repr=False)
    """The same text under the judge."""
    note: str
    """What is wrong with these numbers, or empty."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """``position, token, surprisal_nats, entropy_nats``, and ``after_text_nats`` with a task; the
    entropy is that of the LM's prediction after the position."""
    pieces: tuple[str, ...] = field(repr=False, compare=False)
    """The tokens as `softlens.display.piece` gives them, for views."""

    @property
    def perplexity(self) -> float:
        """exp(mean nats per token), per token of this LM, the context's tokens not counted."""
        return float(np.exp(self.nats_per_token))

    @property
    def quantile(self) -> float | None:
        """Share of `people` that are less surprising, ties counted half.

        None where there are fewer than `softlens.people.FEWEST_SENTENCES`.
        """
        if len(self.people) < FEWEST_SENTENCES:
            return None
        others = np.asarray(self.people)
        # A sentence is scored in another batch than the prompt, which moves its last digits.
        equal = np.isclose(others, self.nats_per_token)
        below = (others < self.nats_per_token) & ~equal
        return float(below.mean() + 0.5 * equal.mean())

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        parts = [
            f"{self.of} {show_text(self.text)!r} under {self.lm!r} {WHERE[self.context]}: "
            f"{self.nats_per_token:.2f} nats per token (perplexity {self.perplexity:.1f})"
        ]
        if self.quantile is not None:
            parts.append(
                f"more surprising than {self.quantile:.0%} of {len(self.people)} {self.people_are}"
            )
        elif self.people_are:
            parts.append(
                f"no quantile: {len(self.people)} different {self.people_are} "
                f"(wanted {FEWEST_SENTENCES})"
            )
        if self.nats_after_texts is not None and self.context != "text":
            parts.append(f"after real texts {self.nats_after_texts:.2f}")
        if self.judged is not None:
            parts.append(
                f"under the judge {self.judged.lm!r} {WHERE[self.judged.context]} "
                f"{self.judged.nats_per_token:.2f} per token of its own"
            )
        return "; ".join([*parts, *([self.note] if self.note else [])])

    @property
    def table(self) -> pd.DataFrame:
        """A row a token, with its surprisal as a bar of letters."""
        shown = visible(self.frame.drop(columns="token"))
        shown.insert(1, "token", [show(token) for token in self.pieces])
        shown.insert(3, "", marks(self.frame["surprisal_nats"].tolist()))
        return shown

    def plot(self, ax: "Axes | None" = None, kind: str = "bars") -> "Axes":
        """Surprisal of each token: "bars", with the sentences of people behind, or "tokens"."""
        from softlens.plots import plot_surprisal

        return plot_surprisal(self, ax, kind)

    def _repr_html_(self) -> str:
        values = self.frame["surprisal_nats"].tolist()
        boxes = token_boxes(self.pieces, values, "nats", "surprisal of each token")
        return boxes + super()._repr_html_()


@torch.no_grad()
def surprisal(
    lm: LM,
    prompt: Prompt | str | PromptLike,
    task: Task | None = None,
    *,
    context: str | None = None,
    judge: LM | None = None,
    people: Sequence[str] | None = None,
) -> Surprisal:
    """How unexpected `prompt` is to `lm`, token by token, and beside sentences of people.

    Args:
        lm: the LM.
        prompt: a `Prompt` of this LM, a text, a `Reading` (the tokens it found) or a `Run`.
        task: whose training texts stand before the prompt in a second context (``after_text_nats``,
            the first `CONTEXT_TEXTS` of them), and whose texts are what people wrote.
        context: what stands before: "bos"; "bos.", BOS and a full stop; or "text", the task's.
            None is "bos." where this LM's first position is an attention sink, else "bos": after
            BOS alone such an LM predicts noise ("It was" costs SmolLM2 8.8 nats, 3.4 after a stop).
        judge: another LM, which scores the same text with its own tokens, in the same `context`
            and after the same texts; where that is None, in its own.
        people: sentences to compare with, cut to the prompt's number of tokens. None: on a bundled
            organism the grammar's questions of that length; else the openings of the task's texts.
            What is the same after the cut counts once; fewer than 20 give no quantile.

    Raises:
        SoftlensError: an empty text; an unknown context; "text" without a task or with a template
            that puts no text before the prompt; a prompt of another LM.

    Source: surprisal theory (Levy 2008); the quantile is ours.
    """
    ids, vectors, of = _tokens(lm, prompt)
    texts = None if task is None else _before(lm, task, len(ids))
    stands = _context(lm, context, task, texts)
    given: str | EncodedTexts = stands
    if stands == "text":
        assert texts is not None
        given = texts
    nats = _mean_over_texts(token_surprisal(lm, [ids], given))
    entropy = _mean_over_texts(next_token_entropy(lm, vectors[None], given))
    frame = pd.DataFrame(
        {
            "position": range(len(ids)),
            "token": [lm.token(i) for i in ids],
            "surprisal_nats": nats,
            "entropy_nats": entropy,
        }
    )
    if texts is not None:
        after = nats if stands == "text" else _mean_over_texts(token_surprisal(lm, [ids], texts))
        frame["after_text_nats"] = after
    rows, people_are = sentences(lm, task, len(ids), people)
    others = sentence_nats(lm, rows, given, stands, task)
    judged = None
    if judge is not None:
        judged = surprisal(judge, lm.decode(ids), task, context=context, people=people)
    return Surprisal(
        text=lm.decode(ids),
        token_ids=tuple(ids),
        of=of,
        lm=lm.name,
        context=stands,
        nats_per_token=float(frame["surprisal_nats"].mean()),
        nats_after_texts=None if texts is None else float(frame["after_text_nats"].mean()),
        people=others,
        people_are=people_are,
        judged=judged,
        note=_note(lm, stands),
        frame=frame,
        pieces=tuple(piece(lm, i) for i in ids),
    )


def _tokens(
    lm: LM, prompt: Prompt | str | PromptLike
) -> tuple[list[int], Float[Tensor, "length hidden"], str]:
    """What is scored, what the LM is fed for the entropy, and what the tokens are called."""
    found = as_prompt(lm, prompt)
    if not found.length:
        raise SoftlensError("The surprisal of an empty prompt is not defined; got a length of 0.")
    of = "tokens" if found.is_hard else "nearest tokens"
    if isinstance(prompt, PromptLike):
        of += f" of a {type(prompt).__name__.lower()}"
    of = "text" if isinstance(prompt, str) else of
    return list(position_ids(lm, found)), found.vectors.to(lm.device), of


def _context(lm: LM, context: str | None, task: Task | None, texts: EncodedTexts | None) -> str:
    if context is None:
        return default_context(lm)
    if context not in CONTEXTS:
        raise SoftlensError(
            f"Got context {context!r}, wanted one of {CONTEXTS} or None.{near(context, CONTEXTS)}"
        )
    if context == "text" and texts is None:
        wanted = (
            "a task, whose texts they are: pass task="
            if task is None
            else f"a template with the text before the prompt and nothing behind, as '{{text}} "
            f"{{prompt}}'; got {task.template!r}. Use task.with_(template=...)"
        )
        raise SoftlensError(f"Surprisal after texts needs {wanted}.")
    return context


def _before(lm: LM, task: Task, length: int) -> EncodedTexts | None:
    """A few training texts as they stand before the prompt; None where the template has none."""
    before, after = template_parts(task.template)
    if "{text}" not in before or after:
        return None
    return lm.encode_texts(
        task.template, task.train.texts[:CONTEXT_TEXTS], reserve=length, truncate=True
    )


def _mean_over_texts(nats: Float[Tensor, "1 contexts length"]) -> np.ndarray:
    return nats[0].cpu().double().mean(dim=0).numpy()


def _note(lm: LM, context: str) -> str:
    if context == "bos" and lm.sink:
        return (
            f"the first token's value is noise: position 0 of {lm.name!r} is an attention sink; "
            "use context='bos.' or 'text'"
        )
    if context == "bos.":
        return "a full stop stands before, because the first token after BOS alone is noise"
    return ""
