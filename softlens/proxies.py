"""Proxies of interpretability: one function each, in one registry, with how each is known to fail.

A proxy takes `Proposals` and returns one number a prompt, shape (prompts,). It enters an objective
with a weight; the objective is lowered, so what should be high is subtracted. To add one, write a
function and name it with `proxy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from softlens.errors import SoftlensError, near
from softlens.lm import token_surprisal
from softlens.proposals import Proposals, Setting

Direction = Literal["lower", "higher"]


Score = Callable[[Proposals], Tensor]


@dataclass(frozen=True)
class Proxy:
    """One proxy: how it is computed, what its number means, and how it is known to fail."""

    name: str
    score: Score = field(repr=False)
    unit: str
    weight: float
    """A weight to try first."""
    fails: str
    source: str
    better: Direction = "lower"
    gradient: bool = True
    """Whether gradients reach the prompt; else only tuners that score prompts can use it."""
    needs: tuple[str, ...] = ()
    """What must be there: "before" (real texts before the prompt), "judge", "description",
    "policy" (a tuner with one)."""
    shortest: int = 1
    """The shortest prompt for which it says anything."""
    context_only: bool = False
    """Whether gradients reach a token only as context of those behind it, so never the last."""

    def cost(self, proposals: Proposals) -> Tensor:
        """The number to be lowered, shape (prompts,)."""
        score = self.score(proposals)
        return score if self.better == "lower" else -score


PROXIES: dict[str, Proxy] = {}


def proxy(
    unit: str,
    weight: float,
    *,
    fails: str,
    source: str,
    better: Direction = "lower",
    gradient: bool = True,
    needs: tuple[str, ...] = (),
    shortest: int = 1,
    context_only: bool = False,
) -> Callable[[Score], Score]:
    """Register the function below under its own name; the arguments are `Proxy`'s fields."""

    def register(score: Score) -> Score:
        name = score.__name__
        PROXIES[name] = Proxy(
            name,
            score,
            unit,
            weight,
            fails,
            source,
            better,
            gradient,
            needs,
            shortest,
            context_only,
        )
        return score

    return register


def proxies() -> pd.DataFrame:
    """All proxies: ``proxy, what, unit, better, weight, gradient, needs, fails, source``."""
    return pd.DataFrame(
        [
            {
                "proxy": p.name,
                "what": (p.score.__doc__ or "").strip().split("\n")[0],
                "unit": p.unit,
                "better": p.better,
                "weight": p.weight,
                "gradient": p.gradient,
                "needs": ", ".join(p.needs),
                "fails": p.fails,
                "source": p.source,
            }
            for p in PROXIES.values()
        ]
    )


def check_proxies(weights: dict[str, float], setting: Setting, length: int) -> None:
    """Raise a `SoftlensError` for a proxy that is unknown or cannot be used here."""
    for name, weight in weights.items():
        if name not in PROXIES:
            raise SoftlensError(
                f"Unknown proxy {name!r}.{near(name, PROXIES)} Known: {', '.join(PROXIES)}."
            )
        if not 0 <= weight < float("inf"):
            raise SoftlensError(
                f"Got weight {weight} for the proxy {name!r}, wanted a number of at least 0. What "
                f"should be {PROXIES[name].better} is made so by a positive weight."
            )
        if length < PROXIES[name].shortest:
            raise SoftlensError(
                f"The proxy {name!r} says nothing about a prompt of {length} token: wanted a "
                f"length of at least {PROXIES[name].shortest}."
            )
        for need in PROXIES[name].needs:
            if need != "policy" and _missing(setting, need):
                raise SoftlensError(f"The proxy {name!r} needs {_NEEDS[need]}")


def _missing(setting: Setting, need: str) -> bool:
    value = getattr(setting, need)
    if need == "description" and value is not None:
        return not setting.lm.encode(value.strip())
    return value is None


_NEEDS = {
    "before": "real texts before the prompt: the template must put the text first and "
    "nothing behind the prompt, as '{text} {prompt}' does.",
    "judge": "a second LM: pass judge=sl.load_lm('organism-judge'), or another than the tuned one.",
    "description": "a description of the task, in words: pass description='whether the film was "
    "liked'.",
}

# fmt: off
_GPT = "our reading of arXiv 2504.02144; fluency term of PEZ (arXiv 2302.03668)"


@proxy("nats per token", .1, source=_GPT, context_only=True,
       fails="repetition feeds itself; fluent text need not be about the task")
