"""Arguments of `tune` that are no numbers, or no weights: said before anything is computed."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from softlens.errors import SoftlensError, is_whole
from softlens.lm import LM
from softlens.tasks import Task


def check_whole(name: str, value: Any, example: str) -> None:
    """Raise a `SoftlensError` unless `value` is a whole number."""
    if not is_whole(value):
        raise SoftlensError(f"Got {name}={value!r}, wanted a whole number, as {example}.")
    if not -(2**63) <= int(value) < 2**63:
        raise SoftlensError(f"Got {name}={value!r}, wanted a number of at most 64 bits: {example}.")


def check_kinds(task: Any, judge: Any, description: Any) -> None:
    """Raise a `SoftlensError` unless these are a task, an LM and words, or the last two None."""
    if not isinstance(task, Task):
        raise SoftlensError(f"Got task={task!r}, wanted a task: sl.load_task('sentiment').")
    if not isinstance(judge, LM | None):
        raise SoftlensError(f"Got judge={judge!r}, wanted an LM: sl.load_lm('organism-judge').")
    if not isinstance(description, str | None):
        raise SoftlensError(
            f"Got description={description!r}, wanted words: description='which topic it is'."
        )


def check_weights(proxies: Any) -> dict[str, float]:
    """The weights of proxies, if they are a mapping of names to numbers.

    Raises:
        SoftlensError: they are not.
    """
    if proxies is None:
        return {}
    if not isinstance(proxies, Mapping):
        names = proxies if isinstance(proxies, list | tuple | set) else [proxies]
        first = next((name for name in names if isinstance(name, str)), "perplexity")
        raise SoftlensError(
            f"Got proxies={proxies!r}, wanted a weight for each name: proxies={{{first!r}: 0.1}}."
        )
    for name, weight in proxies.items():
        if not isinstance(name, str):
            raise SoftlensError(
                f"Got {name!r} as the name of a proxy, wanted a word: sl.proxies() lists them."
            )
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise SoftlensError(
                f"Got weight {weight!r} for the proxy {name!r}, wanted a number of at least 0. To "
                "leave a proxy out, leave its name out."
            )
    return {name: float(weight) for name, weight in proxies.items()}
