"""The tuners, one file each, and the one call that runs any of them.

To add one: write a class like `softlens.tuners.soft.SoftTuner`, and name it in `TUNERS`.
"""

import logging
from typing import Any

from pydantic import ValidationError

from softlens.decode import nearest_tokens
from softlens.errors import SoftlensError, near
from softlens.evaluation import controls, evaluate
from softlens.lm import LM
from softlens.runs import Run, RunConfig
from softlens.tasks import Task
from softlens.tuners.base import INTERRUPTED, Outcome, Problem, Tuner, TunerOptions, run_loop
from softlens.tuners.soft import SoftTuner

log = logging.getLogger(__name__)

TUNERS: dict[str, type[Tuner]] = {"soft": SoftTuner}

# Update steps: small LMs are cheap to step and need more of them.
SMALL_BUDGET, BUDGET = 400, 150
START_STRIDE = 1_000_003


def tune(
    lm: LM,
    task: Task,
    method: str = "soft",
    length: int = 5,
    proxies: dict[str, float] | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Train a prompt of `length` positions for `task`, and measure it with its controls.

    Args:
        lm: the frozen LM.
        task: what to train for: its train split is trained on, dev selects, test is reported.
        method: a name in `softlens.tuners.TUNERS`.
        length: positions of the prompt.
        proxies: weight of each proxy of interpretability in the objective.
        steps: update steps at most; None picks by the size of the LM (400 below ten million
            parameters, else 150) and logs which.
        seed: of the start and of the order of texts; the same seed gives the same bits on a CPU.
        progress: show a progress bar.
        **options: the method's own, each documented in its ``Options``.

    Returns:
        A `Run`. Ctrl-C ends the training and returns the best prompt so far.

    Raises:
        SoftlensError: an unknown method, proxy or option; a bad length; texts or label words the
            LM cannot take.
    """
    tuner_class = _tuner(method)
    chosen = _options(method, tuner_class, options)
    if proxies:
        raise SoftlensError(
            f"Got proxies {sorted(proxies)}: the method {method!r} trains for the task alone."
        )
    if steps is not None and steps < 1:
        raise SoftlensError(f"Got steps={steps}, wanted at least 1, or None for a budget.")
    problem = Problem.encode(lm, task, length, chosen.truncate)
    budget = _budget(lm) if steps is None else steps
    config = RunConfig(
        lm=lm.name,
        lm_checksum=lm.checksum,
        dtype=str(lm.dtype).removeprefix("torch."),
        task=task.name,
        template=task.template,
        label_words=task.label_words,
        texts=(len(task.train), len(task.dev), len(task.test)),
        method=method,
        length=length,
        proxies=proxies or {},
        steps=budget,
        seed=seed,
        options=chosen.model_dump(mode="json"),
    )
    outcomes: list[tuple[Tuner, Outcome]] = []
    for start in range(chosen.starts):
        # Far apart, so that no start of one seed is a start of another.
        tuner = tuner_class(problem, chosen, budget, seed + START_STRIDE * start)
        outcomes.append((tuner, run_loop(tuner, problem, chosen, budget, seed, progress)))
        if outcomes[-1][1].accuracy_dev == 1 or outcomes[-1][1].ended == INTERRUPTED:
            break
    tuner, outcome = max(outcomes, key=lambda o: (o[1].accuracy_dev, -o[1].loss_dev))
    prompt = tuner.prompt(outcome.vectors)
    result = evaluate(lm, task, prompt, truncate=chosen.truncate)
    metrics: dict[str, float | str] = {
        **result.summary(),
        "scored": result.scored,
        "accuracy_dev": outcome.accuracy_dev,
        "loss_dev": outcome.loss_dev,
        **controls(lm, task, length, truncate=chosen.truncate).metrics(),
        "ended": outcomes[-1][1].ended if outcomes[-1][1].ended == INTERRUPTED else outcome.ended,
        "steps": outcome.steps,
        "starts": len(outcomes),
        "evaluations": sum(each.evaluations for _, each in outcomes),
        "seconds": sum(each.seconds for _, each in outcomes),
    }
    text = prompt.text if prompt.text is not None else nearest_tokens(lm, prompt, k=1).text
    return Run(prompt, text, config, outcome.history, metrics)


def _tuner(method: str) -> type[Tuner]:
    if method not in TUNERS:
        raise SoftlensError(f"Unknown method {method!r}.{near(method, TUNERS)} Known: {[*TUNERS]}.")
    return TUNERS[method]


def _options(method: str, tuner_class: type[Tuner], given: dict[str, Any]) -> TunerOptions:
    fields = tuner_class.Options.model_fields
    for name in given:
        if name not in fields:
            raise SoftlensError(
                f"{name!r} is no option of the method {method!r}.{near(name, fields)} "
                f"Its options: {sorted(fields)}."
            )
    try:
        return tuner_class.Options(**given)
    except ValidationError as reason:
        wrong = "; ".join(
            f"{error['loc'][0]}={error['input']!r}: {error['msg']}" for error in reason.errors()
        )
        raise SoftlensError(f"Options of the method {method!r} are wrong: {wrong}.") from reason


def _budget(lm: LM) -> int:
    steps = SMALL_BUDGET if lm.is_small else BUDGET
    log.info("steps=None: %d steps for an LM of %.1fM parameters.", steps, lm.parameters / 1e6)
    return steps
