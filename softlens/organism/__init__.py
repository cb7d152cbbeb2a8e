"""The organism: a small LM of a language whose questions we know.

* `explain`, `grammatical`, `asks_for`: what a text says in the language;
* `make_task`, `tasks`: the tasks, with their own texts;
* `grammar`: writes and parses the language, and knows the answers;
* ``python -m softlens.organism`` trains the bundled LMs, and keeps them only if they behave.

Inside: `language` (the tables), `grammar` and `parses`, `texts` (writing them), `corpus` and
`train`, `scores`, `gates` (what a build must do), `front` (every question scored), `build`.
"""

from softlens.organism.explain import Explanation, asks_for, explain, grammatical
from softlens.organism.grammar import Grammar, grammar
from softlens.organism.language import TASK_ASKS
from softlens.organism.tasks import make_task, tasks

__all__ = [
    "TASK_ASKS",
    "Explanation",
    "Grammar",
    "asks_for",
    "explain",
    "grammar",
    "grammatical",
    "make_task",
    "tasks",
]
