"""What figures are drawn on, their registry, and how one is kept."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from softlens import files, plots
from softlens.catalogue import ORGANISM, load_task
from softlens.errors import SoftlensError, near
from softlens.lm import LM, load_lm
from softlens.tasks import Task

if TYPE_CHECKING:
    from softlens.sweeps import Sweep

log = logging.getLogger(__name__)

KEPT = ".runs"
"""Folder beside the figures that holds the runs and tables they are drawn from."""
VERSION = 1
"""Of the tables kept there; raise it when one comes to mean another thing."""
SEEDS, QUICK_SEEDS = (0, 1, 2), (0, 1)
QUICK = {"train": 48, "dev": 32, "test": 128}
"""Texts of a task in a quick drawing."""


class LeftOutError(Exception):
    """A figure that cannot be drawn here, and why."""


@dataclass(frozen=True)
class Ground:
    """What figures are drawn on: an LM, its tasks, and the runs kept beside the figures.

    Attributes:
        folder: where figures and runs go.
        lm_name: of the LM, as `sl.load_lm` takes it.
        task_names: of the tasks, as `sl.load_task` takes them.
        quick: few texts, steps and seeds: to see that all works, not to be believed.
        workers: processes that run the sweep together.
        store: folder of the finished runs on a real LM; None: what the library carries.
        progress: show bars.
    """

    folder: Path
    lm_name: str = "organism"
    task_names: tuple[str, ...] = ("topic", "sentiment", "witness")
    quick: bool = False
    workers: int = 1
    store: Path | None = None
    progress: bool = False

    @cached_property
    def lm(self) -> LM:
        """The LM."""
        return load_lm(self.lm_name, dtype="float32" if self.is_organism else "auto")

    @property
    def is_organism(self) -> bool:
        """Whether it is the bundled organism, on tasks of its own."""
        return self.lm_name == "organism" and set(self.task_names) <= set(ORGANISM)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks by name; few texts of each in a quick drawing."""
        found = [load_task(name) for name in self.task_names]
        return {task.name: task.head(**QUICK) if self.quick else task for task in found}

    @property
    def main_task(self) -> Task:
        """The task of figures that show one: `sentiment` on the organism."""
        return self.tasks.get("sentiment", next(iter(self.tasks.values())))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every run."""
        return QUICK_SEEDS if self.quick else SEEDS

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that most figures share; what is finished is not run again."""
        from softlens.figures.runs import shared_sweep

        return shared_sweep(self)

    def needs_organism(self) -> None:
        """Leave a figure out where there is no organism."""
        if not self.is_organism:
            raise LeftOutError("it needs the organism, whose grammar and judges are known")

    def table(self, name: str, compute: Callable[[], pd.DataFrame], **asked: Any) -> pd.DataFrame:
        """A table that is computed once and kept, with everything that decides it in its name.

        Args:
            name: of the table.
            compute: makes it.
            **asked: what decides it besides the LM and whether the drawing is quick.
        """
        decides = [VERSION, self.lm.checksum, self.quick, asked]
        told = json.dumps(decides, sort_keys=True, default=str).encode()
        path = self.folder / KEPT / f"{name}-{hashlib.sha256(told).hexdigest()[:12]}.parquet"
        if path.is_file():
            try:
                return pd.read_parquet(path)
            except (OSError, ValueError) as reason:
                log.warning("%s is damaged (%s) and is computed again.", path.name, reason)
        found = compute()
        buffer = io.BytesIO()
        found.to_parquet(buffer, index=False)
        files.write_atomic(path, buffer.getvalue())
        return found

    def stated(self, n: int | None = None, seeds: int | None = None, of: str = "test") -> str:
        """What every caption ends with: LM, texts, seeds, intervals.

        Args:
            n: test texts; None: those of the tasks.
            seeds: how many; None: those of the shared sweep's finished runs, 0 where no run is
                shown.
            of: the split that `n` counts.
        """
        texts = "; ".join(f"{name}: {len(task.test):,}" for name, task in self.tasks.items())
        count, left = self._seeds_of_runs() if seeds is None else (str(seeds or ""), "")
        parts = [
            f"LM: {self.lm.name} ({self.lm.parameters / 1e6:.1f}M parameters, "
            f"{str(self.lm.dtype).removeprefix('torch.')}).",
            f"n = {n:,} {of} texts." if n else f"Test texts: {texts}.",
        ]
        if count:
            parts.append(f"Seeds: {count}; intervals are 95% bootstrap intervals over seeds.{left}")
        if self.quick:
            parts.append("QUICK: few texts, steps and seeds; not to be believed.")
        return " ".join(parts)

    def _seeds_of_runs(self) -> tuple[str, str]:
        """How many seeds the sweep's runs have, and a sentence on those that are not there."""
        runs = self.sweep.frame.groupby(["task", "method", "proxy", "weight"])["seed"].nunique()
        least, most = int(runs.min()), int(runs.max())
        left = len(self.sweep.missing())
        failed = len(self.sweep.failed)
        says = f" Not there: {left} runs, {failed} of which failed." if left else ""
        return f"{least}" if least == most else f"{least} to {most}", says


@dataclass(frozen=True)
class Drawn:
    """A figure with the table that it shows and its caption (Markdown)."""

    figure: Figure
    frame: pd.DataFrame
    caption: str


Draw = Callable[[Ground], Drawn]


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper."""

    name: str
    draw: Draw
    number: int
    title: str


FIGURES: dict[str, PaperFigure] = {}


def figure(number: int, title: str) -> Callable[[Draw], Draw]:
    """Register the function below, under its own name, as a figure."""

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = PaperFigure(draw.__name__, draw, number, title)
        return draw

    return register


def draw(ground: Ground, name: str) -> list[Path]:
    """Draw one figure and write its PDF, PNG, CSV and caption.

    Raises:
        LeftOutError: it cannot be drawn on this ground.
        SoftlensError: there is no such figure.
    """
    if name not in FIGURES:
        raise SoftlensError(
            f"No figure {name!r}.{near(name, FIGURES)} Known: {', '.join(FIGURES)}."
        )
    wanted = FIGURES[name]
    with plots.style():
        try:
            drawn = wanted.draw(ground)
        except SoftlensError as reason:
            if "sweep" not in vars(ground) or ground.sweep.missing().empty:
                raise
            raise LeftOutError(f"runs that it shows failed or are not there ({reason})") from reason
        written = plots.save(drawn.figure, ground.folder / name, drawn.frame)
        plt.close(drawn.figure)
    caption = f"**Figure {wanted.number}: {wanted.title}.** {drawn.caption}\n"
    written.append(ground.folder / f"{name}.md")
    files.write_atomic(written[-1], caption.encode())
    return written
