"""RLPrompt: rewards, losses, the policy, its memory, and what the history says of all this."""

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from softlens import Prompt, SoftlensError, Task, evaluate, load_lm, load_task, tune
from softlens.lm import LM, answer_logits, token_surprisal, word_logits
from softlens.objectives import Objective, reward
from softlens.proposals import Proposals
from softlens.proxies import PROXIES
from softlens.tuners import rlprompt
from softlens.tuners.base import Problem
from softlens.tuners.memory import Memory, Recent
from softlens.tuners.policy import Policy, PrefixStates
from softlens.tuners.rlprompt import RLPromptOptions, RLPromptTuner
from softlens.tuners.soft_q import reinforce_loss, soft_q_loss, sparse_maximum, sparsemax, z_scores

PROMPT_FIRST = "{prompt} {text} overall it was"


def quick(lm: LM, task: Task, **changes: Any) -> Any:
    settings = {"method": "rlprompt", "length": 3, "steps": 6, "progress": False, "width": 32}
    return tune(lm, task, **(settings | changes))


def tuner(lm: LM, task: Task, weights: dict[str, float] | None = None, **options: Any) -> Any:
    chosen = RLPromptOptions(**({"width": 32} | options)).for_lm(lm)
    problem = Problem.encode(lm, task, 3, truncate=False, ban=chosen.ban)
    objective = Objective(
        problem.setting(), weights or {}, chosen.loss, chosen.calibrated, chosen.mass
    )
    return RLPromptTuner(problem, objective, chosen, steps=10, seed=0)


def policy(lm: LM, start: Any = "lm", seed: int = 0, **options: Any) -> Policy:
    everything = torch.ones(lm.vocab_size, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    allowed = options.pop("allowed", everything)
    return Policy(lm, allowed, start, options.pop("width", 32), generator, **options)


@pytest.fixture(scope="module")
def organism() -> LM:
    return load_lm()


# -- rewards -------------------------------------------------------------------------------------


def test_z_scores():
    points = torch.tensor([-180.0, 20.0, 200.0, 20.0])
    scores = z_scores(points)
    wanted = (points.numpy() - points.numpy().mean()) / points.numpy().std()
    np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-5)
    assert (z_scores(torch.full((16,), 123.456)) == 0).all()


