"""A cell of a sweep: everything that decides one run, and a name made of it."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from softlens.errors import SoftlensError, near
from softlens.lm import LM
from softlens.proxies import PROXIES
from softlens.runs import RunConfig
from softlens.tasks import Task, digest
from softlens.tuners import TUNERS, run_config

log = logging.getLogger(__name__)

VERSION = 1
"""Of the meaning of a cell's numbers. Raise it when a tuner or a measure comes to mean another
thing: cells of another version are never mixed with new ones."""


class Cell(BaseModel):
    """One run of a sweep before it is run. Equal cells have equal keys, and equal results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunConfig = Field(description="what is tuned, and how")
    texts: str = Field(description="digest of the task's texts, labels and readable prompts")
    judge: str | None = Field(description="name and checksum of the LM of the held-out gauges")
    version: int = Field(default=VERSION, description="of the meaning of the numbers")

    @property
    def key(self) -> str:
        """16 hex digits of all fields: the cell's name in its store."""
        # A field that a later version adds, with a default that means what was always done, does
        # not rename the cells that are there. Options are written out, defaults included.
        run = self.run.model_dump(mode="json", exclude_defaults=True)
        known = self.model_dump(mode="json") | {"run": run, "run_version": self.run.version}
        told = json.dumps(known, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def place(self) -> dict[str, Any]:
        """Where it stands in the table; the weight is NaN where there are several."""
        c, weights = self.run, [w for w in self.run.proxies.values() if w]
        return {
            "cell": self.key,
            "lm": c.lm,
            "lm_checksum": c.lm_checksum,
            "task": c.task,
            "method": c.method,
            "length": c.length,
            "seed": c.seed,
            "proxy": "+".join(name for name, w in c.proxies.items() if w) or "none",
            "weight": 0.0 if not weights else weights[0] if len(weights) == 1 else float("nan"),
        }

    @property
    def title(self) -> str:
        """A few words for progress and errors."""
        weights = ", ".join(f"{name} {w:g}" for name, w in self.run.proxies.items())
        asked = f" ({weights})" if weights else ""
        return f"{self.run.task} {self.run.method}{asked}, length {self.run.length}, seed " + str(
            self.run.seed
        )


def make_cells(
    lm: LM,
    task: Task,
    methods: Any,
    proxies: Any,
    seeds: Any,
    lengths: Any,
    judge: LM | None,
    gauges_judge: LM | None,
    options: Mapping[str, Any] | None,
) -> list[Cell]:
    """The cells of a sweep, each once, in an order whose every beginning is a balanced table.

    Seeds come outermost, then lengths, weights and methods. Weights of zero are left out, so that
    all proxies share the run that has none.

    Raises:
        SoftlensError: nothing to run; an unknown method, proxy or option; a bad weight or length.
    """
    named = _listed("methods", methods)
    wanted = {
        "methods": named,
        "proxies": _listed("proxies", proxies),
        "seeds": _listed("seeds", seeds),
        "lengths": _listed("lengths", lengths),
    }
    for name, values in wanted.items():
        if not values:
            raise SoftlensError(
                f"Got no {name}: nothing to run. Give at least one; a run without any proxy is "
                "proxies=[{}]."
            )
    given = dict(options or {})
    for name, own in given.items():
        if not isinstance(own, Mapping):
            raise SoftlensError(
                f"Got {own!r} as the options of {name!r}, wanted a mapping from names to values: "
                "options={'pez': {'starts': 3}}."
            )
    for name in (*named, *given):
        if name not in TUNERS:
            raise SoftlensError(f"Unknown method {name!r}.{near(name, TUNERS)} Known: {[*TUNERS]}.")
    if idle := [name for name in given if name not in named]:
        raise SoftlensError(
            f"Got options for {idle[0]!r}, which is not among the methods {named}. Options are "
            "given by method: options={'pez': {'starts': 3}}."
        )
    weights = [_weights(each) for each in wanted["proxies"]]
    texts, told = digest(task), _told(gauges_judge)
    cells: dict[str, Cell] = {}
    asked = 0
    for seed in wanted["seeds"]:
        for length in wanted["lengths"]:
            if length < 1:
                raise SoftlensError(f"Got length {length}, wanted at least 1 position.")
            for each in weights:
                for method in named:
                    own = dict(given.get(method, {}))
                    config = run_config(
                        lm, task, method, int(length), each, seed=int(seed), judge=judge, **own
                    )
                    cell = Cell(run=config, texts=texts, judge=told)
                    cells[cell.key] = cell
                    asked += 1
    if asked > len(cells):
        log.warning(
            "%d of %d cells are asked for more than once (a method, seed, length or set of weights "
            "is there twice; weights of 0 are no weights); each is run once.",
            asked - len(cells),
            asked,
        )
    return list(cells.values())


AXES: dict[str, tuple[type, str]] = {
    "methods": (str, "names of methods: methods=['pez', 'rlprompt']"),
    "proxies": (
        Mapping,
        "a mapping from names to weights for each: "
        "proxies=[{'perplexity': w} for w in (0, .1, .3, 1)]",
    ),
    "seeds": (Integral, "whole numbers: seeds=range(3)"),
    "lengths": (Integral, "whole numbers: lengths=[5, 10]"),
}
"""What a sweep goes over, of which kind each value is, and how that is written."""


def _listed(name: str, given: Any) -> list[Any]:
    """Several values, or one, as a list."""
    kind, wanted = AXES[name]
    several = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
    values = list(given) if several else [given]
    if strange := [value for value in values if not isinstance(value, kind)]:
        raise SoftlensError(f"Got {strange[0]!r} among the {name}, wanted {wanted}.")
    return values


def _told(lm: LM | None) -> str | None:
    return None if lm is None else f"{lm.name} ({lm.checksum})"


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    for name, weight in given.items():
        if name not in PROXIES:
            raise SoftlensError(
                f"Unknown proxy {name!r}.{near(name, PROXIES)} Known: {', '.join(PROXIES)}."
            )
        if not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
            raise SoftlensError(
                f"Got weight {weight!r} for the proxy {name!r}, wanted a number of at least 0. "
                f"Several weights are several mappings: [{{{name!r}: w}} for w in (0, .1, .3, 1)]."
            )
    return {name: float(weight) for name, weight in given.items() if weight}