def perplexity(p: Proposals) -> Tensor:
    """Mean surprisal of the prompt's tokens; gradients reach them as context only, as in PEZ."""
    return p.surprisal.mean(dim=-1)


@proxy("nats per token", .1, source="ours",
       fails="as perplexity; its larger gradient also pulls towards frequent tokens")
def perplexity_target(p: Proposals) -> Tensor:
    """The same value, with the gradient also through the predicted token's own row."""
    return p.surprisal_as_targets.mean(dim=-1)


@proxy("nats per token", .1, source="ours", needs=("before",), context_only=True,
       fails="fooled by label words and by words of the texts")
def relevance(p: Proposals) -> Tensor:
    """Surprisal after a real text minus surprisal after a full stop: does it belong there?"""
    return (p.surprisal_after_texts - p.surprisal).mean(dim=-1)


@proxy("nats per token", .1, source="ours", context_only=True,
       needs=("before",), fails="needs text that people wrote; blind inside the band")
def fluency_band(p: Proposals) -> Tensor:
    """How far the mean surprisal lies outside that of real spans of this length."""
    low, high = p.setting.band(p.ids.shape[1])
    nats = p.surprisal.mean(dim=-1)
    return (nats - high).relu() + (low - nats).relu()


@proxy("nats", .05, source="windowed perplexity filters (arXiv 2309.00614)",
       context_only=True, fails="punishes rare names")
def max_surprisal(p: Proposals) -> Tensor:
    """Surprisal of the prompt's most surprising token."""
    return p.surprisal.amax(dim=-1)


@proxy("excess count ^ 1.5 per token", 1., source="FLRT (arXiv 2407.17447)", gradient=False,
       shortest=2, fails="near-synonyms and casing evade it")
def repetition(p: Proposals) -> Tensor:
    """Sum over tokens of (times used - 1) ** 1.5, over the length."""
    rows = [np.unique(row, return_counts=True)[1] for row in p.ids.cpu().numpy()]
    excess = [((counts - 1) ** 1.5).sum() / counts.sum() for counts in rows]
    return torch.tensor(excess, dtype=torch.float32, device=p.vectors.device)


@proxy("1 - cosine", 1., source="prompt waywardness (arXiv 2112.08348)",
       fails="being near some token is free: it says nothing about what the prompt does")
def embedding_distance(p: Proposals) -> Tensor:
    """Mean distance of the continuous vectors from their nearest tokens; 0 for a hard prompt."""
    free = p.vectors if p.free is None else p.free
    units = torch.nn.functional.normalize(free, dim=-1)
    return 1 - (units * p.setting.lm.unit_embedding[p.ids]).sum(dim=-1).mean(dim=-1)


@proxy("nats per token", .1, source="KL control of RL fine-tuning (arXiv 1909.08593)",
       gradient=False, needs=("policy",), fails="tight: keeps task words out; loose: does nothing")
def prior_kl(p: Proposals) -> Tensor:
    """How much likelier the policy makes its own prompt than the LM does: a sample of their KL."""
    assert p.policy is not None
    return (p.policy + p.surprisal).mean(dim=-1)


@proxy("nats per token", .1, source="held-out perplexity (arXiv 2311.07064, 2407.17447)",
       gradient=False, needs=("judge",), fails="LMs trained alike share blind spots")
def judge_perplexity(p: Proposals) -> Tensor:
    """Mean surprisal of the prompt's text under another LM, with that LM's tokens."""
    judge = p.setting.judge
    assert judge is not None
    rows = [judge.encode(text, leading_space=True) for text in p.judged]
    return token_surprisal(judge, rows)[:, 0].nanmean(dim=-1).to(p.vectors.device)


@proxy("nats", .1, source="calibration (arXiv 2102.09690); evaluations here show it",
       fails="label words in a prompt raise it; swamps the task's own term at large weights")
def label_mass(p: Proposals) -> Tensor:
    """-log probability that the answer is any label word: does it ask the question at all?"""
    return -p.word_log_probs.logsumexp(dim=-1).mean(dim=-1)


@proxy("cosine", 1., source="ours", better="higher", needs=("description",),
       fails="topical is not instructive; blind to negation; label words stuff it")
def description(p: Proposals) -> Tensor:
    """Similarity of the mean embedding to that of a description of the task."""
    lm = p.setting.lm
    mean = (p.vectors - lm.embedding.mean(dim=0)).mean(dim=1)
    return torch.nn.functional.cosine_similarity(mean, p.setting.described[None], dim=-1)
# fmt: on