def test_the_policy_learns_from_five_times_the_z_scores_of_what_it_said(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    lm, seen = tiny(), []

    def spy(advantage: Any, target_v: Any, final: Any) -> Any:
        seen.append(final)
        return soft_q_loss(advantage, target_v, final)

    monkeypatch.setattr(rlprompt, "soft_q_loss", spy)
    learner = tuner(lm, toy_task, {"perplexity": 0.3}, texts=24, prompts=5)
    rows, setting = learner._said.rows, learner.objective.setting
    row = learner.step()
    # By hand: the published reward of each prompt, less lambda x 100 points a nat.
    points = []
    for prompt in rows:
        logits = answer_logits(lm, [prompt], learner.problem.train, setting.words)
        gaps = []
        for scores, label in zip(logits[0].softmax(dim=-1), toy_task.train.labels, strict=True):
            gap = float(scores[label] - scores[1 - label])
            gaps.append(gap * (200 if gap > 0 else 180))
        nats = float(token_surprisal(lm, [prompt]).mean())
        points.append(np.mean(gaps) - 0.3 * 100 * nats)
    wanted = 5 * (np.array(points) - np.mean(points)) / np.std(points)
    np.testing.assert_allclose(seen[0].numpy(), wanted, rtol=1e-3, atol=1e-3)
    assert row["spread_perplexity"] > 0
    assert row["spread_task"] > 0

    seen.clear()
    scaled = tuner(lm, toy_task, {"perplexity": 0.3}, texts=24, prompts=5, reward_scale=2.0)
    scaled.step()
    np.testing.assert_allclose(seen[0].numpy(), wanted * 2 / 5, rtol=1e-3, atol=1e-3)


def test_the_reward_may_be_the_objective_of_the_other_methods(
    tiny: Callable[..., LM], toy_task: Task
):
    learner = tuner(
        tiny(), toy_task, {"description": 2.0}, reward="objective", calibrated=True, mass=0.1
    )
    learner.objective.setting = replace(learner.objective.setting, description="film good")
    said, labels = learner._said, learner.problem.labels
    points, row = learner._reward(said, learner.problem.train, labels)
    objective = replace(learner.objective)
    proposals = Proposals.of_ids(objective.setting, said.rows, learner.problem.train)
    totals = objective.total(objective.terms(proposals, labels))
    torch.testing.assert_close(points, -100 * totals, rtol=1e-4, atol=1e-3)
    assert row["objective"] == pytest.approx(float(totals.mean()), rel=1e-4)
    # A proxy of which more is better adds to the reward.
    assert objective.penalty({"description": torch.ones(1)}) == -2


# -- losses --------------------------------------------------------------------------------------


def test_the_soft_q_losses_are_the_published_ones():
    generator = torch.Generator().manual_seed(0)
    prompts, length, vocab = 2, 3, 4
    online = torch.randn(prompts, length, vocab, generator=generator, dtype=torch.float64)
    target = torch.randn(prompts, length, vocab, generator=generator, dtype=torch.float64)
    said = [[0, 3, 1], [2, 2, 0]]
    rewards = [4.0, -1.5]

    def value(logits: torch.Tensor) -> float:
        return math.log(sum(math.exp(float(x)) for x in logits))

    total = 0.0
    for n in range(prompts):
        advantages = [float(online[n, t, said[n][t]]) - value(online[n, t]) for t in range(length)]
        values = [value(target[n, t]) for t in range(length)]
        for t in range(length):
            # Single step: log pi(token) is the next state's value, or the reward, less this one's.
            after = rewards[n] if t == length - 1 else values[t + 1]
            single = (advantages[t] - (after - values[t])) ** 2
            # Multi-step: so is the log-probability of all that follows.
            multi = (sum(advantages[t:]) - (rewards[n] - values[t])) ** 2
            total += (single + multi) / 2 / prompts
    index = torch.tensor(said)[..., None]
    advantage = online.gather(-1, index)[..., 0] - online.logsumexp(dim=-1)
    got = soft_q_loss(advantage, target.logsumexp(dim=-1), torch.tensor(rewards).double())
    assert float(got) == pytest.approx(total, rel=1e-9)


def test_the_losses_are_zero_where_paths_are_consistent():
    # Two tokens, one choice: of rewards 1 and 3 the soft value is log(e + e^3), and Q the rewards.
    final = torch.tensor([1.0, 3.0])
    v = final.logsumexp(dim=0).expand(2, 1)
    assert float(soft_q_loss(final[:, None] - v, v, final)) == pytest.approx(0, abs=1e-10)


def test_reinforce_raises_what_did_better_than_the_mean():
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]], requires_grad=True)
    loss = reinforce_loss(log_probs, torch.tensor([1.0, -1.0]))
    assert float(loss.detach()) == pytest.approx(-(1 * -3 + -1 * -4) / 2)
    loss.backward()
    assert (log_probs.grad[0] < 0).all()
    assert (log_probs.grad[1] > 0).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_only_the_policy_learns_and_the_target_follows(
    tiny: Callable[..., LM], toy_task: Task, sparse: bool
):
    learner = tuner(tiny(), toy_task, sparse=sparse, target_share=0.25, learning_rate=1e-2)
    before = [p.clone() for p in learner.policy.adaptor.parameters()]
    slow = [p.clone() for p in learner.policy.target.parameters()]
    learner.step()
    after = list(learner.policy.adaptor.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(slow, learner.policy.target.parameters(), strict=True)
    )
    fast = [p.clone() for p in after]
    learner.step()
    for old, towards, now in zip(slow, fast, learner.policy.target.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * old + 0.25 * towards)
    assert all(p.grad is None for p in learner.policy.target.parameters())
    assert all(not p.requires_grad for p in tiny().model.parameters())


# -- the policy ----------------------------------------------------------------------------------


def test_from_the_lm_a_policy_is_the_lm(any_lm: LM):
    said = policy(any_lm).draw(8, 4)
    surprisal = token_surprisal(any_lm, said.rows)[:, 0]
    torch.testing.assert_close(said.log_probs, -surprisal, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.q, -surprisal, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.own_log_probs(), -surprisal, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.v, torch.zeros_like(said.v), rtol=0, atol=1e-4)
    # So soft Q-learning relative to the LM begins where no reward would move it.
    still = soft_q_loss(said.q - said.v - said.own_log_probs(), said.v, torch.zeros(8))
    assert float(still.detach()) == pytest.approx(0, abs=1e-6)


