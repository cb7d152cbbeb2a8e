"""What a method of reading is asked, and the registry of methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from softlens.behaviour import Probes, log_answers
from softlens.errors import SoftlensError, near
from softlens.lm import LM, EncodedTexts
from softlens.prompts import Prompt
from softlens.readings.base import Reading, stands_inside
from softlens.tasks import Task

LEAST_ROOM = 16
"""Tokens kept free for what is proposed, at least."""


@dataclass(frozen=True)
class Asked:
    """What a method is asked to read, and what it may look at; computed at most once."""

    lm: LM
    prompt: Prompt
    task: Task | None
    seed: int
    progress: bool

    @property
    def known_task(self) -> Task:
        """The task, for methods that need one."""
        assert self.task is not None
        return self.task

    @cached_property
    def probes(self) -> Probes:
        """Unlabelled texts to watch the prompt on."""
        return Probes.of(self.lm, self.known_task, reserve=self.room)

    @property
    def room(self) -> int:
        """Tokens kept free beside each text, for the prompt and for what is proposed as it."""
        return max(LEAST_ROOM, self.prompt.length)

    @cached_property
    def target(self) -> Float[Tensor, "texts vocab"]:
        """The prompt's log-probabilities on the texts that a reading is looked for on."""
        return self.answers(self.probes.search)

    @cached_property
    def target_choose(self) -> Float[Tensor, "texts vocab"]:
        """The same on the texts that it is chosen on."""
        return self.answers(self.probes.choose)

    def answers(self, texts: EncodedTexts) -> Float[Tensor, "texts vocab"]:
        """The prompt's log-probabilities at the answer position of `texts`."""
        return log_answers(self.lm, self.prompt.vectors[None], texts)[0]

    def reading(self, ids: Sequence[int], method: str, **known: Any) -> Reading:
        """A `Reading` of these tokens where the prompt stands."""
        return Reading.from_ids(self.lm, ids, method, stands_inside(self.task), **known)


Read = Callable[..., Reading]


@dataclass(frozen=True)
class Reader:
    """One method: what it does, what it needs, and how it is known to fail."""

    name: str
    read: Read = field(repr=False)
    fails: str
    source: str
    needs_task: bool

    @property
    def options(self) -> dict[str, Any]:
        """Its own options with their defaults."""
        given = inspect.signature(self.read).parameters.values()
        return {p.name: p.default for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY}


READERS: dict[str, Reader] = {}


def reader(*, fails: str, source: str, needs_task: bool = True) -> Callable[[Read], Read]:
    """Register the function below as a method under its own name.

    It takes an `Asked` and keyword-only options, and returns a `Reading`.
    """

    def register(read: Read) -> Read:
        name = read.__name__
        READERS[name] = Reader(name, read, fails, source, needs_task)
        return read

    return register


def reading_methods() -> pd.DataFrame:
    """All methods of reading: ``method, what, needs_task, options, fails, source``."""
    return pd.DataFrame(
        [
            {
                "method": r.name,
                "what": (r.read.__doc__ or "").strip().split("\n")[0],
                "needs_task": r.needs_task,
                "options": ", ".join(r.options),
                "fails": r.fails,
                "source": r.source,
            }
            for r in READERS.values()
        ]
    )


def read(
    lm: LM,
    prompt: Prompt,
    method: str = "nearest",
    task: Task | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Reading:
    """Propose a text as what `prompt` says.

    Args:
        lm: the LM the prompt was made for.
        prompt: what to read, soft or hard.
        method: a name in `softlens.reading_methods()`.
        task: where the prompt stands and on which texts it may be watched; their labels are not
            looked at. All methods but "nearest" need it.
        seed: of methods that draw; the same seed gives the same reading.
        progress: show a bar where it takes long.
        **options: the method's own, as its docstring in `softlens.readings` says.

    Raises:
        SoftlensError: an unknown method or option, no task where one is needed, a prompt of another
            LM or one that the LM has no room for.
    """
    if method not in READERS:
        raise SoftlensError(
            f"Unknown method {method!r} of reading.{near(method, READERS)} Known: {[*READERS]}."
        )
    chosen = READERS[method]
    if not isinstance(prompt, Prompt):
        raise SoftlensError(
            f"Got a {type(prompt).__name__} to read, wanted a Prompt. Vectors become one with "
            "Prompt.soft(lm, vectors); a text already says what it says."
        )
    prompt.check(lm)
    if not 1 <= prompt.length < lm.context_length:
        raise SoftlensError(
            f"Got a prompt of {prompt.length} positions, and {lm.name!r} has {lm.context_length} "
            "for the prompt and the text together."
        )
    if task is None and chosen.needs_task:
        raise SoftlensError(
            f"{method!r} watches what the prompt does on texts: pass task=. Without one there is "
            "'nearest'."
        )
    for name in options:
        if name not in chosen.options:
            raise SoftlensError(
                f"{name!r} is no option of the reading {method!r}.{near(name, chosen.options)} "
                f"Its options: {sorted(chosen.options)}."
            )
    return chosen.read(Asked(lm, prompt, task, seed, progress), **options)
