"""The library's own errors, and the one helper that offers near names."""

import difflib
from collections.abc import Iterable


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
