"""Proxies of interpretability: values against independent computations, gradients, bad input."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import softlens as sl
from softlens import SoftlensError, Task, tune
from softlens.lm import LM
from softlens.proposals import Proposals, Setting
from softlens.proxies import PROXIES, proxy
from softlens.tuners.base import Problem

IDS = (70, 301, 12, 255)
"""Tokens of a prompt; no two alike, so that no maximum is tied."""
DIFFERENTIABLE = [p.name for p in PROXIES.values() if p.gradient]


@pytest.fixture
def setting(tiny: Callable[..., LM], toy_task: Task) -> Setting:
    """All that a proxy may need, on the tiny GPT-2."""
    problem = Problem.encode(tiny(), toy_task, 4, truncate=False)
    return problem.setting(judge=tiny("llama", 3), description="was the film good")


@pytest.fixture(scope="module")
def organism() -> LM:
    """The bundled LM, whose words are whole tokens."""
    return sl.load_lm()


@pytest.fixture
def problem(tiny: Callable[..., LM], toy_task: Task) -> Problem:
    """The same task, encoded."""
    return Problem.encode(tiny(), toy_task, 4, truncate=False)


def plain_nats(lm: LM, ids: Any, before: Any = None) -> np.ndarray:
    """-log p of each token, by transformers and numpy alone."""
    if before is None:
        before = [lm.bos_id, *(lm.encode(".") if lm.sink and len(lm.encode(".")) == 1 else [])]
    row = [*before, *ids]
    with torch.no_grad():
        logits = lm.model(torch.tensor([row])).logits[0].double().numpy()
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    places = np.arange(len(before) - 1, len(row) - 1)
    return -log_probs[places, list(ids)]


def value(setting: Setting, name: str, ids: Any = IDS, texts: Any = None) -> float:
    with torch.no_grad():
        return float(PROXIES[name].score(Proposals.of_ids(setting, [ids], texts)))


# ------------------------------------------------------------------------------------- gradients
def score_at(setting: Setting, name: str, texts: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A point, and a proxy as a function of what may vary there: the vectors, or the free copy."""
    # Were the first token the most surprising, nothing that may vary would stand before it.
    ids = torch.tensor([IDS if plain_nats(setting.lm, IDS).argmax() else IDS[::-1]])
    rows = setting.lm.embedding[ids]
    generator = torch.Generator().manual_seed(5)
    point = rows + 0.05 * torch.randn(rows.shape, generator=generator)

    def score(vectors: Tensor) -> Tensor:
        fed, free = (rows, vectors) if name == "embedding_distance" else (vectors, None)
        return PROXIES[name].score(Proposals(setting, ids, fed, free=free, texts=texts)).sum()

    return point, score


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    family: str,
):
    # Far from what a random LM says of any token: inside its band the gradient is 0, tested below.
    monkeypatch.setattr(Setting, "band", lambda self, length: (0.0, 1.0))
    task = Problem.encode(tiny(family), toy_task, 4, truncate=False)
    setting = task.setting(description="was the film good")
    point, score = score_at(setting, name, task.train.subset(range(6)))
    leaf = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    assert torch.isfinite(gradient).all()
    assert gradient.norm() > 1e-3
    # The last token is nobody's context: only as what is predicted does a gradient reach it.
    assert bool(gradient[0, -1].abs().max() == 0) == PROXIES[name].context_only

    generator = torch.Generator().manual_seed(7)
    random = torch.randn((4, *point.shape), generator=generator)
    for direction in (gradient, *random):
        along = direction / direction.norm()
        step = 1e-2
        with torch.no_grad():
            rise = (score(point + step * along) - score(point - step * along)) / (2 * step)
        wanted = (gradient * along).sum()
        torch.testing.assert_close(rise, wanted, rtol=2e-2, atol=float(2e-3 * gradient.norm()))


