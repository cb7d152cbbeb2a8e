"""Out of memory: said with the numbers and what to lower, in the place of an allocator's words."""

import contextlib
import functools
import gc
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import psutil
import torch

from softlens.errors import SoftlensError
from softlens.lm import LM

P = ParamSpec("P")
R = TypeVar("R")

WHAT_TO_LOWER = (
    "Use fewer texts (task.head), a smaller batch_size, load_lm(cache_memory=...) to keep fewer "
    "keys and values, or dtype='bfloat16'."
)
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""Of allocators that raise a plain RuntimeError: CUDA's and MPS's, and torch's own on a CPU."""


class ShortageError(SoftlensError):
    """There is not the memory that something needs, or that it would need."""


@contextlib.contextmanager
def shortage_explained(lm: LM) -> Iterator[None]:
    """Turn any kind of "out of memory" into a `ShortageError`, and let go of what was half done."""
    try:
        yield
    except (MemoryError, RuntimeError) as reason:
        if not is_shortage(reason):
            raise
        taken, free = _taken_and_free(lm.device)
        # What filled the memory is held by the frames that failed, and they by the error.
        traceback.clear_frames(reason.__traceback__)
        gc.collect()
        if lm.device.type == "cuda":
            torch.cuda.empty_cache()
        raise ShortageError(
            f"Out of memory on {lm.device}: {taken / 1e9:.2f} GB were taken and {free / 1e9:.2f} "
            f"GB free when more was asked for. {WHAT_TO_LOWER} sl.estimate(...) measures what a "
            f"run needs. The allocator said: {str(reason)[:200] or type(reason).__name__}"
        ) from reason


def explains_shortage(call: Callable[P, R]) -> Callable[P, R]:
    """`shortage_explained` around a function whose first argument is the LM."""

    @functools.wraps(call)
    def explained(*args: P.args, **named: P.kwargs) -> R:
        lm: Any = args[0] if args else named.get("lm")
        if not isinstance(lm, LM):
            return call(*args, **named)
        with shortage_explained(lm):
            return call(*args, **named)

    return explained


def is_shortage(reason: BaseException) -> bool:
    """Whether an error is one of memory."""
    if isinstance(reason, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(reason, RuntimeError) and any(s in str(reason).lower() for s in SIGNS)


def _taken_and_free(device: torch.device) -> tuple[int, int]:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)[0]
    return psutil.Process().memory_info().rss, psutil.virtual_memory().available
