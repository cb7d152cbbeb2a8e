"""Prompts trained inside a readable frame, decoded in place."""

from softlens.constraints import Ban, allowed_tokens
from softlens.errors import SoftlensError
from softlens.readings.base import Reading
from softlens.readings.matched import WEIGHT, match_options, search_path
from softlens.readings.registry import Asked, reader
from softlens.templates import template_parts


def frame_of(template: str) -> tuple[str, str]:
    """The words that a template puts right before and right after the prompt, without the text.

    >>> frame_of("{text} {prompt} it was")
    ('', 'it was')
    """
    before, after = template_parts(template)
    return before.split("{text}")[-1].strip(), after.split("{text}")[0].strip()


@reader(
    source="ours; after soft prompts trained inside readable frames",
    fails="a frame can carry the whole meaning, so that any filler seems faithful",
)
def frame(
    asked: Asked,
    *,
    length: int | None = None,
    weight: float = WEIGHT,
    evaluations: int | None = None,
    ban: Ban = ("labels", "control", "pieces"),
) -> Reading:
    """What stands in the blank of the task's frame, as the LM might fill it.

    The frame is the template's own words around the prompt: train with
    ``task.with_(template="{text} {prompt} it was")``. Fillers are drawn where they stand,
    and their surprisal is that of the filler and of the words after it. Options as of `matched`;
    `length` None is the prompt's own. `frame` has the column ``phrase`` besides, the whole.
    """
    lm, task = asked.lm, asked.known_task
    left, right = frame_of(task.template)
    if not left and not right:
        raise SoftlensError(
            f"The template {task.template!r} has no frame, no words of its own around the prompt. "
            "Train the prompt inside one, as task.with_(template='{text} {prompt} it was')."
        )
    found = search_path(
        asked,
        "frame",
        match_options(lm, weight, evaluations),
        asked.prompt.length if length is None else length,
        allowed_tokens(lm, task, ban),
        lm.encode(left, leading_space=True),
        lm.encode(right, leading_space=True),
    )
    phrases = [
        " ".join(p for p in (left, text.strip(), right) if p) for text in found.frame["text"]
    ]
    found.frame.insert(1, "phrase", phrases)
    return found