def test_a_gradient_reaches_each_token_only_from_those_behind_it(setting: Setting):
    ids = torch.tensor([IDS])
    leaf = setting.lm.embedding[ids].clone().requires_grad_()
    nats = Proposals(setting, ids, leaf).surprisal[0]
    for position in range(4):
        (gradient,) = torch.autograd.grad(nats[position], leaf, retain_graph=True)
        reached = gradient[0].abs().amax(dim=1) > 0
        assert reached.tolist() == [before < position for before in range(4)]


def test_as_targets_the_value_is_the_same_and_the_gradient_is_not(setting: Setting):
    ids = torch.tensor([IDS])
    leaf = setting.lm.embedding[ids].clone().requires_grad_()
    proposals = Proposals(setting, ids, leaf)
    context, target = PROXIES["perplexity"].score, PROXIES["perplexity_target"].score
    torch.testing.assert_close(context(proposals), target(proposals))
    (one,) = torch.autograd.grad(context(proposals).sum(), leaf)
    (other,) = torch.autograd.grad(target(proposals).sum(), leaf)
    # What the target side adds is known: (p - 1) x the state that predicts it, over the length.
    row = [setting.lm.bos_id, *IDS]
    states = setting.lm.model.base_model(torch.tensor([row])).last_hidden_state[0, :-1]
    share = torch.tensor(np.exp(-plain_nats(setting.lm, IDS)), dtype=torch.float32)
    torch.testing.assert_close(
        (other - one)[0], (share - 1)[:, None] * states / 4, rtol=1e-3, atol=1e-4
    )


def test_inside_the_band_nothing_pulls(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    ids = torch.tensor([IDS])
    nats = plain_nats(setting.lm, IDS).mean()
    for low, high, wanted, sign in (
        (nats - 1, nats + 1, 0.0, 0),
        (nats + 0.5, nats + 1, 0.5, -1),
        (nats - 1, nats - 0.25, 0.25, 1),
    ):
        monkeypatch.setattr(Setting, "band", lambda self, n, low=low, high=high: (low, high))
        leaf = setting.lm.embedding[ids].clone().requires_grad_()
        proposals = Proposals(setting, ids, leaf)
        score = PROXIES["fluency_band"].score(proposals)
        assert score.item() == pytest.approx(wanted, abs=1e-4)
        (gradient,) = torch.autograd.grad(score.sum(), leaf, retain_graph=True)
        (of_nats,) = torch.autograd.grad(proposals.surprisal.mean(), leaf)
        torch.testing.assert_close(gradient, sign * of_nats)


# ---------------------------------------------------------------------------------------- values
def test_surprisals_equal_a_plain_forward(any_lm: LM, toy_task: Task):
    task = Problem.encode(any_lm, toy_task, 4, truncate=False)
    setting = task.setting()
    nats = plain_nats(any_lm, IDS)
    assert value(setting, "perplexity") == pytest.approx(nats.mean(), rel=1e-4)
    assert value(setting, "max_surprisal") == pytest.approx(nats.max(), rel=1e-4)
    if any_lm.head.tied:
        assert value(setting, "perplexity_target") == pytest.approx(nats.mean(), rel=1e-4)
    else:
        with pytest.raises(SoftlensError, match=r"is not its input embedding.*'perplexity'"):
            value(setting, "perplexity_target")

    assert setting.before is not None
    assert len(setting.before) == 8  # four of each class
    labels = dict(zip(toy_task.train.texts, toy_task.train.labels, strict=True))
    assert [labels[text] for text in setting.before.sources].count(0) == 4
    after = [plain_nats(any_lm, IDS, row).mean() for row in setting.before.befores]
    wanted = np.mean(after) - nats.mean()
    assert value(setting, "relevance") == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_the_band_is_that_of_real_spans(setting: Setting):
    assert setting.before is not None
    spans = []
    for row in setting.before.befores:
        text = row[1:]
        spans += [text[i : i + 4] for i in range(0, len(text) - 3, 4)]
    nats = [plain_nats(setting.lm, span).mean() for span in spans]
    low, high = np.quantile(nats, [0.1, 0.9])
    assert setting.band(4) == pytest.approx((low, high), rel=1e-4)
    own = plain_nats(setting.lm, IDS).mean()
    wanted = max(own - high, 0) + max(low - own, 0)
    assert value(setting, "fluency_band") == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    with pytest.raises(SoftlensError, match="No real text has 60 tokens"):
        setting.band(60)


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ((1, 2, 3, 4), 0.0),
        ((1, 1, 2, 3), 1 / 4),
        ((1, 1, 2, 2), 2 / 4),
        ((5, 5, 5, 9), 2**1.5 / 4),
        ((7, 7, 7, 7), 3**1.5 / 4),
        ((7, 7), 1 / 2),
    ],
)
def test_repetition_by_hand(setting: Setting, ids: tuple[int, ...], wanted: float):
    assert value(setting, "repetition", ids) == pytest.approx(wanted)


