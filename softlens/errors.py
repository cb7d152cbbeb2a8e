"""The library's own errors, and the one helper that offers near names."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any


class SoftlensError(ValueError):
    """Bad input: the message says what was got, what was wanted and what to try."""


class MissingExtraError(ImportError):
    """An optional dependency, or a file it brings, is not there; the message says what to type."""


class DamagedFileError(OSError):
    """A file's content is not what its checksum or its format promises."""


def near(name: str, options: Iterable[str]) -> str:
    """``" Did you mean 'x' or 'y'?"`` for the options close to `name`, or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(options), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(option) for option in close)}?" if close else ""


def whole(name: str, got: Any, most: int, why: str) -> int:
    """`got`, a whole number from 1 to `most`.

    Raises:
        SoftlensError: it is none; `why` says what the bounds are.
    """
    if not is_whole(got) or not 1 <= got <= most:
        raise SoftlensError(f"Got {name}={got!r}, wanted a whole number from 1 to {most}: {why}.")
    return int(got)


def is_whole(value: Any) -> bool:
    """Whether something is a whole number, of Python, numpy or torch; True and False are none."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
