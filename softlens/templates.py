"""Templates: where the text and the prompt stand."""

import re

from softlens.errors import SoftlensError

DEFAULT_TEMPLATE = "{text} {prompt}"


def template_parts(template: str) -> tuple[str, str]:
    """What stands before and after ``{prompt}``, one of them holding ``{text}``.

    White space next to ``{prompt}`` is dropped: the prompt's tokens bring their own leading space,
    and what follows the prompt is encoded with one, unless it is glued to it (`glued_behind`). So
    are spaces at the end: the answer brings its own.

    >>> template_parts("{prompt} {text} It was")
    ('', '{text} It was')
    """
    fields = re.findall(r"\{(\w*)\}", template)
    for name in ("prompt", "text"):
        if fields.count(name) != 1:
            raise SoftlensError(
                f"template {template!r} holds {{{name}}} {fields.count(name)} times; it needs "
                f"{{text}} and {{prompt}} exactly once each, as in {DEFAULT_TEMPLATE!r}"
            )
    if len(fields) != 2:
        other = next(name for name in fields if name not in ("prompt", "text"))
        raise SoftlensError(
            f"template {template!r} holds {{{other}}}; only {{text}} and {{prompt}} are filled in"
        )
    before, after = template.split("{prompt}")
    return before.rstrip(), after.lstrip().rstrip(" ")


def glued_behind(template: str) -> bool:
    """Whether what follows the prompt follows it without a space, as in ``{prompt}{text}``."""
    return bool(re.search(r"\{prompt\}\S", template))
