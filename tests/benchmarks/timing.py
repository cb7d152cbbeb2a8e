"""Times that can be compared: in one process, in turns."""

import time
from collections.abc import Callable, Mapping


def alternated(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, taken in turns, so that what slows the machine slows all of them.

    The first round warms up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds
