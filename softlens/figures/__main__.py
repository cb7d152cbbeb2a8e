"""``python -m softlens.figures FOLDER``: draw the figures, say which are left out and why."""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from softlens.figures import FIGURES, Ground, LeftOutError, draw

log = logging.getLogger("softlens.figures")

INTERRUPTED = 130
"""What a shell expects of a command that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw every figure that this ground allows, in the order of the paper."""
    parser = argparse.ArgumentParser(prog="python -m softlens.figures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the figures go")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="few texts, steps and seeds")
    parser.add_argument("--lm", default="organism", help="another LM, as sl.load_lm takes it")
    parser.add_argument("--task", nargs="+", help="tasks, as sl.load_task takes them")
    parser.add_argument("--store", type=Path, help="finished runs on a real LM")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1),
                        help="processes that run what is missing together")  # fmt: skip
    chosen = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    if chosen.lm != "organism" and not chosen.task:
        parser.error(f"{chosen.lm!r} has no tasks of its own: name some with --task")
    ground = Ground(
        chosen.folder,
        chosen.lm,
        tuple(chosen.task or Ground.task_names),
        chosen.quick,
        chosen.workers,
        chosen.store,
    )
    # One thread a process: more make small LMs slower, and the workers share the cores.
    torch.set_num_threads(1)
    began = time.perf_counter()
    for name in chosen.only or sorted(FIGURES, key=lambda name: FIGURES[name].number):
        try:
            written = draw(ground, name)
        except LeftOutError as reason:
            log.warning("Left out: %s (figure %d): %s.", name, FIGURES[name].number, reason)
            continue
        except KeyboardInterrupt:
            log.warning("Interrupted: what is finished is kept, and the same call goes on.")
            raise SystemExit(INTERRUPTED) from None
        log.info("%s: %s", name, ", ".join(path.name for path in written))
    log.info("%.0f s; the captions are %s", time.perf_counter() - began, chosen.folder / "*.md")


if __name__ == "__main__":
    main()
