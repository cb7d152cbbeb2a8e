"""The tuners, one file each, and the one call that runs any of them.

To add one: write a class like `softlens.tuners.soft.SoftTuner`, and name it in `TUNERS`.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import ValidationError

from softlens.controls import control_metrics
from softlens.decode import nearest_tokens
from softlens.errors import SoftlensError, near
from softlens.evaluation import MEASURES, evaluate
from softlens.lm import LM
from softlens.objectives import Objective
from softlens.prompts import Prompt
from softlens.proposals import Proposals
from softlens.proxies import PROXIES
from softlens.runs import Run, RunConfig, loaded_as
from softlens.shortage import explains_shortage
from softlens.tasks import Task, digest
from softlens.tuners.arguments import check_kinds, check_weights, check_whole
from softlens.tuners.base import Problem, Tuner, TunerOptions
from softlens.tuners.beam import BeamTuner
from softlens.tuners.enumerate import EnumerateOptions, EnumerateTuner
from softlens.tuners.fluentprompt import FluentPromptTuner
from softlens.tuners.gcg import GcgTuner
from softlens.tuners.loop import INTERRUPTED, Outcome, run_loop
from softlens.tuners.pez import PezTuner
from softlens.tuners.rlprompt import RLPromptTuner
from softlens.tuners.sample import RaceTuner, SampleTuner, SearchOptions, SearchTuner
from softlens.tuners.soft import SoftTuner
from softlens.tuners.tandem import TandemTuner

log = logging.getLogger(__name__)

TUNERS: dict[str, type[Tuner]] = {
    "soft": SoftTuner,
    "pez": PezTuner,
    "fluentprompt": FluentPromptTuner,
    "gcg": GcgTuner,
    "rlprompt": RLPromptTuner,
    "sample": SampleTuner,
    "race": RaceTuner,
    "beam": BeamTuner,
    "enumerate": EnumerateTuner,
    "tandem": TandemTuner,
}

MOST_ROUNDS = 1000
"""Of a search, whose budget is counted in evaluations."""
START_STRIDE = 1_000_003
UNMEASURED: dict[str, float | str] = {**dict.fromkeys(MEASURES, math.nan), "scored": "not measured"}
"""What is said of a prompt whose measuring on the test texts was interrupted."""
IDLE_IN_SEARCHES = {"batch_size", "patience", "evaluations_of_dev"}
"""Options of all tuners that say how steps are made and stopped."""
UNMEASURED_CONTROLS: dict[str, float | str] = {
    f"{control}_{name}": math.nan for control in ("empty", "random") for name in MEASURES
}


@explains_shortage
def tune(
    lm: LM,
    task: Task,
    method: str = "soft",
    length: int = 5,
    proxies: Mapping[str, float | int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    judge: LM | None = None,
    description: str | None = None,
    **options: Any,
) -> Run:
    """Train a prompt of `length` positions for `task`, and measure it with its controls.

    Args:
        lm: the frozen LM.
        task: what to train for: its train split is trained on, dev selects, test is reported.
        method: a name in `softlens.tuners.TUNERS`.
        length: positions of the prompt.
        proxies: weight of each proxy of interpretability in the objective; ``sl.proxies()`` lists
            them. A weight of 0 only logs it, which a method that searches pays from its budget.
        steps: update steps at most; None picks by the size of the LM and logs which. Methods that
            search count evaluations instead (their option of that name).
        seed: of the start and of the order of texts; the same seed gives the same bits on a CPU.
        progress: show a progress bar.
        judge: another LM, for the proxies that need one.
        description: what the task asks, in your words, for the proxies that need it.
        **options: the method's own, each documented in its ``Options``.

    Returns:
        A `Run`. Ctrl-C ends the training and returns the best prompt so far; once more, it ends
        the measuring on the test texts, whose numbers are NaN then.

    Raises:
        SoftlensError: an unknown method, proxy or option; a bad length; texts or label words the
            LM cannot take; out of memory, with the numbers and what to lower.
    """
    tuner_class, chosen, config = _settle(
        lm, task, method, length, proxies, steps, seed, judge, description, options
    )
    weights, budget, length, seed = config.proxies, config.steps, config.length, config.seed
    problem = Problem.encode(lm, task, length, chosen.truncate, chosen.ban)
    _check_judge(lm, judge)
    setting = problem.setting(judge, description)
    tuner_class.check(method, weights, setting, length)
    objective = Objective(setting, weights, chosen.loss, chosen.calibrated, chosen.mass)
    outcomes: list[tuple[Tuner, Outcome]] = []
    for start in range(chosen.starts):
        # Far apart, so that no start of one seed is a start of another.
        try:
            tuner = tuner_class(problem, objective, chosen, budget, seed + START_STRIDE * start)
            if isinstance(tuner, SearchTuner) and start == 0:
                tuner.check_budget(method)
            outcomes.append((tuner, run_loop(tuner, problem, objective, chosen, budget, progress)))
        except KeyboardInterrupt:
            if not outcomes:
                raise
            log.warning("Interrupted before start %d; keeping the best of those before.", start + 1)
            outcomes[-1][1].ended = INTERRUPTED
        done = outcomes[-1][1].accuracy_dev == 1 and not any(weights.values())
        if done or outcomes[-1][1].ended == INTERRUPTED:
            break
    if objective.of_prompts.weighs:
        tuner, outcome = min(outcomes, key=lambda o: o[1].objective_dev)
    else:
        tuner, outcome = max(outcomes, key=lambda o: (o[1].accuracy_dev, -o[1].loss_dev))
    prompt = tuner.prompt(outcome.vectors, outcome.token_ids)
    prompt = replace(prompt, template=task.template)
    interrupted = outcomes[-1][1].ended == INTERRUPTED
    # A proxy may bear the name of a measure: the label mass is a probability, its proxy nats.
    scores: dict[str, float] = {}
    try:
        on_test = _on_test(lm, task, prompt, chosen.truncate)
        beside = control_metrics(lm, task, length, truncate=chosen.truncate)
        scores = {k: v for k, v in _scores(objective, prompt, problem).items() if k not in on_test}
    except KeyboardInterrupt:
        log.warning(
            "Interrupted while the prompt was measured on the test texts: it is kept, without test "
            "numbers. For those call sl.evaluate(lm, task, run.prompt)."
        )
        interrupted, on_test, beside = True, UNMEASURED, UNMEASURED_CONTROLS
    metrics: dict[str, float | str] = {
        **on_test,
        "accuracy_dev": outcome.accuracy_dev,
        "loss_dev": outcome.loss_dev,
        **beside,
        "ended": INTERRUPTED if interrupted else outcome.ended,
        "steps": outcome.steps,
        "starts": len(outcomes),
        "evaluations": sum(each.evaluations for _, each in outcomes),
        **scores,
        "seconds": sum(each.seconds for _, each in outcomes),
    }
    text = prompt.text if prompt.text is not None else nearest_tokens(lm, prompt, k=1).text
    kept = torch.stack([*outcome.kept.values()]).cpu() if outcome.kept else None
    at = tuple(outcome.kept)
    return Run(prompt, text, config, outcome.history, metrics, at, kept, digest(task))


def run_config(
    lm: LM,
    task: Task,
    method: str = "soft",
    length: int = 5,
    proxies: Mapping[str, float | int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    judge: LM | None = None,
    description: str | None = None,
    **options: Any,
) -> RunConfig:
    """What `tune` would write down about a run with these arguments, without running it.

    Raises:
        SoftlensError: an unknown method or option, or options that do not fit together.
    """
    return _settle(lm, task, method, length, proxies, steps, seed, judge, description, options)[2]


def _settle(
    lm: LM,
    task: Task,
    method: str,
    length: int,
    proxies: Mapping[str, float | int] | None,
    steps: int | None,
    seed: int,
    judge: LM | None,
    description: str | None,
    options: dict[str, Any],
) -> tuple[type[Tuner], TunerOptions, RunConfig]:
    tuner_class = _tuner(method)
    weights = check_weights(proxies)
    check_whole("length", length, "length=5")
    check_whole("seed", seed, "seed=0")
    check_kinds(task, judge, description)
    length, seed = int(length), int(seed)  # numpy's are no seeds to torch
    if steps is not None:
        check_whole("steps", steps, "steps=150, or None for a budget")
    chosen = _options(method, tuner_class, options).for_lm(lm)
    if steps is not None and tuner_class.in_evaluations:
        raise SoftlensError(
            f"Got steps={steps}, but the budget of {method!r} is counted in evaluations (prompt x "
            "text forward passes): pass evaluations=."
        )
    if steps is not None and steps < 1:
        raise SoftlensError(f"Got steps={steps}, wanted at least 1, or None for a budget.")
    config = RunConfig(
        lm=lm.name,
        lm_checksum=lm.checksum,
        **loaded_as(lm),
        task=task.name,
        template=task.template,
        label_words=task.label_words,
        texts=(len(task.train), len(task.dev), len(task.test)),
        method=method,
        length=length,
        proxies=weights,
        judge=None if judge is None else f"{judge.name} ({judge.checksum})",
        description=description,
        steps=_budget(lm, tuner_class, chosen, options) if steps is None else steps,
        seed=seed,
        options=_written(chosen),
    )
    return tuner_class, chosen, config


def _tuner(method: str) -> type[Tuner]:
    if not isinstance(method, str):
        raise SoftlensError(f"Got method={method!r}, wanted one name of {[*TUNERS]}.")
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
    # A sweep writes all options out: those left as they are were not asked for.
    changed = {name for name, value in given.items() if value != fields[name].default}
    if tuner_class.in_evaluations and (idle := IDLE_IN_SEARCHES & changed):
        log.warning(
            "%s: %r counts evaluations and asks all candidates about the same texts, so that this "
            "changes nothing.",
            ", ".join(sorted(idle)),
            method,
        )
    try:
        return tuner_class.Options(**given)
    except ValidationError as reason:
        wrong = "; ".join(
            f"{error['loc'][0]}={error['input']!r}: {error['msg']}"
            if error["loc"]
            else error["msg"]
            for error in reason.errors()
        )
        raise SoftlensError(f"Options of the method {method!r} are wrong: {wrong}.") from reason


def _written(chosen: TunerOptions) -> dict[str, Any]:
    """The options as a config has them.

    `keep_vectors` is left out where none are kept, so that runs bear the names that they had before
    there was the option.
    """
    known = chosen.model_dump(mode="json")
    return {k: v for k, v in known.items() if k != "keep_vectors" or v is not None}


def _budget(
    lm: LM, tuner_class: type[Tuner], chosen: TunerOptions, given: Mapping[str, Any]
) -> int:
    millions = lm.parameters / 1e6
    if isinstance(chosen, EnumerateOptions):
        log.info("steps=None: as many evaluations as it takes to ask every question.")
        return MOST_ROUNDS
    if isinstance(chosen, SearchOptions):
        if given.get("evaluations") is None:
            log.info(
                "evaluations=None: %d evaluations for an LM of %.1fM parameters.",
                chosen.evaluations,
                millions,
            )
        return MOST_ROUNDS
    steps = tuner_class.small_budget if lm.is_small else tuner_class.budget
    log.info("steps=None: %d steps for an LM of %.1fM parameters.", steps, millions)
    return steps


def _check_judge(lm: LM, judge: LM | None) -> None:
    if judge is not None and judge.checksum == lm.checksum:
        log.warning(
            "The judge is the tuned LM itself (%r): what it says is not held out. Pass another.",
            lm.name,
        )


def _on_test(lm: LM, task: Task, prompt: Prompt, truncate: bool) -> dict[str, float | str]:
    found = evaluate(lm, task, prompt, truncate=truncate)
    shares = found.shares.values()
    return {
        **found.summary(),
        "least_share": min(shares),
        "most_share": max(shares),
        "scored": found.scored,
    }


@torch.no_grad()
def _scores(objective: Objective, prompt: Prompt, problem: Problem) -> dict[str, float]:
    """Nats per token of the prompt (of a soft one: of its nearest tokens), and each proxy."""
    lm = problem.lm
    ids = prompt.token_ids or nearest_tokens(lm, prompt, k=1).token_ids
    proposals = Proposals.of_ids(objective.setting, [ids], problem.dev)
    if prompt.token_ids is None:
        # Its nearest tokens are on the vocabulary; how far it is from them is its own.
        vectors = prompt.vectors.to(lm.device, lm.embedding.dtype)
        proposals = replace(proposals, free=vectors[None])
    scored = [PROXIES[name] for name in objective.weights if "policy" not in PROXIES[name].needs]
    return {
        "nats_per_token": float(proposals.surprisal.mean()),
        **{proxy.name: float(proxy.score(proposals)) for proxy in scored},
    }