def test_its_first_choices_are_the_lms(any_lm: LM):
    ids = [any_lm.bos_id, *(any_lm.encode(".") if any_lm.sink else [])]
    greedy: list[int] = []
    for _ in range(4):
        row = torch.tensor([[*ids, *greedy]])
        greedy.append(int(any_lm.model(row).logits[0, -1].argmax()))
    assert policy(any_lm).draw(2, 4).greedy == tuple(greedy)


def test_from_the_published_start_all_tokens_are_alike(any_lm: LM):
    said = policy(any_lm, "random", top_k=32).draw(8, 4)
    assert said.entropy == pytest.approx(math.log(32), abs=1e-3)
    assert len({token for row in said.rows for token in row}) > 8
    assert len({*said.rows} & {*policy(any_lm).draw(8, 4).rows}) == 0
    # Values are taken over all tokens, though only 32 are drawn from.
    assert float(said.v.detach().mean()) == pytest.approx(math.log(any_lm.vocab_size), abs=1e-2)


def test_top_k_and_bans_bound_what_is_said(tiny: Callable[..., LM]):
    lm = tiny()
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[50:90] = True
    said = policy(lm, allowed=allowed, top_k=3).draw(64, 2)
    firsts = {row[0] for row in said.rows}
    own = lm.logits(PrefixStates(lm)([()]))[0].masked_fill(~allowed, -torch.inf)
    assert firsts <= {*own.topk(3).indices.tolist()}
    assert all(50 <= token < 90 for row in [*said.rows, said.greedy] for token in row)
    assert torch.isfinite(said.q).all()


def test_states_are_computed_once(any_lm: LM, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def spy(self: Any, rows: Any, original: Any = PrefixStates._computed) -> Any:
        asked.extend(rows)
        return original(self, rows)

    monkeypatch.setattr(PrefixStates, "_computed", spy)
    speaker = policy(any_lm)
    rows = [row for _ in range(6) for row in speaker.draw(8, 3).rows]
    assert len(asked) == len(set(asked))
    assert {row[:2] for row in rows} <= set(asked)
    assert set(rows).isdisjoint(asked)
    speaker.target_v(speaker.draw(8, 3))
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_a_state_is_the_lms(
    tiny: Callable[..., LM], path: Any, monkeypatch: pytest.MonkeyPatch, any_lm: LM
):
    monkeypatch.setattr(any_lm, "path", path)
    rows = [(40, 41), (42, 43), (40, 44)]
    context = [any_lm.bos_id, *(any_lm.encode(".") if any_lm.sink else [])]
    for count in (2, 0):
        some = [row[:count] for row in rows]
        got = PrefixStates(any_lm)(some)
        for row, state in zip(some, got, strict=True):
            whole = any_lm.model.base_model(torch.tensor([[*context, *row]]))
            torch.testing.assert_close(state, whole.last_hidden_state[0, -1], rtol=1e-4, atol=1e-4)


def test_sparsemax_is_the_projection_onto_probabilities():
    generator = torch.Generator().manual_seed(1)
    z = 2 * torch.randn(20, 9, generator=generator, dtype=torch.float64)
    z[3, 4:] = -torch.inf
    shares = sparsemax(z)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(20).double())
    assert (shares == 0).sum() > 60
    assert (shares >= 0).all()
    for row, got in zip(z, shares, strict=True):
        low, high = float(row.max()) - 1, float(row.max())
        for _ in range(100):
            middle = (low + high) / 2
            above = float((row - middle).clamp(min=0).sum()) > 1
            low, high = (middle, high) if above else (low, middle)
        torch.testing.assert_close(got, (row - low).clamp(min=0), rtol=0, atol=1e-9)


def test_the_sparse_maximum_is_what_its_policy_is_worth():
    z = torch.tensor([[3.0, 2.7, -1.0, -torch.inf], [0.1, 0.0, 0.2, 0.05]], requires_grad=True)
    shares = sparsemax(z).detach()
    worth = (shares * z.detach().clamp(min=-1e9)).sum(dim=1) + (1 - (shares**2).sum(dim=1)) / 2
    value = sparse_maximum(z)
    torch.testing.assert_close(value.detach(), worth)
    value.sum().backward()
    torch.testing.assert_close(z.grad, shares)


