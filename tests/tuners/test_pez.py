"""PEZ against the published way written out once more; and what PEZ, FluentPrompt and GCG share."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import softlens as sl
from softlens import Prompt, Run, SoftlensError, Task, evaluate, tune
from softlens.lm import LM
from softlens.objectives import Objective
from softlens.proposals import Proposals
from softlens.proxies import PROXIES
from softlens.tuners import TUNERS
from softlens.tuners.base import Problem
from softlens.tuners.loop import look
from softlens.tuners.pez import PezOptions, PezTuner, project

METHODS = ("pez", "fluentprompt", "gcg")
STEPS = {"pez": 40, "fluentprompt": 40, "gcg": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "pez": {},
    "fluentprompt": {"learning_rate": 3.0, "clip": None, "evaluations_of_dev": 40},
    "gcg": {"candidates": 24},
}
TEMPLATES = ("{text} {prompt}", "{prompt} {text} it was")


def quick(lm: LM, task: Task, method: str = "pez", **changes: Any) -> Run:
    given = {"length": 4, "steps": STEPS[method], "progress": False, "patience": 50} | changes
    return tune(lm, task, method, **(OPTIONS[method] | given))


# --------------------------------------------------------------------------------------- the step
def published(
    lm: LM, task: Task, start: list[int], weight: float, steps: int, options: PezOptions
) -> list[list[int]]:
    """The published loop on plain rows: project, forward text and prompt, fluency, step."""
    table = lm.model.get_input_embeddings().weight.detach()
    units = torch.nn.functional.normalize(table, dim=1)
    forbidden = [i for i in range(lm.vocab_size) if i not in set(lm.ordinary_ids.tolist())]
    words = [lm.encode(word, leading_space=True)[0] for word in task.label_words]
    head, tail = (part.strip() for part in task.template.split("{prompt}"))
    free = table[start].clone().requires_grad_()
    rate = {"adamw": 0.1, "adam": 0.1}[options.optimiser]
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    extra = {"weight_decay": options.weight_decay} if options.optimiser == "adamw" else {}
    optimiser = kinds[options.optimiser]([free], lr=options.learning_rate or rate, **extra)
    visited = []
    for _ in range(steps):
        nearness = torch.nn.functional.normalize(free.detach(), dim=1) @ units.T
        nearness[:, forbidden] = -1
        ids = nearness.argmax(dim=1)
        visited.append(ids.tolist())
        projected = table[ids].clone().requires_grad_()
        losses = []
        for text, label in zip(task.train.texts, task.train.labels, strict=True):
            before = lm.encode(head.replace("{text}", text)) if head else []
            after = lm.encode(" " + tail.replace("{text}", text)) if tail else []
            rows = [table[[lm.bos_id, *before]], projected, table[after]]
            logits = lm.model(inputs_embeds=torch.cat(rows)[None]).logits[0, -1, words]
            losses.append(-logits.log_softmax(0)[label])
        loss = torch.stack(losses).mean()
        if weight:
            rows = [table[[lm.bos_id]], projected]
            logits = lm.model(inputs_embeds=torch.cat(rows)[None]).logits[0, :-1]
            loss = loss + weight * torch.nn.functional.cross_entropy(logits, ids)
        (free.grad,) = torch.autograd.grad(loss, projected)
        torch.nn.utils.clip_grad_norm_([free], options.clip or float("inf"))
        optimiser.step()
    return visited


@pytest.mark.parametrize(
    ("template", "weight", "optimiser"),
    [(TEMPLATES[0], 0.0, "adamw"), (TEMPLATES[0], 0.3, "adamw"), (TEMPLATES[1], 0.3, "adam")],
)
def test_it_visits_the_prompts_that_the_published_loop_visits(
    tiny: Callable[..., LM], toy_task: Task, template: str, weight: float, optimiser: Any
):
    lm, task = tiny(), toy_task.with_(template=template)
    assert not lm.sink
    options = PezOptions(optimiser=optimiser, learning_rate=0.2, batch_size=24)
    problem = Problem.encode(lm, task, 3, truncate=False)
    asked = Objective(problem.setting(), {"perplexity": weight} if weight else {})
    tuner = PezTuner(problem, asked, options, steps=12, seed=2)
    visited = [tuner.token_ids]
    for _ in range(12):
        tuner.step()
        visited.append(tuner.token_ids)
    assert visited[:12] == published(lm, task, visited[0], weight, 12, options)
    assert len({tuple(ids) for ids in visited}) > 2


def test_adafactor_is_the_published_one(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    problem = Problem.encode(lm, toy_task, 3, truncate=False)
    tuner = PezTuner(
        problem, Objective(problem.setting(), {}), PezOptions(optimiser="adafactor"), 10, seed=0
    )
    before = tuner._free.detach().clone()
    tuner.step()
    # Without a schedule of its own its first update is the gradient over its root mean square,
    # bounded by 1, times the constant rate.
    moved = (tuner._free.detach() - before).square().mean().sqrt()
    assert moved.item() == pytest.approx(0.3, rel=0.35)
    assert set(tuner._optimiser.defaults) >= {"relative_step", "scale_parameter"}
    assert not tuner._optimiser.defaults["relative_step"]


def test_the_copy_drifts_while_the_prompt_stands_still(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    problem = Problem.encode(lm, toy_task, 3, truncate=False)
    options = PezOptions(learning_rate=1e-3)
    tuner = PezTuner(problem, Objective(problem.setting(), {}), options, 10, seed=0)
    first = tuner.token_ids
    for _ in range(3):
        row = tuner.step()
    assert tuner.token_ids == first
    assert row["prompts_visited"] == 1
    assert not torch.equal(tuner._free.detach(), lm.embed(first))
    assert torch.equal(tuner.vectors, lm.embed(first))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_it_projects_to_the_nearest_allowed_token(
    tiny: Callable[..., LM], toy_task: Task, metric: str
):
    lm = tiny()
    problem = Problem.encode(lm, toy_task, 3, truncate=False, ban=("labels", " film", 70))
    vectors = torch.randn(6, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    vectors[0] = lm.embedding[70] + 1e-3  # nearest is banned
    table, allowed = lm.embedding.double().numpy(), problem.allowed_ids.tolist()
    got = project(problem, vectors, metric)
    for vector, index in zip(vectors.double().numpy(), got, strict=True):
        if metric == "cosine":
            far = [-(table[i] @ vector) / np.linalg.norm(table[i]) for i in allowed]
        else:
            far = [np.linalg.norm(table[i] - vector) for i in allowed]
        assert index == allowed[int(np.argmin(far))]


def test_the_free_copy_is_what_embedding_distance_holds(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    options = {"steps": 15, "learning_rate": 0.3}
    without = quick(lm, toy_task, proxies={"embedding_distance": 0}, **options)
    held = quick(lm, toy_task, proxies={"embedding_distance": 30}, **options)
    assert without.history["embedding_distance"].iloc[0] == pytest.approx(0, abs=1e-6)
    assert without.history["embedding_distance"].iloc[-1] > 0.2
    assert held.history["embedding_distance"].iloc[-1] < 0.15
    assert (held.history["grad_norm_embedding_distance"].iloc[1:] > 0).all()


def test_a_copy_that_is_no_number_is_not_taken_for_a_prompt(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    def broken(self, *rest, original=Objective.gradients):
        terms, gradients = original(self, *rest)
        return terms, {name: gradient * float("nan") for name, gradient in gradients.items()}

    monkeypatch.setattr(Objective, "gradients", broken)
    for method in ("pez", "fluentprompt"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run = quick(lm := tiny(), toy_task, method)
        assert run.metrics["ended"] == "stopped: the loss was not a number"
        # What is nearest to NaN would be whatever stands first in the vocabulary, five times.
        assert set(run.prompt.token_ids) <= set(lm.ordinary_ids.tolist())
        assert len(set(run.prompt.token_ids)) > 1
        assert "lower learning rate" in caplog.text
        assert len(run.history) == 0


# ------------------------------------------------------------------------- what the three share
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_they_learn_and_say_what_they_did(
    any_lm: LM,
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    template: str,
    path: str,
):
    monkeypatch.setattr(any_lm, "path", path)
    task = toy_task.with_(template=template)
    steps = STEPS[method] if path == "fast" else 3
    run = quick(any_lm, task, method, proxies={"perplexity": 0.05}, seed=1, steps=steps)
    assert run.prompt.is_hard
    assert run.metrics["scored"] == "tokens"
    assert run.text == any_lm.decode(run.prompt.token_ids or ())
    assert torch.equal(run.prompt.vectors, any_lm.embed(run.prompt.token_ids or ()))

    history = run.history
    own = {"fluentprompt": ["beta"]}.get(method, [])
    assert list(history.columns) == [
        "step", "objective", "task_loss", "perplexity", "grad_norm_task", "grad_norm_perplexity",
        *own, "prompts_visited", "tokens_changed", "token_ids", "accuracy_dev", "loss_dev",
        "evaluations",
    ]  # fmt: skip
    assert (history["grad_norm_task"] > 0).all()
    assert (history["grad_norm_perplexity"] > 0).all()
    assert history["tokens_changed"].between(0, 4).all()
    assert history["prompts_visited"].is_monotonic_increasing
    np.testing.assert_allclose(
        history["objective"], history["task_loss"] + 0.05 * history["perplexity"], rtol=1e-5
    )
    after = evaluate(any_lm, task, run.prompt, split="dev")
    assert after.accuracy == pytest.approx(run.metrics["accuracy_dev"])
    assert after.loss == pytest.approx(run.metrics["loss_dev"], rel=1e-3)
    if path == "fast":
        problem = Problem.encode(any_lm, task, 4, truncate=False)
        start = on_dev(problem, problem.start_ids(None, 1), 0.05)
        # Noise may find nothing better in so few steps; on the organism it must.
        gain = 0.0 if method == "fluentprompt" else 0.005
        assert on_dev(problem, run.prompt.token_ids, 0.05) <= start - gain

    looks = int(history["accuracy_dev"].notna().sum())
    scored = 24 * (24 + 1) if method == "gcg" else 0
    each_step, each_look = 3 * (24 + 1) + scored, 12 + 1
    wanted = len(history) * each_step + (looks + 1) * each_look
    assert run.metrics["evaluations"] == wanted
    assert history["evaluations"].iloc[-1] == wanted


def on_dev(problem: Problem, ids: Any, weight: float) -> float:
    """Loss plus weighted nats per token, as the loop selects."""
    _, loss = problem.on_dev(problem.lm.embed(ids))
    nats = Proposals.of_ids(problem.setting(), [ids]).surprisal.mean()
    return loss + weight * float(nats)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits(tiny: Callable[..., LM], toy_task: Task, method: str):
    options = {"proxies": {"perplexity": 0.1}, "steps": 8}
    first, second, other = (
        quick(tiny(), toy_task, method, seed=seed, **options) for seed in (3, 3, 4)
    )
    assert first.prompt.token_ids == second.prompt.token_ids
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)
    assert first.config == second.config
    assert not first.history.equals(other.history)


@pytest.mark.parametrize("method", METHODS)
def test_bans_hold_at_every_step(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch, method: str
):
    lm, ban = tiny(), ("labels", "control", " film", 70)
    problem = Problem.encode(lm, toy_task, 4, truncate=False, ban=ban)
    seen: set[int] = set()

    def watched(self, original=TUNERS[method].step):
        row = original(self)
        seen.update(self.token_ids)
        return row

    monkeypatch.setattr(TUNERS[method], "step", watched)
    run = quick(lm, toy_task, method, ban=ban, seed=5)
    assert len(seen) > 4
    assert all(problem.allowed[sorted(seen)])
    assert all(problem.allowed[list(run.prompt.token_ids or ())])


@pytest.mark.parametrize("method", METHODS)
def test_they_start_where_they_are_told(tiny: Callable[..., LM], toy_task: Task, method: str):
    lm = tiny()
    run = quick(lm, toy_task, method, init_text="in short it was", steps=1)
    ids = lm.encode(" in short it was")
    start = on_dev(Problem.encode(lm, toy_task, 4, truncate=False), ids, 0)
    assert run.metrics["loss_dev"] <= start + 1e-6
    assert run.history["tokens_changed"].iloc[0] <= 4
    with pytest.raises(SoftlensError, match="has 4 tokens .* but the length is 3"):
        quick(lm, toy_task, method, init_text="in short it was", length=3)
    with pytest.raises(SoftlensError, match=r"init_text .* has ' was', which may not be used"):
        quick(lm, toy_task, method, init_text="in short it was", ban=(" was",))


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_keeps_the_best_so_far(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch, method: str
):
    steps = []

    def interrupted(self, original=TUNERS[method].step):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(TUNERS[method], "step", interrupted)
    run = quick(tiny(), toy_task, method)
    assert (run.metrics["ended"], run.metrics["steps"], len(run.history)) == ("interrupted", 4, 4)
    assert np.isfinite(run.metrics["accuracy"])
    assert run.prompt.is_hard


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_between_two_looks_at_dev_keeps_what_was_found_there(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch, method: str
):
    """Dev is looked at before the first step and, with one look, at the last, which never comes."""
    accuracies, held = [], []

    def on_dev(self: Problem, vectors: torch.Tensor, calibrated: bool = False) -> Any:
        held.append(vectors.clone())
        accuracies.append(0.1 if len(held) == 1 else better)
        return accuracies[-1], 1.0

    def interrupted(self, original=TUNERS[method].step):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(1)
        return original(self)

    monkeypatch.setattr(Problem, "on_dev", on_dev)
    monkeypatch.setattr(TUNERS[method], "step", interrupted)
    for better, which in ((0.9, 1), (0.05, 0)):
        steps: list[int] = []
        held.clear()
        run = quick(tiny(), toy_task, method, evaluations_of_dev=1)
        assert (run.metrics["ended"], run.metrics["steps"], len(held)) == ("interrupted", 3, 2)
        torch.testing.assert_close(run.prompt.vectors, held[which], msg=f"on dev {better}")


def test_dev_sees_how_far_the_free_vectors_are(tiny: Callable[..., LM], toy_task: Task):
    run = quick(tiny(), toy_task, steps=12, proxies={"embedding_distance": 5.0})
    problem = Problem.encode(tiny(), toy_task, 4, truncate=False)
    objective = Objective(problem.setting(), {"embedding_distance": 5.0}, "labels", False, 0.0)
    tuner = PezTuner(problem, objective, PezOptions(), steps=12, seed=0)
    for _ in range(3):
        tuner.step()
    seen = look(tuner, problem, objective)
    units = torch.nn.functional.normalize(tuner.free, dim=1)
    apart = 1 - (units * problem.lm.unit_embedding[tuner.token_ids]).sum(dim=1).mean()
    assert float(apart) > 1e-4
    assert seen.objective_dev - seen.loss_dev == pytest.approx(5 * float(apart), rel=1e-3)
    assert run.metrics["embedding_distance"] == pytest.approx(0, abs=1e-5), "tokens are tokens"


def test_a_weight_that_tokens_cannot_feel_is_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    quick(tiny(), toy_task, "gcg", steps=1, proxies={"embedding_distance": 1.0})
    assert "'gcg' proposes tokens, whose 'embedding_distance' is 0" in caplog.text
    caplog.clear()
    quick(tiny(), toy_task, "pez", steps=1, proxies={"embedding_distance": 1.0})
    quick(tiny(), toy_task, "gcg", steps=1, proxies={"embedding_distance": 0.0})
    assert "proposes tokens" not in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_no_number_stops_and_keeps_the_best(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
):
    steps = []

    def broken(self, original=TUNERS[method].step):
        steps.append(1)
        row = original(self)
        return row | {"objective": float("nan")} if len(steps) == 4 else row

    monkeypatch.setattr(TUNERS[method], "step", broken)
    with caplog.at_level(logging.WARNING):
        run = quick(tiny(), toy_task, method)
    assert run.metrics["ended"] == "stopped: the loss was not a number"
    assert len(run.history) == 3
    assert "the loss is not a number" in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_of_one_token(tiny: Callable[..., LM], toy_task: Task, method: str):
    run = quick(tiny(), toy_task, method, length=1, steps=4, proxies={"perplexity": 0.1})
    assert run.prompt.length == 1
    # Nothing stands behind the only token, so that as context it has no gradient.
    assert (run.history["grad_norm_perplexity"] == 0).all()


@pytest.mark.parametrize("method", ["pez", "fluentprompt"])
@pytest.mark.parametrize("name", [p.name for p in PROXIES.values() if p.gradient])
def test_every_differentiable_proxy_pulls(
    tiny: Callable[..., LM], toy_task: Task, method: str, name: str
):
    run = quick(
        tiny(), toy_task, method, steps=12, proxies={name: 1}, description="was the film good"
    )
    norms = run.history[f"grad_norm_{name}"]
    if name == "embedding_distance" and method == "fluentprompt":
        # Its iterate is a projection, at no distance from itself: only rounding is left.
        assert run.history[name].abs().max() < 1e-6
        return
    assert (norms.iloc[1:] > 0).any()
    assert name in run.metrics


def test_options_are_checked(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match=r"'learning_rat' is no option of the method 'pez'"):
        quick(lm, toy_task, learning_rat=1)
    with pytest.raises(SoftlensError, match="'candidates' is no option of the method 'pez'"):
        quick(lm, toy_task, candidates=1)
    for wrong in ({"learning_rate": 0}, {"clip": 0}, {"optimiser": "sgd"}, {"metric": "dot"},
                  {"weight_decay": -1.0}):  # fmt: skip
        with pytest.raises(SoftlensError, match=f"'pez' are wrong: {next(iter(wrong))}="):
            quick(lm, toy_task, **wrong)
    for method in METHODS:
        fields = TUNERS[method].Options.model_fields
        assert all(len(field.description or "") > 5 for field in fields.values())


# --------------------------------------------------------------------------------- the organism
@pytest.fixture(scope="module")
def organism() -> LM:
    return sl.load_lm()


def test_on_the_organism_it_learns_and_lambda_lowers_the_nats(organism: LM):
    task = sl.load_task("topic").head(train=64, dev=64, test=64)
    free, target = (
        quick(organism, task, length=5, steps=120, batch_size=16, proxies=proxies)
        for proxies in ({}, {"perplexity_target": 1})
    )
    assert free.metrics["accuracy"] > 0.9
    assert target.metrics["nats_per_token"] < free.metrics["nats_per_token"] - 2
    start = Prompt.from_ids(
        organism, Problem.encode(organism, task, 5, truncate=False).start_ids(None, 0)
    )
    assert evaluate(organism, task, start).accuracy < free.metrics["accuracy"]


def test_a_proxy_does_not_take_the_place_of_the_measure_of_its_name(
    tiny: Callable[..., LM], toy_task: Task
):
    run = quick(tiny(), toy_task, proxies={"label_mass": 0.1, "perplexity": 0.1}, steps=3)
    assert run.metrics["label_mass"] == evaluate(tiny(), toy_task, run.prompt).label_mass
    assert 0 < run.metrics["label_mass"] < 1
    # The proxy's own value, in nats, is in the history.
    assert run.history["label_mass"].iloc[-1] > 0
