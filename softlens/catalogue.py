"""The catalogue of tasks: names, files, folders and hub data sets become a `Task`.

``load_task("reviews")`` gives a named task, ``load_task("my.csv", label_words=..., ...)`` one of
your own. To add a named task, write a function that returns a `Task` and name it in `TASKS`.
"""

import logging
from collections.abc import Callable
from functools import partial
from os import PathLike

from softlens import readers
from softlens.errors import MissingExtraError, SoftlensError, near
from softlens.readers import LabelWords
from softlens.splits import FRACTIONS, Split, complete, divide
from softlens.tasks import Task
from softlens.templates import DEFAULT_TEMPLATE

log = logging.getLogger(__name__)


def load_task(
    name_or_path: str | PathLike[str],
    *,
    template: str | None = None,
    label_words: LabelWords | None = None,
    shots: int | None = None,
    seed: int = 0,
    text_column: str | None = None,
    label_column: str | None = None,
    split_column: str = "split",
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Task:
    """A named task, or one made from a file, a folder in the hub's format, or a hub data set.

    Args:
        name_or_path: a name in `TASKS`; a .csv, .tsv, .jsonl or .parquet file; a folder; or a hub
            id such as ``"org/name"`` (folders and hub ids need the extra `hub`).
        template: holds ``{text}`` and ``{prompt}`` once each; ``"{text} {prompt}"`` unless given.
        label_words: one word a class: a mapping from label to word, or, where labels are 0, 1, ...
            or a hub's class labels, a sequence in their order. Without it, labels are the words.
        shots: draws a few-shot set, `Task.few_shot`.
        seed: of the few-shot draw; the splits themselves never depend on it.
        text_column: ``"text"`` unless given.
        label_column: ``"label"`` unless given.
        split_column: where a file has it, its train, dev (or validation), test and unlabelled rows
            are taken as they are.
        fractions: of each class for train, dev and test where there is no such column.

    Raises:
        SoftlensError: bad input, an unknown name, unreadable rows.
        MissingExtraError: the extra `hub`, or the real texts, are not there.
    """
    name = str(name_or_path)
    kind = readers.kind_of(name_or_path)
    columns = {"text_column": text_column, "label_column": label_column}
    if name in TASKS and kind is None:
        if any(columns.values()):
            raise SoftlensError(f"task {name!r} knows its columns; leave {set(columns)} out")
        task = TASKS[name]()
        if template is not None or label_words is not None:
            task = task.with_(template, label_words)
    elif kind is not None:
        table = readers.read(name_or_path, kind, text_column, label_column, split_column)
        task = from_table(table, template, label_words, fractions)
    else:
        raise SoftlensError(
            f"there is no task {name!r}.{near(name, TASKS)} Tasks: {', '.join(TASKS)}; "
            "or a path to a .csv, .tsv, .jsonl or .parquet file, a folder, or a hub id 'org/name'"
        )
    return task if shots is None else task.few_shot(shots, seed)


def from_table(
    table: readers.Table,
    template: str | None = None,
    label_words: LabelWords | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Task:
    """A task from rows of text, label and split, as `readers.read` gives them."""
    words = readers.words_in_order(label_words, table.classes, table.ordered)
    pools: dict[str, list[list[str]]] = {}
    unlabelled: list[str] = []
    for text, label, split in table.rows:
        if label is None:
            unlabelled.append(text)
        else:
            groups = pools.setdefault(split or "", [[] for _ in table.classes])
            groups[table.classes.index(label)].append(text)
    if set(pools) == {""}:
        splits = divide(pools[""], table.classes, fractions)
    else:
        splits = complete(table.name, pools, table.may_move)
    _warn_of_overlap(table.name, splits)
    return Task(
        table.name,
        words,
        DEFAULT_TEMPLATE if template is None else template,
        splits["train"],
        splits["dev"],
        splits["test"],
        unlabelled=tuple(unlabelled),
        class_names=table.classes,
        source=table.source,
    )


def _warn_of_overlap(name: str, splits: dict[str, Split]) -> None:
    for held_out in ("dev", "test"):
        common = set(splits["train"].texts) & set(splits[held_out].texts)
        if common:
            log.warning("%s: %d texts are in train and in %s", name, len(common), held_out)


def _organism(name: str) -> Task:
    from softlens.organism import make_task

    return make_task(name)


def _real(name: str) -> Task:
    from softlens import corpora

    return {"reviews": corpora.reviews, "genre": corpora.genre}[name]()


def _hub(name: str) -> Task:
    entry = readers.HUB[name]
    table = readers.read_hub(name)
    return from_table(
        table, entry.template, dict(zip(table.classes, entry.label_words, strict=True))
    )


def is_named(task: Task) -> bool:
    """Whether a task is the named one of its name, and not of a file that is called so."""
    if task.name not in (*ORGANISM, *REAL):
        return False
    try:
        return TASKS[task.name]().source == task.source
    except MissingExtraError:
        return False


ORGANISM = ("topic", "sentiment", "witness", "witness-rare")
REAL = ("reviews", "genre")
TASKS: dict[str, Callable[[], Task]] = {
    **{name: partial(_organism, name) for name in ORGANISM},
    **{name: partial(_real, name) for name in REAL},
    **{name: partial(_hub, name) for name in readers.HUB},
}