def test_repetition_of_many_prompts_at_once(setting: Setting):
    proposals = Proposals.of_ids(setting, [(1, 2, 3), (4, 4, 4), (1, 2, 1)])
    wanted = torch.tensor([0.0, 2**1.5 / 3, 1 / 3])
    torch.testing.assert_close(PROXIES["repetition"].score(proposals), wanted)


def test_embedding_distance_is_one_minus_cosine(setting: Setting):
    rows = setting.lm.embedding[torch.tensor(IDS)].numpy()
    assert value(setting, "embedding_distance") == pytest.approx(0, abs=1e-6)
    free = rows + np.random.default_rng(0).normal(0, 0.3, rows.shape).astype(np.float32)
    cosine = (rows * free).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(free, axis=1)
    ids = torch.tensor([IDS])
    proposals = Proposals(setting, ids, setting.lm.embedding[ids], free=torch.tensor(free)[None])
    got = float(PROXIES["embedding_distance"].score(proposals))
    assert got == pytest.approx(1 - cosine.mean(), rel=1e-4)
    # A soft prompt has no other copy: its own vectors are the free ones.
    soft = Proposals(setting, ids, torch.tensor(free)[None])
    assert float(PROXIES["embedding_distance"].score(soft)) == pytest.approx(got)


def test_the_judge_reads_the_text_with_its_own_tokens(organism: LM, tiny: Callable[..., LM]):
    judge = tiny("gpt2", 3)
    rows = [organism.encode(text) for text in ("the film was great", "story story the a")]
    setting = Setting(organism, torch.tensor([0, 1]), judge=judge)
    got = PROXIES["judge_perplexity"].score(Proposals.of_ids(setting, rows))
    texts = [" " + organism.decode(row) for row in rows]
    wanted = [plain_nats(judge, judge.encode(text)).mean() for text in texts]
    assert got.tolist() == pytest.approx(wanted, rel=1e-4)


def test_label_mass_is_minus_its_logarithm(problem: Problem):
    lm, texts = problem.lm, problem.train.subset(range(5))
    shares = []
    for before in texts.befores:
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*before, *IDS]])).logits[0, -1]
        shares.append(float(logits.double().softmax(0)[problem.words].sum()))
    wanted = -np.log(shares).mean()
    assert value(problem.setting(), "label_mass", texts=texts) == pytest.approx(wanted, rel=1e-4)


def test_description_is_a_cosine_of_centred_means(setting: Setting):
    table = setting.lm.embedding.numpy()
    centre = table.mean(0)
    said = table[setting.lm.encode(" was the film good")].mean(0) - centre
    own = table[list(IDS)].mean(0) - centre
    wanted = own @ said / np.linalg.norm(own) / np.linalg.norm(said)
    assert value(setting, "description") == pytest.approx(wanted, rel=1e-4)
    itself = setting.lm.encode(" was the film good")
    assert value(setting, "description", itself) == pytest.approx(1, abs=1e-5)
    assert PROXIES["description"].better == "higher"


