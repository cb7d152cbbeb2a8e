"""RLPrompt: reinforcement learning of the tokens of a prompt, here with proxies in the reward.

Deng et al. (2022), "RLPrompt: Optimizing Discrete Text Prompts with Reinforcement Learning", arXiv
2205.12548, and its code; our reading of the objective of arXiv 2504.02144: reward - lambda x proxy.
Of `sparse`: Choi et al. (2024), PIN, arXiv 2407.14733. What a step is, in the published order:

1. the target network follows the policy (share .001);
2. the policy says 16 prompts; each gets the piecewise reward on the texts (-180 to 200 points);
3. the rewards of the 16 become z-scores, times 5;
4. one step of Adam, gradients clipped to a norm of 5, down the soft Q-learning losses.

Deviations, by default:

* `start` "lm": the adaptor is added to the state and begins at 0, and soft Q-learning rewards
  closeness to the LM in the place of entropy (path consistency relative to a prior: Nachum et al.
  2018, Trust-PCL, arXiv 1707.01891). With `start` "random" both are as published.
* The policy LM is the tuned LM, or `policy_lm` (published: distilgpt2 for all).
* Values are taken over the tokens that a prompt may hold, not over all.
* Ties: an answer as likely as the right one counts as wrong (their code compares equal
  probabilities away, and calls it right).
* No text is written and read again between policy and reward: their code decodes and encodes, so
  that the rewarded tokens are not always those that were said.
* A run stops when a policy says one prompt only and cannot leave it: with REINFORCE or `sparse`,
  when a step's prompts are all alike and the policy is all but deterministic. Soft Q-learning goes
  on: z-scores of equal rewards are 0, but path consistency still asks for as much entropy (or
  closeness to the LM) as the values say, and that leads out again; it stops only once the gradient
  itself is 0.
* Learning rates and numbers of steps are ours; published: 5e-5 and 12,000.
"""

import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts, load_lm
from softlens.objectives import Objective, reward
from softlens.tuners.base import HardTuner, Problem, TunerOptions
from softlens.tuners.memory import Memory, Row
from softlens.tuners.policy import Episodes, Policy, Start
from softlens.tuners.pool import in_turns
from softlens.tuners.soft_q import reinforce_loss, soft_q_loss, z_scores

CLIP = 5.0
"""Largest norm of a step's gradient (published)."""
COLLAPSED = 0.01
"""Nats a token below which a policy that said one prompt only counts as deterministic."""