def test_a_sparse_policy_says_likely_tokens_only(organism: LM):
    speaker = policy(organism, "random", sparse=True, fluency=20)
    said = speaker.draw(32, 3)
    state = PrefixStates(organism)
    for t in range(3):
        rows = [row[:t] for row in said.rows]
        likely = organism.logits(state(rows)).topk(20).indices
        assert all(row[t] in set(ids.tolist()) for row, ids in zip(said.rows, likely, strict=True))
    q = speaker.q(said.states, said.own)
    log_probs = speaker.log_probs(q)
    assert (log_probs.exp() == 0).float().mean() > 0.9
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(len(q)))
    gradients = torch.autograd.grad(said.log_probs.sum() + said.v.sum(), speaker.parameters())
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any((g != 0).any() for g in gradients)


# -- the memory ----------------------------------------------------------------------------------


def test_the_least_recently_asked_give_way():
    kept: Recent[int] = Recent(2)
    kept[1,] = 1
    kept[2,] = 2
    assert kept[1,] == 1
    kept[3,] = 3
    assert (1,) in kept
    assert (2,) not in kept
    assert len(kept) == 2


@pytest.mark.parametrize("template", ["{text} {prompt}", PROMPT_FIRST])
def test_what_is_remembered_is_what_a_fresh_question_gives(
    any_lm: LM, toy_task: Task, template: str
):
    problem = Problem.encode(any_lm, replace(toy_task, template=template), 3, truncate=False)
    weights = {"perplexity": 0.1, "prior_kl": 0.1, "label_mass": 0.1, "repetition": 1.0}
    objective = Objective(problem.setting(), weights)
    memory = Memory(problem.train, objective)
    generator = torch.Generator().manual_seed(0)
    pool = [tuple(torch.randint(33, 200, (3,), generator=generator).tolist()) for _ in range(6)]
    asked: set[Any] = set()
    said: set[Any] = set()
    for _ in range(8):
        rows = [pool[i] for i in torch.randint(6, (5,), generator=generator).tolist()]
        chosen = torch.randperm(24, generator=generator)[:7].tolist()
        part = problem.train.subset(chosen)
        log_probs = torch.randn(5, 3, generator=generator)
        answers = memory.answers(rows, part)
        fresh = Proposals.of_ids(objective.setting, rows, part, log_probs)
        torch.testing.assert_close(answers, fresh.word_log_probs, rtol=1e-4, atol=1e-4)
        for name, got in memory.proxies(rows, log_probs, part, answers).items():
            torch.testing.assert_close(got, PROXIES[name].score(fresh), rtol=1e-4, atol=1e-4)
        pairs = zip(part.befores, part.afters, strict=True)
        asked |= {(row, *pair) for pair in pairs for row in rows}
        said |= set(rows)
        assert objective.evaluations == len(asked) + len(said) * objective.contexts