def test_prior_kl_is_the_difference_of_log_probabilities(setting: Setting):
    policy = -torch.tensor([[1.0, 2.0, 0.5, 4.0], [3.0, 3.0, 3.0, 3.0]])
    rows = [IDS, IDS[::-1]]
    got = PROXIES["prior_kl"].score(Proposals.of_ids(setting, rows, policy=policy))
    prior = np.stack([-plain_nats(setting.lm, row) for row in rows])
    wanted = (policy.numpy() - prior).mean(axis=1)
    assert got.tolist() == pytest.approx(wanted.tolist(), rel=1e-4)


# ----------------------------------------------------------------------------------- the registry
def test_the_table_says_everything_of_each():
    table = sl.proxies()
    assert table["proxy"].tolist() == list(PROXIES)
    assert table["proxy"].is_unique
    for column in ("what", "unit", "better", "fails", "source"):
        assert table[column].str.len().gt(3).all(), column
    assert table["weight"].gt(0).all()
    assert set(table["better"]) == {"lower", "higher"}
    needs = dict(zip(table["proxy"], table["needs"], strict=True))
    assert needs["judge_perplexity"] == "judge"
    assert needs["perplexity"] == ""
    assert set(DIFFERENTIABLE) == set(table.loc[table["gradient"], "proxy"])


@pytest.fixture
def loudness() -> Iterator[str]:
    """A proxy of the tests' own: registered, and taken out again."""

    @proxy("squared length", 0.5, fails="says nothing", source="the tests")
    def loudness(p: Proposals) -> Tensor:
        """Mean squared length of the vectors."""
        return p.vectors.square().sum(dim=-1).mean(dim=-1)

    yield "loudness"
    del PROXIES["loudness"]


def test_one_function_makes_a_proxy(tiny: Callable[..., LM], toy_task: Task, loudness: str):
    lm = tiny()
    assert sl.proxies().iloc[-1]["what"] == "Mean squared length of the vectors."
    run = tune(lm, toy_task, "pez", length=4, steps=6, proxies={loudness: 0.1}, progress=False)
    history = run.history
    torch.testing.assert_close(
        torch.tensor(history["objective"].to_numpy()),
        torch.tensor((history["task_loss"] + 0.1 * history[loudness]).to_numpy()),
    )
    # Its gradient at the prompt is 2 v / length, and the first step starts from the start's rows.
    start = tune(lm, toy_task, "pez", length=4, steps=1, seed=0, proxies={loudness: 0.1})
    first = start.history.iloc[0]
    assert first[f"grad_norm_{loudness}"] == pytest.approx(
        0.1 * 2 / 4 * np.sqrt(4 * first[loudness]), rel=1e-4
    )
    rows = lm.embedding[list(run.prompt.token_ids or ())]
    assert run.metrics[loudness] == pytest.approx(float(rows.square().sum(1).mean()), rel=1e-4)


# -------------------------------------------------------------------------------------- bad input
def quick(lm: LM, task: Task, **changes: Any) -> Any:
    given = {"method": "pez", "length": 4, "steps": 2, "progress": False} | changes
    return tune(lm, task, **given)


def test_unknown_proxies_and_bad_weights(tiny: Callable[..., LM], toy_task: Task):
    with pytest.raises(SoftlensError, match=r"Unknown proxy 'perplexty'.*mean 'perplexity'.*Known"):
        quick(tiny(), toy_task, proxies={"perplexty": 0.1})
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(SoftlensError, match=rf"Got weight {weight} for .* at least 0.*lower"):
            quick(tiny(), toy_task, proxies={"perplexity": weight})
    with pytest.raises(SoftlensError, match="should be higher is made so by a positive weight"):
        quick(tiny(), toy_task, proxies={"description": -1}, description="a film")