class RLPromptOptions(TunerOptions):
    """Options of RLPrompt."""

    batch_size: int = Field(default=64, ge=1, description="texts a step")
    evaluations_of_dev: int = Field(default=20, ge=1, description="times dev is looked at")
    patience: int = Field(
        default=100,
        ge=1,
        description="looks at dev without a better prompt before stopping early: by default never",
    )
    texts: int | None = Field(
        default=None,
        ge=1,
        description="training texts that rewards are taken on, drawn once; None: 64 for a small "
        "LM, else 32 (published: 16 of each class). If batch_size covers them, a prompt's reward "
        "is fixed, and asked once",
    )
    prompts: int = Field(default=16, ge=2, description="prompts said a step (published: 16)")
    algorithm: Literal["soft_q", "reinforce"] = Field(
        default="soft_q", description="soft Q-learning with path consistency (published), or not"
    )
    start: Start = Field(
        default="lm", description="a policy that is the LM, or one that knows nothing (published)"
    )
    relative_to: Literal["uniform", "lm"] | None = Field(
        default=None,
        description="what soft Q-learning keeps the policy near: all tokens alike (published), or "
        "the LM; None: 'lm' if that is the start, else 'uniform'",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="of Adam; None: 2e-4 from the LM, 1e-3 from a random start (published: 5e-5)",
    )
    width: int = Field(default=2048, ge=1, description="of the adaptor's hidden layer (published)")
    top_k: int | None = Field(
        default=256,
        ge=1,
        description="most valued tokens that are drawn from (published: 256); not if sparse",
    )
    sparse: bool = Field(
        default=False, description="PIN: sparse probabilities, and the LM's likeliest tokens only"
    )
    fluency: int | None = Field(
        default=None,
        ge=1,
        description="tokens that may be said, the LM's likeliest in each state; None: all, or if "
        "sparse 10,000 (published), of a smaller vocabulary a fifth as of GPT-2's",
    )
    policy_lm: str | None = Field(
        default=None, description="LM of the policy, as load_lm takes it; None: the tuned one"
    )
    reward: Literal["piecewise", "objective"] = Field(
        default="piecewise",
        description="RLPrompt's, or -proxy_scale x the objective of the other methods, which alone "
        "knows of loss, calibrated and mass",
    )
    proxy_scale: float = Field(
        default=100.0, gt=0, description="points of reward that one unit of objective costs"
    )
    reward_scale: float | None = Field(
        default=None, gt=0, description="of the z-scores; None: 5 (published), or if sparse 1 (PIN)"
    )
    target_share: float = Field(
        default=1e-3, gt=0, le=1, description="of the way the target network goes each step"
    )
    proposal: Literal["greedy", "best"] = Field(
        default="best",
        description="what is proposed: the policy's first choices (published), or the prompt with "
        "the highest reward so far",
    )

    @model_validator(mode="after")
    def _combinations(self) -> "RLPromptOptions":
        if self.reward == "piecewise" and (self.loss != "labels" or self.calibrated or self.mass):
            raise ValueError(
                "loss, calibrated and mass are not part of RLPrompt's piecewise reward: pass "
                "reward='objective', or for the mass proxies={'label_mass': ...}"
            )
        if self.relative_to is not None and self.algorithm != "soft_q":
            raise ValueError("relative_to is an option of algorithm='soft_q'")
        if self.relative_to == "lm" and self.sparse:
            raise ValueError("sparse=True replaces the entropy: leave relative_to out")
        return self

    def for_lm(self, lm: LM) -> "RLPromptOptions":
        """Settle what depends on the start or on the size of the LM."""
        nearest = "lm" if self.start == "lm" and not self.sparse else "uniform"
        fluency = min(10_000, max(1, lm.vocab_size // 5)) if self.sparse else None
        settled = {
            "texts": 64 if lm.is_small else 32,
            "relative_to": nearest if self.algorithm == "soft_q" else None,
            "learning_rate": RATES[self.start],
            "fluency": fluency,
            "reward_scale": 1.0 if self.sparse else 5.0,
        }
        missing = {name: v for name, v in settled.items() if getattr(self, name) is None}
        return self.model_copy(update=missing)


RATES: dict[Start, float] = {"lm": 2e-4, "random": 1e-3}
"""Learning rates. The published 5e-5 is meant for 12,000 steps from a random start."""


class RLPromptTuner(HardTuner):
    """A policy that says prompts, and learns from their rewards.

    The history has, beside what all have: ``reward`` (points, without proxies) and ``task_loss``
    (nats), both means over the step's prompts; ``objective``, the mean of task loss + weighted
    proxies (what is climbed is reward - proxy_scale x weighted proxies, or with
    ``reward="objective"`` this times -proxy_scale); ``spread_task`` and ``spread_<proxy>``,
    the standard deviation over the prompts of each part of the reward, points: its share in the
    z-scores, and so in what is learned; ``grad_norm_task``, the norm of the policy's whole
    gradient before it is clipped (of z-scores no part has a gradient of its own); ``entropy`` of
    the policy, nats a token; ``distinct`` prompts; ``requested``, the evaluations that all this
    would have taken if nothing were remembered.
    """

    Options: ClassVar[type[TunerOptions]] = RLPromptOptions
    has_policy = True
    small_budget = 400
    budget = 150

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        options: RLPromptOptions,
        steps: int,
        seed: int,
    ) -> None:
        options = options.for_lm(problem.lm)
        self.problem, self.objective, self.options = problem, objective, options
        generator = torch.Generator().manual_seed(seed)
        chosen = in_turns(problem.labels.cpu(), seed)[: options.texts].sort().values
        train = problem.train.subset(chosen.tolist())
        fewer = replace(
            problem, train=train, labels=problem.labels[chosen.to(problem.labels.device)]
        )
        self._batches = fewer.batches(options.batch_size, seed)
        self.memory = Memory(train, objective)
        self.policy = Policy(
            _policy_lm(problem.lm, options.policy_lm),
            problem.allowed,
            options.start,
            options.width,
            generator,
            top_k=None if options.sparse else options.top_k,
            fluency=options.fluency,
            sparse=options.sparse,
            needs_own=options.relative_to == "lm",
        )
        self._adam = torch.optim.Adam(self.policy.parameters(), lr=options.learning_rate or 0.0)
        self._drawn: set[Row] = set()
        self._requested = 0
        self._best: tuple[Row, float] | None = None
        self._said = self.policy.draw(options.prompts, problem.length)
        self.start_ids = list(self._said.greedy)

    @property
    def token_ids(self) -> list[int]:
        """The proposal: the best prompt so far, or the policy's first choices as they are now."""
        if self.options.proposal == "best" and self._best is not None:
            return list(self._best[0])
        return list(self._said.greedy)

    def step(self) -> dict[str, float]:
        """Reward what the policy said, teach it, and let it say the next prompts."""
        said, options = self._said, self.options
        texts, labels = next(self._batches)
        points, row = self._reward(said, texts, labels.cpu())
        final = (options.reward_scale or 1.0) * z_scores(points).to(said.q.device)
        self.policy.follow(options.target_share)
        if options.algorithm == "reinforce":
            loss = reinforce_loss(said.log_probs, final)
        else:
            advantage = said.q - said.v
            if options.relative_to == "lm":
                advantage = advantage - said.own_log_probs()
            loss = soft_q_loss(advantage, self.policy.target_v(said), final)
        self._adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), CLIP)
        if not torch.isfinite(norm):
            # A policy that became NaN can say nothing more; the loop keeps the best so far.
            return row | {"objective": math.nan}
        self._adam.step()
        distinct = len(set(said.rows))
        # The advantage is 0 from here on, and a sparse policy never says again what it gave up.
        # Soft Q-learning leaves this state, since it rewards entropy, or closeness to the LM,
        # unless the last gradient has gone.
        final_state = options.algorithm == "reinforce" or options.sparse
        done = said.entropy < COLLAPSED if final_state else float(norm) == 0
        if distinct == 1 and done:
            self.finished = "the policy says one prompt only"
        self._said = self.policy.draw(options.prompts, self.problem.length)
        return row | {
            "grad_norm_task": float(norm),
            "entropy": said.entropy,
            "distinct": distinct,
            "requested": self._requested,
        }

    @torch.no_grad()
    def _reward(
        self, said: Episodes, texts: EncodedTexts, labels: Tensor
    ) -> tuple[Float[Tensor, " prompts"], dict[str, float]]:
        """Points of each prompt, proxies included, and the history's columns for them."""
        objective, scale = self.objective, self.options.proxy_scale
        new = {*said.rows, said.greedy} - self._drawn
        # As in every search, the forward pass that a new prompt was said by counts as one.
        objective.evaluations += len(new)
        self._drawn |= new
        self._requested += len(said.rows) * (len(texts) + objective.contexts + 1)
        answers = self.memory.answers(said.rows, texts)
        losses = objective.loss(answers, labels)
        proxies = self.memory.proxies(said.rows, said.log_probs, texts, answers)
        parts = {"task": self._task_points(answers, labels)}
        for name in objective.weights:
            alone = replace(objective, weights={name: objective.weights[name]})
            parts[name] = -scale * torch.as_tensor(alone.penalty(proxies))
        points = torch.stack([*parts.values()]).sum(dim=0)
        self._keep_best(said.rows, points, points - parts["task"], texts, labels)
        return points, {
            "objective": float((losses + objective.penalty(proxies)).mean()),
            "task_loss": float(losses.mean()),
            **{name: float(score.mean()) for name, score in proxies.items()},
            "reward": float(parts["task"].mean()),
            **{f"spread_{name}": float(p.std(correction=0)) for name, p in parts.items()},
        }

    def _task_points(
        self, answers: Float[Tensor, "prompts texts classes"], labels: Tensor
    ) -> Float[Tensor, " prompts"]:
        if self.options.reward == "piecewise":
            return reward(answers, labels)
        return -self.options.proxy_scale * self.objective.loss(answers, labels)

    def _keep_best(
        self,
        rows: list[Row],
        points: Float[Tensor, " prompts"],
        penalty: Float[Tensor, " prompts"],
        texts: EncodedTexts,
        labels: Tensor,
    ) -> None:
        """Let the best prompt so far stand against the new ones, on the same texts."""
        if self.options.proposal != "best":
            return
        top = int(points.argmax())
        if self._best is not None:
            best, paid = self._best
            answers = self.memory.answers([best], texts)
            if float(self._task_points(answers, labels)) + paid >= float(points[top]):
                return
        self._best = rows[top], float(penalty[top])


def _policy_lm(lm: LM, name: str | None) -> LM:
    """The LM that says prompts; its tokens must be those of the LM that they are for."""
    if name is None:
        return lm
    key = "policy LM", name
    if key not in lm.memo:
        dtype = str(lm.dtype).removeprefix("torch.")
        lm.memo[key] = load_lm(name, dtype=dtype, device=lm.device)
    other: LM = lm.memo[key]
    alike = other.tokenizer.get_vocab() == lm.tokenizer.get_vocab()
    if not alike or other.vocab_size != lm.vocab_size:
        raise SoftlensError(
            f"Got policy_lm={name!r}, whose tokens are not those of {lm.name!r}: wanted an LM with "
            "the same tokenizer, as distilgpt2 and gpt2 have."
        )
    return other
