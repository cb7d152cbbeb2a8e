"""The organism: a small LM of a language whose questions we know.

* `explain`, `grammatical`, `asks_for`: what a text says in the language; `speaks`: whether an LM
  speaks it;
* `make_task`, `tasks`: the tasks, with their own texts;
* `ask`: what an LM answers to questions about a text, beside what is right;
* `readable_front`: every question of the language, scored on every task;
* `grammar`: writes and parses the language, and knows the answers;
* ``python -m softlens.organism`` trains the bundled LMs, and keeps them only if they behave.

Inside: `language` (the tables), `grammar` and `parses`, `texts` (writing them), `corpus` and
`train`, `scores`, `gates` (what a build must do), `front` (every question scored), `build`.
"""

from softlens.organism.explain import Explanation, asks_for, explain, grammatical, speaks
from softlens.organism.grammar import Grammar, grammar
from softlens.organism.language import TASK_ASKS
from softlens.organism.scores import ask, readable_front
from softlens.organism.tasks import make_task, tasks

__all__ = [
    "TASK_ASKS",
    "Explanation",
    "Grammar",
    "ask",
    "asks_for",
    "explain",
    "grammar",
    "grammatical",
    "make_task",
    "readable_front",
    "speaks",
    "tasks",
]
