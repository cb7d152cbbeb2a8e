"""What an LM computes in, and which of two types a machine is faster with."""

import time
from functools import cache

import torch

from softlens.errors import SoftlensError, near

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
AUTO = "auto"
"""bfloat16 where the device gains by it, float32 elsewhere."""

GAIN = 1.2
"""How much faster bfloat16 must be to be worth its eight bits of precision."""


def resolve(dtype: str | torch.dtype, device: str) -> torch.dtype:
    """The type of that name, "auto" settled for that kind of device ("cpu", "cuda", ...).

    Raises:
        SoftlensError: an unknown name, or a type that is not among `DTYPES`.
    """
    dtype = str(dtype).removeprefix("torch.")
    if dtype == AUTO:
        return torch.bfloat16 if bfloat16_gains(device) else torch.float32
    if dtype not in DTYPES:
        known = [AUTO, *DTYPES]
        raise SoftlensError(f"Got dtype {dtype!r}, wanted one of {known}.{near(dtype, known)}")
    return DTYPES[dtype]


@cache
def bfloat16_gains(device: str) -> bool:
    """Whether products of matrices are at least `GAIN` times faster in bfloat16 than in float32.

    Measured once a process, in milliseconds. Processors without instructions for bfloat16 emulate
    it, tens of times slower than float32, and no flag of torch's public interface tells.
    """
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return GAIN * _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype, size: int = 256, times: int = 5) -> float:
    """The fastest of a few products of two square matrices."""
    matrix = torch.ones(size, size, dtype=dtype)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - began)
    return min(taken)
