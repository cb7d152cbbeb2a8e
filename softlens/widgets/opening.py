"""`inspect`: what can be inspected, and what is needed for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from softlens.catalogue import ORGANISM, REAL, load_task
from softlens.errors import MissingExtraError, SoftlensError
from softlens.lm import LM
from softlens.prompts import Prompt
from softlens.readings import Reading
from softlens.readings.base import stands_inside
from softlens.runs import Run
from softlens.tasks import Task, digest
from softlens.widgets.inspector import Inspector
from softlens.widgets.replay import Replay
from softlens.widgets.sample import Sample
from softlens.widgets.workbench import Workbench

log = logging.getLogger(__name__)


def inspect(
    lm: LM | None,
    run_or_prompt: Run | Prompt | str,
    task: Task | None = None,
    *,
    readings: Sequence[Reading | str] = (),
    texts: int | None = None,
    split: str = "dev",
    progress: bool = True,
) -> Inspector:
    """Turn a prompt over in your hands: an interactive inspector, for a notebook.

    Choose a position, see what it is near to and what the answers become without it; put another
    token there, drop it, mask it, and see at once what that does, beside the controls. A run's
    training can be replayed, readings held side by side. `inspector.prompt` is the prompt as it
    stands; whatever can be clicked can be called, too (`inspector.replace(2, "great")`).

    Args:
        lm: the LM; None where it is not at hand, which shows what a run's file has.
        run_or_prompt: a `Run`, a `Prompt`, or a text.
        task: whose texts the prompt is tried on. None: the bundled task that the run was for, if
            its texts are those that the run was tuned on, else no task, and then there is no
            accuracy.
        readings: readings or texts to hold against the prompt from the start.
        texts: how many texts edits are tried on, the first of their split; None is at most 256 for
            an LM of less than ten million parameters, else 24, and fewer for a long prompt, so that
            an edit is answered at once.
        split: where they are from. Choosing an edit by its accuracy is a selection, so the test
            texts are left for `inspector.score_on_test()`.
        progress: show bars where measuring the prompt and its controls takes more than two seconds.

    Raises:
        SoftlensError: what is no run, prompt or text; a prompt of another LM, or one that is longer
            than the LM can read.
    """
    run = run_or_prompt if isinstance(run_or_prompt, Run) else None
    given = _prompt(lm, run_or_prompt, task)
    if lm is None:
        return Inspector(Workbench(None, given, run, replay=Replay.of(run, None)))
    given.check(lm)
    if not 1 <= given.length < lm.context_length:
        raise SoftlensError(
            f"Got a prompt of {given.length} positions, wanted 1 to {lm.context_length - 1}: "
            f"{lm.name!r} has {lm.context_length} for the prompt and a text together."
        )
    if task is None and run is not None:
        task = _task_of(run)
    sample = None
    if task is not None:
        known = ""
        if run is not None and run.has_controls_of(lm, task):
            known = str(run.metrics.get("readable_text", ""))
        sample = Sample.of(lm, task, split, texts, given.length, known)
    bench = Workbench(lm, given, run, task, sample, Replay.of(run, lm))
    bench.prepare(progress)
    return Inspector(bench, readings, progress)


def _prompt(lm: LM | None, what: Run | Prompt | str, task: Task | None) -> Prompt:
    if isinstance(what, Run):
        return what.prompt
    if isinstance(what, Prompt):
        return what
    if not isinstance(what, str):
        raise SoftlensError(
            f"Got a {type(what).__name__} to inspect, wanted a Run, a Prompt or a text. Vectors "
            "become a prompt with Prompt.soft(lm, vectors), ids with Prompt.from_ids."
        )
    if lm is None:
        raise SoftlensError("A text has no vectors without an LM: sl.inspect(lm, text, task).")
    return Prompt.from_text(lm, what, leading_space=stands_inside(task))


def _task_of(run: Run) -> Task | None:
    """The task a run was for, where it is one that comes with softlens."""
    config = run.config
    task = bundled_task(config.task)
    if task is None:
        return None
    # A file of one's own may have a name that a bundled task has, too.
    same = len(config.label_words) == len(task.label_words)
    if same:
        task = task.with_(template=config.template, label_words=config.label_words)
        same = run.task_digest in ("", digest(task.head(*config.texts)))
    if not same:
        log.warning(
            "task=None: the run was tuned on other texts than those of the bundled task %r (or "
            "with other readable prompts), so accuracies are left out. Pass the run's own task.",
            config.task,
        )
        return None
    return task


def bundled_task(name: str) -> Task | None:
    """A task that comes with softlens; None for other names, and where its texts are missing."""
    if name not in (*ORGANISM, *REAL):
        log.info("task=None: %r is no bundled task, so accuracies are left out.", name)
        return None
    try:
        return load_task(name)
    except MissingExtraError as reason:
        log.info("task=None: the texts of %r are not here (%s).", name, reason)
        return None
