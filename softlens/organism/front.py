"""The readable front: every question of the grammar, scored on every task.

The gold that tuners and proxies are measured against: prompts known to be sentences of the
language, with what they ask for, how well they do the task and how likely the LM is to say them.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from softlens.lm import LM
from softlens.organism import language as lang
from softlens.organism.grammar import Grammar, grammar
from softlens.organism.scores import nats, score_questions
from softlens.organism.tasks import tasks
from softlens.statistics import undominated
from softlens.tasks import Task

log = logging.getLogger(__name__)

COLUMNS = [
    "task",
    "text",
    "length",
    "accuracy",
    "accuracy_vocab",
    "nats_per_token",
    "label_mass",
    "asks_for",
    "on_front",
    "held_out",
    "texts",
]
SCREEN_TEXTS = 64
WORTH = 0.05
"""A question with less accuracy and less label mass than this on the screening texts is left."""


def readable_front(
    lm: LM,
    language: Grammar | None = None,
    of: dict[str, Task] | None = None,
    *,
    screen: int = SCREEN_TEXTS,
    stride: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Score every question of the grammar on the tasks.

    All questions of five words are asked on the first `screen` test texts. Those that answer a
    label word now and then (accuracy or label mass of .05) are asked on all test texts; the column
    ``texts`` says how many were used. Those on the front are asked with each opening word, too.

    Args:
        lm: the organism.
        language: the grammar whose questions are enumerated.
        of: the tasks, by name.
        screen: test texts in the first round.
        stride: every how many questions to take (1: all; more only for quick tests).
        progress: show bars.

    Returns:
        A row a task and question, sorted by task, then nats per token. ``accuracy`` is among the
        label words, ``accuracy_vocab`` among all tokens; ``on_front`` marks the questions that no
        other beats in both `accuracy_vocab` and nats per token, among those that ask for a label
        word at all (label mass of at least one half).
    """
    language = language or grammar()
    plain = [f.text for f in language.follow_ups][::stride]
    parts = []
    for name, task in (of or tasks()).items():
        table = score_questions(lm, task, plain, screen, progress)
        worth = table[["accuracy_vocab", "label_mass"]].max(axis=1) >= WORTH
        log.info("%s: %d of %d questions on all test texts", name, sum(worth), len(plain))
        full = score_questions(lm, task, table["text"][worth].tolist(), None, progress)
        table = _with_costs(lm, pd.concat([table[~worth], full], ignore_index=True))
        opened = [f"{word} {t}" for t in table["text"][_on_front(table)] for word in lang.OPENINGS]
        opened = [text for text in opened if language.parse(text)]
        more = _with_costs(lm, score_questions(lm, task, opened, None, progress))
        table = pd.concat([table, more], ignore_index=True)
        parts.append(table.assign(task=name, on_front=_on_front(table)))
    front = pd.concat(parts, ignore_index=True)
    asked = [language.parse(text) for text in front["text"]]
    front["asks_for"] = [follow_up.asks_for if follow_up else "" for follow_up in asked]
    front["held_out"] = [bool(follow_up and follow_up.held_out) for follow_up in asked]
    front = front.sort_values(["task", "nats_per_token", "text"], ignore_index=True)
    return front[COLUMNS]


def _with_costs(lm: LM, table: pd.DataFrame) -> pd.DataFrame:
    costs, lengths = nats(lm, table["text"].tolist())
    return table.assign(nats_per_token=costs, length=lengths)


def _on_front(table: pd.DataFrame) -> np.ndarray:
    """Undominated questions, among those that ask for a label word at all."""
    found = np.zeros(len(table), dtype=bool)
    asks = (table["label_mass"] >= 0.5).to_numpy()
    found[asks] = undominated(
        table["accuracy_vocab"][asks].to_numpy(), table["nats_per_token"][asks].to_numpy()
    )
    return found
