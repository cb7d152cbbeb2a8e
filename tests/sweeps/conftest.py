"""A sweep of six quick runs on a tiny LM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softlens import Sweep, Task, sweep
from softlens.lm import LM

OPTIONS = {"soft": {"steps": 3}, "pez": {"steps": 3}, "sample": {"evaluations": 200}}


def small(lm: LM, task: Task, store: Path, **other: Any) -> Sweep:
    """Six runs, unless told otherwise."""
    given: dict[str, Any] = {
        "methods": ["pez", "sample"],
        "proxies": [{}, {"perplexity": 0.3}],
        "seeds": [0],
        "lengths": (2,),
        "progress": False,
    } | other
    options = {name: OPTIONS[name] for name in given["methods"] if name in OPTIONS}
    return sweep(lm, task, store=store, **({"options": options} | given))


@pytest.fixture(scope="module")
def swept(
    tiny: Callable[..., LM], toy_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> Sweep:
    store = tmp_path_factory.mktemp("sweep") / "store"
    return small(
        tiny(), toy_task, store, methods=["soft", "pez", "sample"], seeds=[0], judge=tiny(seed=1)
    )
