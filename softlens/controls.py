"""What every accuracy is held against: no prompt, random prompts, and the best readable one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from softlens.display import Result, show_text
from softlens.evaluation import (
    AnyPrompt,
    Evaluation,
    encode_split,
    evaluate_all,
    prompt_vectors,
)
from softlens.lm import LM, Hears, score_answers
from softlens.prompts import Prompt
from softlens.tasks import Task

RANDOM_PROMPTS = 5
"""Whose mean is the control."""
CONTROL_SEED = 20_250_402
"""Far from the seeds people give to tuners, whose random starts would be these very prompts."""


@dataclass(frozen=True, repr=False)
class Controls(Result):
    """What every accuracy is held against, on the test split."""

    empty: Evaluation
    """No prompt at all."""
    random: tuple[Evaluation, ...]
    """Prompts of the same length, of tokens drawn at random."""
    readable: Evaluation | None
    """The best of the task's readable prompts, chosen on dev; None where the task lists none."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """One row a control: ``control, text, accuracy, accuracy_calibrated, label_mass, loss``."""

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        return f"controls on {self.empty.n} test texts (accuracy in [0, 1], loss in nats)"

    def beside(self, one: Evaluation) -> pd.DataFrame:
        """The numbers of a prompt above those of its controls, of random prompts their mean.

        Args:
            one: the prompt's, by `evaluate` on the same texts.

        Returns:
            One row each: ``prompt, accuracy, accuracy_calibrated, label_mass, loss``.
        """
        numbers = ["accuracy", "accuracy_calibrated", "label_mass", "loss"]
        drawn = {k: float(np.mean([e.summary()[k] for e in self.random])) for k in numbers}
        rows: list[dict[str, Any]] = [{"prompt": "this prompt"} | one.summary()]
        if self.readable is not None:
            name = f"best readable: {show_text(self.readable.prompt_text or '')}"
            rows.append({"prompt": name} | self.readable.summary())
        rows.append({"prompt": f"random prompts (mean of {len(self.random)})"} | drawn)
        rows.append({"prompt": "empty prompt"} | self.empty.summary())
        return pd.DataFrame(rows)[["prompt", *numbers]]

    def metrics(self) -> dict[str, float | str]:
        """Flat numbers for `run.metrics`; those of random prompts are means."""
        flat: dict[str, float | str] = {f"empty_{k}": v for k, v in self.empty.summary().items()}
        for key in self.empty.summary():
            flat[f"random_{key}"] = float(np.mean([e.summary()[key] for e in self.random]))
        if self.readable is not None:
            flat |= {f"readable_{k}": v for k, v in self.readable.summary().items()}
            flat["readable_text"] = self.readable.prompt_text or ""
        return flat


def random_prompts(lm: LM, length: int) -> list[list[int]]:
    """The token ids of `RANDOM_PROMPTS` prompts of `length` tokens, always the same of one LM."""
    generator = torch.Generator().manual_seed(CONTROL_SEED)
    picked = torch.randint(len(lm.ordinary_ids), (RANDOM_PROMPTS, length), generator=generator)
    return lm.ordinary_ids[picked].tolist()


def controls(
    lm: LM,
    task: Task,
    length: int,
    *,
    truncate: bool = False,
    hears: Hears = lambda pairs: None,
) -> Controls:
    """Empty prompt, random prompts of `length` tokens (mean of 5), best readable prompt.

    They depend on the LM, the task and the length alone, so the LM remembers them.

    Args:
        lm: the LM.
        task: the task; its readable prompts are chosen among on dev.
        length: of the random prompts, in tokens.
        truncate: shorten texts that exceed the LM's context, keeping their end.
        hears: hears how many pairs of a prompt and a text were scored, chunk by chunk; of
            `controls_to_score` in all.

    Raises:
        SoftlensError: a label word of several tokens; a text that is too long.
    """
    key = _key(task, length, truncate)
    if key in lm.memo:
        return lm.memo[key]
    drawn = [Prompt.from_ids(lm, row) for row in random_prompts(lm, length)]
    best: list[AnyPrompt] = []
    if task.readable:
        best = [_best_on_dev(lm, task, task.readable, truncate, hears)]
    found = evaluate_all(lm, task, [None, *drawn, *best], truncate=truncate, hears=hears)
    readable = found[-1] if best else None
    rows = [("empty", found[0]), *(("random", e) for e in found[1 : 1 + RANDOM_PROMPTS])]
    if readable is not None:
        rows.append(("readable", readable))
    frame = pd.DataFrame(
        [{"control": name, "text": e.prompt_text, **e.summary()} for name, e in rows]
    )
    lm.memo[key] = Controls(found[0], tuple(found[1 : 1 + RANDOM_PROMPTS]), readable, frame)
    return lm.memo[key]


def controls_to_score(lm: LM, task: Task, length: int, *, truncate: bool = False) -> int:
    """Pairs of a prompt and a text that `controls` has to score; 0 where they are remembered."""
    if _key(task, length, truncate) in lm.memo:
        return 0
    prompts = 1 + RANDOM_PROMPTS + bool(task.readable)
    return len(task.readable) * len(task.dev) + prompts * (len(task.test) + len(task.train))


def _key(task: Task, length: int, truncate: bool) -> tuple[str, Task, int, bool]:
    return "controls", task, length, truncate


def control_metrics(
    lm: LM, task: Task, length: int, *, truncate: bool = False
) -> dict[str, float | str]:
    """The flat numbers of `controls`, remembered by the LM.

    What was measured before, in another process, can be given back to it with
    `remember_controls`.
    """
    key = ("control metrics", task, length, truncate)
    if key not in lm.memo:
        lm.memo[key] = controls(lm, task, length, truncate=truncate).metrics()
    return lm.memo[key]


def remember_controls(
    lm: LM, task: Task, length: int, known: dict[str, float | str], *, truncate: bool = False
) -> None:
    """Tell the LM what `control_metrics` gave before, so that it is not measured again."""
    lm.memo[("control metrics", task, length, truncate)] = dict(known)


def _best_on_dev(lm: LM, task: Task, prompts: Sequence[str], truncate: bool, hears: Hears) -> str:
    """The prompt with the highest accuracy on dev, then the lowest loss."""
    vectors = [prompt_vectors(lm, task, prompt) for prompt in prompts]
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    longest = max(len(v) for v in vectors)
    texts = encode_split(lm, task, task.dev, reserve=longest, truncate=truncate)
    labels = torch.tensor(task.dev.labels)
    among = score_answers(lm, vectors, texts, words, hears).log_probs.log_softmax(dim=-1)
    accuracy = (among.argmax(dim=-1) == labels).float().mean(dim=1)
    loss = -among[:, torch.arange(len(labels)), labels].mean(dim=1)
    order = sorted(range(len(prompts)), key=lambda i: (-float(accuracy[i]), float(loss[i])))
    return prompts[order[0]]
