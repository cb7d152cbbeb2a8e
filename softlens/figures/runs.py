"""The sweep that figures share: methods, weights and seeds on each task, kept in one store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch

from softlens.catalogue import load_task
from softlens.figures.base import KEPT, QUICK, Ground
from softlens.lm import load_lm
from softlens.sweeps import Sweep, concat_sweeps, sweep

log = logging.getLogger(__name__)

WEIGHTS, QUICK_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0), (0.0, 1.0)
TURNED = ("pez", "rlprompt")
"""Methods whose proxy is turned up."""
FREE = ("race", "tandem", "soft")
"""Methods that run without one."""
COMPARED = ("perplexity", "perplexity_target", "relevance", "fluency_band", "max_surprisal",
            "label_mass")  # fmt: skip
"""Proxies compared, in PEZ, all at one weight."""
COMPARED_WEIGHT = 0.3
QUICK_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "pez": {"steps": 20, "evaluations_of_dev": 2},
    "rlprompt": {"steps": 8, "evaluations_of_dev": 2},
    "soft": {"steps": 30, "evaluations_of_dev": 2},
    "race": {"evaluations": 1_000},
    "tandem": {"evaluations": 2_000},
}


@dataclass(frozen=True)
class Chunk:
    """A part of the sweep that one process runs."""

    lm: str
    task: str
    quick: bool
    methods: tuple[str, ...]
    proxies: tuple[Mapping[str, float], ...]
    seed: int
    store: str


def chunks(ground: Ground) -> Iterator[Chunk]:
    """The whole sweep in parts, seeds outermost: what is finished early is a balanced table."""
    store = str(ground.folder / KEPT / ground.lm_name.replace("/", "-"))
    weights = QUICK_WEIGHTS if ground.quick else WEIGHTS
    store += "-quick" if ground.quick else ""
    turned = tuple({"perplexity": w} if w else {} for w in weights)
    weight = weights[-1] if ground.quick else COMPARED_WEIGHT
    others = tuple({name: weight} for name in (COMPARED[1:3] if ground.quick else COMPARED))
    for seed in ground.seeds:
        for name, task in zip(ground.task_names, ground.tasks.values(), strict=True):
            shared = (ground.lm_name, name, ground.quick)
            for method in TURNED:
                yield Chunk(*shared, (method,), turned, seed, store)
            yield Chunk(*shared, FREE, ({},), seed, store)
            if task.name == ground.main_task.name:
                yield Chunk(*shared, ("pez",), others, seed, store)


def shared_sweep(ground: Ground) -> Sweep:
    """Run what is missing, with as many processes as the ground has workers, and open all of it."""
    parts = list(chunks(ground))
    if ground.workers > 1:
        # A fresh interpreter each: threads of torch do not outlive a fork.
        context = get_context("spawn")
        with ProcessPoolExecutor(ground.workers, mp_context=context) as pool:
            for done, chunk in zip(pool.map(run_alone, parts), parts, strict=True):
                log.info("%s %s seed %d: %d runs", chunk.task, chunk.methods, chunk.seed, done)
    return concat_sweeps([run_chunk(chunk, ground) for chunk in parts])


def run_alone(chunk: Chunk) -> int:
    """Run a chunk in a process of its own; how many runs it has."""
    torch.set_num_threads(1)
    lm = _LOADED.get(chunk.lm) or _LOADED.setdefault(chunk.lm, _load(chunk.lm))
    return len(_swept(chunk, lm, load_task(chunk.task)).frame)


_LOADED: dict[str, Any] = {}
"""LMs of a worker process, which runs many chunks of one."""


def _load(name: str) -> Any:
    return load_lm(name, dtype="float32" if name == "organism" else "auto")


def run_chunk(chunk: Chunk, ground: Ground) -> Sweep:
    """Run what is missing of a chunk in this process."""
    task = next(t for n, t in zip(ground.task_names, ground.tasks.values(), strict=True)
                if n == chunk.task)  # fmt: skip
    return _swept(chunk, ground.lm, task, ground.progress)


def _swept(chunk: Chunk, lm: Any, task: Any, progress: bool = False) -> Sweep:
    if chunk.quick:
        task = task.head(**QUICK)
    options = {m: QUICK_OPTIONS[m] for m in chunk.methods if m in QUICK_OPTIONS}
    found = sweep(
        lm,
        task,
        chunk.methods,
        chunk.proxies,
        seeds=[chunk.seed],
        store=chunk.store,
        options=options if chunk.quick else None,
        progress=progress,
    )
    # Ctrl-C has a sweep return what it has; here it is to end everything, before a figure is drawn.
    if len(found.missing()) > len(found.failed):
        raise KeyboardInterrupt
    return found