def test_of_one_token_a_proxy_of_the_context_has_no_gradient_and_it_is_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    for method in ("pez", "fluentprompt", "soft"):
        caplog.clear()
        given = {"perplexity": 0.1, "relevance": 1.0, "embedding_distance": 1.0}
        run = quick(tiny(), toy_task, method=method, length=1, proxies=given)
        assert (run.history["grad_norm_perplexity"] == 0).all()
        assert f"At length 1 {method!r} has no gradient of 'perplexity' and 'relevance'" in (
            caplog.text
        )
    caplog.clear()
    quick(tiny(), toy_task, proxies=given)
    quick(tiny(), toy_task, length=1, proxies={"perplexity_target": 0.1, "perplexity": 0.0})
    quick(tiny(), toy_task, length=1, proxies={"perplexity": 0.1}, method="gcg")
    assert "no gradient" not in caplog.text


def test_what_a_proxy_needs_is_asked_for(tiny: Callable[..., LM], toy_task: Task):
    lm, behind = tiny(), toy_task.with_(template="{prompt} {text} it was")
    with pytest.raises(SoftlensError, match=r"'judge_perplexity' needs a second LM: pass judge="):
        quick(lm, toy_task, method="gcg", proxies={"judge_perplexity": 0.1})
    with pytest.raises(SoftlensError, match=r"'description' needs a description .*description="):
        quick(lm, toy_task, proxies={"description": 1})
    for blank in ("", " ", "\n \t"):
        with pytest.raises(SoftlensError, match=r"'description' needs a description .*in words"):
            quick(lm, toy_task, proxies={"description": 0.1}, description=blank)
    for name in ("relevance", "fluency_band"):
        with pytest.raises(SoftlensError, match=rf"{name!r} needs real texts before the prompt"):
            quick(lm, behind, proxies={name: 0.1})
    with pytest.raises(SoftlensError, match="says nothing about a prompt of 1 token: .* least 2"):
        quick(lm, toy_task, method="gcg", length=1, proxies={"repetition": 1})


@pytest.mark.parametrize("method", ["soft", "pez", "fluentprompt"])
def test_gradient_tuners_say_which_proxies_they_take(
    tiny: Callable[..., LM], toy_task: Task, method: str
):
    for name in ("repetition", "judge_perplexity"):
        wanted = rf"{name!r} has no gradient, and {method!r} follows.*takes .*perplexity_target"
        with pytest.raises(SoftlensError, match=wanted) as caught:
            quick(tiny(), toy_task, method=method, proxies={name: 1}, judge=tiny("llama", 3))
        offered = str(caught.value).rsplit("takes ", 1)[1].rstrip(".").split(", ")
        assert offered == DIFFERENTIABLE
    with pytest.raises(SoftlensError, match="'prior_kl'"):
        quick(tiny(), toy_task, method=method, proxies={"prior_kl": 1})


def test_a_tuner_without_a_policy_has_no_prior_kl(tiny: Callable[..., LM], toy_task: Task):
    with pytest.raises(SoftlensError, match=r"compares a tuner's policy .* 'gcg' has none"):
        quick(tiny(), toy_task, method="gcg", proxies={"prior_kl": 1})


def test_a_judge_that_is_the_tuned_lm_is_warned_of(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    lm = tiny()
    options = {"method": "gcg", "proxies": {"judge_perplexity": 0.1}, "candidates": 4}
    with caplog.at_level(logging.WARNING):
        quick(lm, toy_task, judge=tiny("llama", 3), **options)
    assert "judge" not in caplog.text
    with caplog.at_level(logging.WARNING):
        run = quick(lm, toy_task, judge=lm, **options)
    assert "The judge is the tuned LM itself" in caplog.text
    assert run.config.judge == f"{lm.name} ({lm.checksum})"
    same = tune(lm, toy_task, "pez", length=4, steps=1, proxies={"perplexity": 0}, progress=False)
    assert set(same.metrics) >= {"nats_per_token", "perplexity"}


def test_a_description_of_no_known_word_is_still_a_number(setting: Setting):
    other = replace(setting, description="great")
    assert np.isfinite(value(other, "description"))
