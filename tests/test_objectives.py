"""What a prompt is worth, against plain formulas; and evaluations, counted call by call."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softlens import Task
from softlens.lm import LM, EncodedTexts
from softlens.objectives import Objective, cross_entropy, reward
from softlens.proposals import Proposals
from softlens.proxies import PROXIES
from softlens.tuners.base import Problem

ROWS = [(70, 301, 12, 255), (5, 6, 7, 8), (200, 200, 31, 90)]


@pytest.fixture
def problem(tiny: Callable[..., LM], toy_task: Task) -> Problem:
    return Problem.encode(tiny(), toy_task, 4, truncate=False)


def objective(problem: Problem, weights: dict[str, float] | None = None, **options: Any):
    setting = problem.setting(description="was the film good")
    return Objective(setting, weights or {}, **options)


def plain_log_probs(problem: Problem, ids: Any, texts: EncodedTexts) -> np.ndarray:
    """Log-probabilities of all tokens after each text and the prompt, one plain row at a time."""
    rows = []
    for before, after in zip(texts.befores, texts.afters, strict=True):
        with torch.no_grad():
            logits = problem.lm.model(torch.tensor([[*before, *ids, *after]])).logits[0, -1]
        rows.append(logits.double().log_softmax(0).numpy())
    return np.stack(rows)


# ------------------------------------------------------------------------------------ task losses
@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text} it was"])
@pytest.mark.parametrize("kind", ["labels", "vocabulary", "calibrated", "mass", "vocabulary mass"])
def test_the_loss_is_the_plain_formula(any_lm: LM, toy_task: Task, template: str, kind: str):
    problem = Problem.encode(any_lm, toy_task.with_(template=template), 4, truncate=False)
    options: dict[str, Any] = {
        "labels": {},
        "vocabulary": {"over": "vocabulary"},
        "calibrated": {"calibrated": True},
        "mass": {"mass": 0.3},
        "vocabulary mass": {"over": "vocabulary", "mass": 0.3},
    }[kind]
    asked = objective(problem, **options)
    texts, labels = problem.train.subset(range(7)), problem.labels[:7]
    with torch.no_grad():
        got = asked.terms(Proposals.of_ids(asked.setting, ROWS, texts), labels)["task_loss"]
    for ids, loss in zip(ROWS, got.tolist(), strict=True):
        log_probs = plain_log_probs(problem, ids, texts)
        of_words = log_probs[:, problem.words.numpy()]
        right = np.arange(7), labels.numpy()
        among = of_words - np.log(np.exp(of_words).sum(1, keepdims=True))
        mass = np.log(np.exp(of_words).sum(1)).mean()
        if "vocabulary" in kind:
            wanted = -of_words[right].mean()
        elif kind == "calibrated":
            shifted = np.exp(among - among.mean(0))
            wanted = -np.log(shifted / shifted.sum(1, keepdims=True))[right].mean()
        else:
            wanted = -among[right].mean()
        wanted -= options.get("mass", 0) * mass
        assert loss == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_calibration_forgives_a_constant_bias():
    logits = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    target = torch.arange(9) % 3
    biased = logits + torch.tensor([5.0, 0.0, -2.0])
    torch.testing.assert_close(
        cross_entropy(biased, target, calibrated=True),
        cross_entropy(logits, target, calibrated=True),
        rtol=1e-4,
        atol=1e-5,
    )
    assert (cross_entropy(biased, target).mean() - cross_entropy(logits, target).mean()) > 0.5


def test_the_reward_is_rlprompts():
    """Section 3.3: z = p(c) - max over others of p(c'), times 200 if z > 0, else 180."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4, 11, 3, generator=generator)
    labels = torch.randint(3, (11,), generator=generator)
    wanted = []
    for prompt in logits.tolist():
        gains = []
        for scores, label in zip(prompt, labels.tolist(), strict=True):
            total = sum(math.exp(score) for score in scores)
            shares = [math.exp(score) / total for score in scores]
            gap = shares[label] - max(s for i, s in enumerate(shares) if i != label)
            gains.append(gap * 200 if gap > 0 else gap * 180)
        wanted.append(sum(gains) / len(gains))
    assert reward(logits, labels).tolist() == pytest.approx(wanted, rel=1e-4)


def test_the_reward_at_its_ends():
    labels = torch.tensor([0, 1])
    sure = torch.tensor([[[50.0, 0.0], [0.0, 50.0]]])
    assert reward(sure, labels).item() == pytest.approx(200)
    assert reward(sure, 1 - labels).item() == pytest.approx(-180)
    assert reward(torch.zeros(1, 2, 2), labels).item() == 0


# ---------------------------------------------------------------------------------- the objective
def test_the_total_adds_what_is_low_and_subtracts_what_is_high(problem: Problem):
    weights = {"perplexity": 0.25, "description": 2.0, "repetition": 0.5, "max_surprisal": 0.0}
    asked = objective(problem, weights)
    texts, labels = problem.train.subset(range(5)), problem.labels[:5]
    with torch.no_grad():
        terms = asked.terms(Proposals.of_ids(asked.setting, ROWS, texts), labels)
    assert list(terms) == ["task_loss", *weights]
    assert all(term.shape == (3,) for term in terms.values())
    wanted = (
        terms["task_loss"]
        + 0.25 * terms["perplexity"]
        - 2 * terms["description"]
        + 0.5 * terms["repetition"]
    )
    torch.testing.assert_close(asked.total(terms), wanted)
    torch.testing.assert_close(asked.penalty(terms), wanted - terms["task_loss"])
    assert objective(problem).penalty({}) == 0


def test_gradients_of_the_terms_add_up_to_that_of_the_total(problem: Problem):
    weights = {"perplexity": 0.3, "perplexity_target": 0.2, "label_mass": 0.1, "description": 1.0}
    weights |= {"embedding_distance": 0.7, "repetition": 0.4, "relevance": 0.0}
    asked = objective(problem, weights)
    texts, labels = problem.train.subset(range(5)), problem.labels[:5]
    ids = torch.tensor(ROWS[:1])

    def leaves() -> tuple[Proposals, list[Tensor]]:
        rows = problem.lm.embedding[ids].clone().requires_grad_()
        free = (rows.detach() + 0.1).requires_grad_()
        return Proposals(asked.setting, ids, rows, free=free, texts=texts), [rows, free]

    proposals, both = leaves()
    terms, gradients = asked.gradients(proposals, labels, both)
    assert set(terms) == {"task_loss", *weights}
    # Counting tokens has no gradient: it has a term, and nothing to follow.
    assert set(gradients) == {"task_loss", *weights} - {"repetition"}
    assert float(gradients["relevance"].abs().max()) == 0

    proposals, both = leaves()
    total = asked.total(asked.terms(proposals, labels)).sum()
    wanted = sum(torch.autograd.grad(total, both))
    torch.testing.assert_close(sum(gradients.values()), wanted, rtol=1e-4, atol=1e-6)

    row = asked.row(terms, gradients)
    assert row["objective"] == pytest.approx(total.item(), rel=1e-5)
    assert row["grad_norm_task"] == pytest.approx(gradients["task_loss"].norm().item())
    assert row["grad_norm_perplexity"] == pytest.approx(gradients["perplexity"].norm().item())
    assert row["grad_norm_relevance"] == 0
    assert "grad_norm_repetition" not in row


# ------------------------------------------------------------------------------------ evaluations
class Counter:
    """Counts prompt x text forward passes where the proxies ask the LM, a backward as two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        module = importlib.import_module("softlens.proposals")
        for name in ("answer_logits", "word_logits", "score_answers"):
            monkeypatch.setattr(module, name, self._answers(getattr(module, name)))
        counted = self._surprisals(module.token_surprisal)
        for asking in (module, importlib.import_module("softlens.proxies")):
            monkeypatch.setattr(asking, "token_surprisal", counted)

    def _answers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(lm: LM, prompts: Any, texts: EncodedTexts, *rest: Any) -> Any:
            self.asked += len(prompts) * len(texts)
            return original(lm, prompts, texts, *rest)

        return counted

    def _surprisals(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(lm: LM, prompts: Any, context: Any = None, *rest: Any, **named: Any) -> Any:
            self.asked += len(prompts) * (1 if context is None else len(context))
            return original(lm, prompts, context, *rest, **named)

        return counted


SETS = [
    [],
    ["perplexity"],
    ["perplexity", "max_surprisal", "repetition"],
    ["perplexity", "perplexity_target"],
    ["perplexity_target"],
    ["relevance"],
    ["relevance", "perplexity", "description"],
    ["label_mass"],
    ["label_mass", "perplexity", "embedding_distance"],
    ["repetition", "description", "embedding_distance"],
    ["fluency_band", "judge_perplexity"],
]


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_every_question_to_the_lm_is_counted_once(
    problem: Problem,
    tiny: Callable[..., LM],
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
):
    setting = problem.setting(judge=tiny("llama", 3), description="was the film good")
    setting.band(4)
    asked, counter = Objective(setting, dict.fromkeys(names, 1.0)), Counter(monkeypatch)
    texts, labels = problem.train.subset(range(5)), problem.labels[:5]
    with torch.no_grad():
        asked.terms(Proposals.of_ids(setting, ROWS, texts), labels)
        assert asked.evaluations == counter.asked
        asked.scores(Proposals.of_ids(setting, ROWS, texts))
        assert asked.evaluations == counter.asked


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], 3 * 5),
        (["perplexity"], 3 * (5 + 1)),
        (["relevance"], 3 * (5 + 8 + 1)),
        # What shares a graph with the task loss is passed backward once more.
        (["label_mass"], 3 * 5 + 2 * 5),
    ],
)
def test_a_backward_pass_counts_as_two(problem: Problem, names: list[str], wanted: int):
    asked = objective(problem, dict.fromkeys(names, 1.0))
    texts, labels = problem.train.subset(range(5)), problem.labels[:5]
    rows = problem.lm.embedding[torch.tensor(ROWS[:1])].clone().requires_grad_()
    proposals = Proposals(asked.setting, torch.tensor(ROWS[:1]), rows, texts=texts)
    asked.gradients(proposals, labels, [rows])
    assert asked.evaluations == wanted


def test_every_proxy_is_in_a_set_that_is_counted():
    asked = {name for names in SETS for name in names}
    assert asked | {"prior_kl"} == set(PROXIES)