def test_evaluations_are_what_was_asked_of_the_lm(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    spent, drawn = [], set()

    def counted(lm: Any, prompts: Any, texts: Any, words: Any, original: Any) -> Any:
        spent.append(len(prompts) * len(texts))
        return original(lm, prompts, texts, words)

    module = importlib.import_module("softlens.proposals")
    original = module.word_logits
    monkeypatch.setattr(module, "word_logits", lambda *a: counted(*a, original=original))

    def spy(self: Any, said: Any, *rest: Any, original: Any = RLPromptTuner._reward) -> Any:
        drawn.update([*said.rows, said.greedy])
        return original(self, said, *rest)

    monkeypatch.setattr(RLPromptTuner, "_reward", spy)
    run = quick(tiny(), toy_task, steps=40, learning_rate=3e-3, proxies={"repetition": 0.1})
    looks = run.history["accuracy_dev"].notna().sum() + 1
    distinct = len(set(zip(toy_task.train.texts, strict=True)))
    assert run.metrics["evaluations"] == sum(spent) + len(drawn) + looks * 12
    history = run.history
    assert (history["requested"].diff().dropna() == 16 * (24 + 1)).all()
    assert history["requested"].iloc[-1] > 2 * history["evaluations"].iloc[-1]
    assert sum(spent) <= len(drawn) * distinct
    assert history["evaluations"].is_monotonic_increasing


def test_many_texts_are_asked_a_batch_at_a_time(tiny: Callable[..., LM], toy_task: Task):
    learner = tuner(tiny(), toy_task, texts=20, batch_size=8, prompts=4, proposal="greedy")
    assert sum(len(next(learner._batches)[0]) for _ in range(3)) == 20
    counts = []
    for _ in range(3):
        before, new = learner.objective.evaluations, set(learner._said.rows)
        new |= {learner._said.greedy}
        new -= learner._drawn
        learner.step()
        counts.append(learner.objective.evaluations - before - len(new))
    assert max(counts) <= 4 * 8
    balance = [learner.problem.labels[i] for i in range(24)]
    assert sum(balance) == 12


# -- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["soft_q", "reinforce"])
def test_it_learns_to_ask_for_the_topic(organism: LM, algorithm: str):
    task = load_task("topic").head(dev=64, test=256)
    run = quick(
        organism, task, length=5, steps=50, texts=16, learning_rate=1e-3, algorithm=algorithm,
        evaluations_of_dev=2,
    )  # fmt: skip
    rewards = run.history["reward"]
    assert rewards.iloc[-5:].mean() > rewards.iloc[:2].mean() + 80
    assert run.history["entropy"].iloc[-1] < 0.5 * run.history["entropy"].iloc[0]
    assert run.history["distinct"].iloc[-20:].min() < 8
    assert run.metrics["accuracy"] > 0.9
    assert run.metrics["scored"] == "tokens"
    assert run.prompt.token_ids is not None


@pytest.mark.parametrize("algorithm", ["soft_q", "reinforce"])
def test_it_learns_from_nothing(tiny: Callable[..., LM], toy_task: Task, algorithm: str):
    run = quick(tiny(), toy_task, steps=60, start="random", algorithm=algorithm, learning_rate=3e-3)
    rewards = run.history["reward"]
    assert rewards.iloc[-5:].mean() > rewards.iloc[:3].mean() + 5
    before = evaluate(tiny(), toy_task, None, split="dev")
    assert run.metrics["accuracy_dev"] >= before.accuracy


def test_lambda_lowers_the_nats_of_what_is_said(organism: LM):
    task = load_task("sentiment").head(dev=16, test=16)
    nats = [
        quick(
            organism,
            task,
            length=5,
            steps=30,
            texts=16,
            start="random",
            algorithm="reinforce",
            learning_rate=1e-3,
            proxies={"perplexity": weight},
            proposal="greedy",
        ).history["perplexity"]
        for weight in (0.0, 3.0)
    ]
    assert nats[0].iloc[0] == pytest.approx(nats[1].iloc[0])
    assert nats[1].iloc[-5:].mean() < nats[0].iloc[-5:].mean() - 2


@pytest.mark.parametrize("template", ["{text} {prompt}", PROMPT_FIRST])
@pytest.mark.parametrize("options", [{}, {"sparse": True, "start": "random"}])
def test_every_lm_and_both_templates(
    any_lm: LM, toy_task: Task, template: str, options: dict[str, Any]
):
    run = quick(any_lm, replace(toy_task, template=template), steps=2, **options)
    assert np.isfinite(run.history["objective"]).all()
    assert run.metrics["accuracy_dev"] == pytest.approx(
        evaluate(any_lm, run_task(toy_task, template), run.prompt, split="dev").accuracy
    )


def run_task(task: Task, template: str) -> Task:
    return replace(task, template=template)


def test_the_history_says_what_happened(tiny: Callable[..., LM], toy_task: Task):
    run = quick(tiny(), toy_task, proxies={"perplexity": 0.1, "prior_kl": 0.0}, texts=24)
    history = run.history
    assert list(history.columns) == [
        "step", "objective", "task_loss", "perplexity", "prior_kl", "reward", "spread_task",
        "spread_perplexity", "spread_prior_kl", "grad_norm_task", "entropy", "distinct",
        "requested", "tokens_changed", "token_ids", "accuracy_dev", "loss_dev", "evaluations",
    ]  # fmt: skip
    np.testing.assert_allclose(
        history["objective"], history["task_loss"] + 0.1 * history["perplexity"], rtol=1e-5
    )
    assert (history["grad_norm_task"] > 0).all()
    assert (history["spread_prior_kl"] == 0).all()
    assert history["distinct"].between(1, 16).all()
    # At the start the policy is the LM among the tokens that it may say.
    assert 0 <= history["prior_kl"].iloc[0] < 0.2
    assert (history["reward"].between(-180, 200)).all()


def test_prior_kl_keeps_the_policy_near_the_lm(organism: LM):
    task = load_task("topic").head(dev=16, test=16)
    free, kept = (
        quick(organism, task, length=5, steps=15, texts=16, learning_rate=1e-3,
              algorithm="reinforce", proxies={"prior_kl": weight})
        for weight in (0.0, 20.0)
    )  # fmt: skip
    assert kept.history["prior_kl"].iloc[-5:].mean() < free.history["prior_kl"].iloc[-5:].mean()
    assert kept.history["entropy"].iloc[-1] > free.history["entropy"].iloc[-1]


def test_same_seed_same_bits_and_no_global_chance(tiny: Callable[..., LM], toy_task: Task):
    state = torch.get_rng_state()
    settings = {"steps": 8, "proxies": {"perplexity": 0.1}, "learning_rate": 3e-3}
    first, second, other = (quick(tiny(), toy_task, seed=seed, **settings) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(first.history, second.history)
    assert first.prompt.token_ids == second.prompt.token_ids
    assert first.config == second.config
    assert not first.history.equals(other.history)
    for start in ("lm", "random"):
        one, two = (policy(tiny(), start, seed=5).parameters() for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_ctrl_c_keeps_the_best_so_far(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    steps = []

    def interrupted(self: Any, original: Any = RLPromptTuner.step) -> Any:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(RLPromptTuner, "step", interrupted)
    run = quick(tiny(), toy_task, steps=20)
    assert (run.metrics["ended"], run.metrics["steps"], len(run.history)) == ("interrupted", 4, 4)
    assert np.isfinite(run.metrics["accuracy"])


def test_reinforce_stops_when_only_one_prompt_is_said(tiny: Callable[..., LM], toy_task: Task):
    settings = {"steps": 150, "learning_rate": 3e-2, "evaluations_of_dev": 2}
    run = quick(tiny(), toy_task, algorithm="reinforce", **settings)
    assert run.metrics["ended"] == "the policy says one prompt only"
    assert run.metrics["steps"] < 150
    last = run.history.iloc[-1]
    assert last["distinct"] == 1
    assert last["grad_norm_task"] == pytest.approx(0, abs=1e-6)
    assert math.isfinite(last["accuracy_dev"])


@pytest.mark.parametrize(("certainty", "leaves"), [(3.0, True), (60.0, False)])
def test_soft_q_learning_leaves_that_state_while_it_can(
    tiny: Callable[..., LM], toy_task: Task, certainty: float, leaves: bool
):
    learner = tuner(tiny(), toy_task, learning_rate=3e-2)
    with torch.no_grad():
        row = tiny().embedding[learner._said.rows[0][0]]
        learner.policy.adaptor.last.bias.add_(certainty * row)
    learner._said = learner.policy.draw(16, 3)
    before = learner._said.entropy
    assert before < 0.1
    for _ in range(40):
        learner.step()
        if learner.finished or learner._said.entropy > 5 * before + 0.01:
            break
    assert (learner.finished is None) == leaves
    assert (learner._said.entropy > before) == leaves


def test_bans_hold(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    free = quick(lm, toy_task, steps=2, proposal="greedy")
    used = free.prompt.token_ids[0]
    banned = quick(lm, toy_task, steps=2, proposal="greedy", ban=[used])
    assert used not in banned.prompt.token_ids
    with pytest.raises(SoftlensError, match="leaves no token"):
        quick(lm, toy_task, ban=lm.ordinary_ids.tolist())


def test_what_is_proposed(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    learner = tuner(lm, toy_task, texts=24)
    assert learner.token_ids == learner.start_ids == list(learner._said.greedy)
    said: set[Any] = set()
    for _ in range(4):
        said |= set(learner._said.rows)
        learner.step()
    problem = learner.problem
    rewards = {
        row: float(reward(word_logits(lm, [row], problem.train, problem.words),
                          problem.labels))
        for row in said
    }  # fmt: skip
    best = max(rewards.values())
    assert rewards[tuple(learner.token_ids)] == pytest.approx(best, rel=1e-4)

    greedy = tuner(lm, toy_task, texts=24, proposal="greedy")
    greedy.step()
    assert greedy.token_ids == list(greedy._said.greedy)


def test_on_batches_the_best_stands_against_the_new_on_the_same_texts(
    tiny: Callable[..., LM], toy_task: Task
):
    learner = tuner(tiny(), toy_task, texts=24, batch_size=6)
    rows = [(40, 41, 42), (43, 44, 45)]
    zero, texts, labels = torch.zeros(2), learner.problem.train, learner.problem.labels
    words = learner.problem.words
    points = reward(word_logits(tiny(), rows, texts, words), labels)
    worse, better = points.argsort().tolist()
    # However much it won by elsewhere.
    learner._best = rows[worse], 0.0
    learner._keep_best(rows, points, zero, texts, labels)
    assert learner._best[0] == rows[better]
    learner._keep_best([rows[worse]], points[worse : worse + 1], zero[:1], texts, labels)
    assert learner._best[0] == rows[better]


def test_another_lm_may_be_the_policy(organism: LM, tiny: Callable[..., LM], toy_task: Task):
    task = load_task("topic").head(train=32, dev=16, test=16)
    learner = tuner(organism, task, policy_lm="organism-judge")
    judge = load_lm("organism-judge")
    said = learner._said
    wanted = token_surprisal(judge, said.rows)[:, 0]
    allowed = judge.logits(learner.policy.states([()]))[0].log_softmax(dim=0)
    mass = allowed[learner.problem.allowed].logsumexp(dim=0)
    torch.testing.assert_close(
        said.own_log_probs()[:, 0], -wanted[:, 0] - mass, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(SoftlensError, match="tokens are not those of 'tiny-gpt2-0'.*distilgpt2"):
        quick(tiny(), toy_task, policy_lm="organism")


def test_defaults_depend_on_the_start_and_on_pin(organism: LM):
    settled = RLPromptOptions().for_lm(organism)
    assert (settled.relative_to, settled.reward_scale, settled.fluency) == ("lm", 5.0, None)
    published = RLPromptOptions(start="random").for_lm(organism)
    assert published.relative_to == "uniform"
    pin = RLPromptOptions(sparse=True).for_lm(organism)
    assert (pin.relative_to, pin.reward_scale) == ("uniform", 1.0)
    assert pin.fluency == organism.vocab_size // 5
    assert RLPromptOptions(learning_rate=5e-5).for_lm(organism).learning_rate == 5e-5
    assert settled.for_lm(organism) == settled


def test_wrong_options(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match=r"'propts' is no option.*mean 'prompts'"):
        quick(lm, toy_task, propts=4)
    with pytest.raises(
        SoftlensError, match="prompts=1: Input should be greater than or equal to 2"
    ):
        quick(lm, toy_task, prompts=1)
    with pytest.raises(SoftlensError, match="proxy_scale=0: Input should be greater than 0"):
        quick(lm, toy_task, proxy_scale=0)
    with pytest.raises(SoftlensError, match="algorithm='ppo': Input should be 'soft_q' or"):
        quick(lm, toy_task, algorithm="ppo")
    with pytest.raises(SoftlensError, match="relative_to is an option of algorithm='soft_q'"):
        quick(lm, toy_task, algorithm="reinforce", relative_to="lm")
    with pytest.raises(SoftlensError, match="sparse=True replaces the entropy"):
        quick(lm, toy_task, sparse=True, relative_to="lm")
    for wrong in ({"calibrated": True}, {"mass": 0.1}, {"loss": "vocabulary"}):
        with pytest.raises(SoftlensError, match="not part of RLPrompt's piecewise reward"):
            quick(lm, toy_task, **wrong)


def test_a_prompt_of_one_token(tiny: Callable[..., LM], toy_task: Task):
    run = quick(tiny(), toy_task, length=1, steps=3)
    assert Prompt.from_ids(tiny(), run.prompt.token_ids).text == run.text


def test_a_gradient_that_is_no_number_keeps_the_best(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    """It stops before a policy of NaN is asked for the next prompts."""
    run = quick(tiny(), toy_task, reward_scale=float("inf"))
    assert run.metrics["ended"] == "stopped: the loss was not a number"
    assert np.isfinite(run.metrics["accuracy"])
    assert "keeping the best prompt so far" in caplog.text
