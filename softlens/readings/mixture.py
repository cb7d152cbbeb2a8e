"""A soft prompt need not say one thing: its answers as a weighted product of readable prompts'.

With p_k(v | x) the answers under the readable prompt k, weights w are fitted so that

    log q(v | x) = sum over k of w_k log p_k(v | x) - log Z(x)

is as near as can be to the prompt's answers p: sum over x of KL(p, q) is convex in w. The empty
prompt is in the dictionary, so that weights above one push away from it: the mechanism of
classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598; for LMs Sanchez et al. 2023,
arXiv 2306.17806). That soft prompts may be such products has been proposed in public discussion
and, as far as we know, not been tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from torch import Tensor

from softlens.behaviour import closed, kl, kl_from, log_answers
from softlens.constraints import allowed_tokens
from softlens.errors import SoftlensError
from softlens.lm import LM, EncodedTexts, draw_prompts
from softlens.organism import grammar, speaks
from softlens.readings.base import Expert, Reading, lacking, product_of, stands_inside, tokens_of
from softlens.readings.registry import Asked, reader

FITTED, MOST_ANSWERS = 128, 256
"""Texts of the fit; and tokens it is about, those that the prompt gives the most probability."""
TOGETHER = 8
"""Experts whose answers over a whole vocabulary are held at once."""
SHORTLIST, DRAWN = 32, 32
"""Experts that may be fitted, the nearest to the prompt one by one; and texts drawn from the LM."""
LEAST_FALL = 0.001
"""... and the share of KL that it must close besides: with many texts anything is significant."""
RIDGE, RESAMPLES = 1e-4, 500
QUICK = 3
"""Newton steps that tell which expert to add; the one that is gets as many as it takes."""
ERRORS = 2.0
"""Standard errors by which KL must fall on held-out texts for one more expert to stay."""


@reader(
    source="ours to try: products of experts (Hinton 2002), arXiv 2207.12598, 2306.17806",
    fails="wordings of one question cannot be told apart; a dictionary without the right one lies",
)
def mixture(asked: Asked, *, dictionary: Sequence[str] | None = None, most: int = 4) -> Reading:
    """Which readable prompts, with which weights, answer together as the prompt does.

    Experts are added one at a time, the one that brings the fit nearest, as long as KL falls on
    held-out texts by more than two standard errors, and by a thousandth of that of the empty
    prompt; `most` at most. Options: `dictionary`, readable
    prompts (None: the task's, the questions of the language on the organism, else what the LM
    itself would say).

    `reading.experts` holds the texts, weights, and their 95% bootstrap intervals over texts.
    `frame`, one row a number of experts: ``experts, added, kl_fit, kl_vocab`` (held out),
    ``closed`` (share of KL closed, held out), ``error`` (standard error of the fall), ``kept``,
    ``weights``. `score` is the share of KL closed by the mixture; the first row is the best single
    expert at its best weight.

    Raises:
        SoftlensError: an empty dictionary, or `most` below one.
    """
    lm = asked.lm
    if most < 1:
        raise SoftlensError(f"Got most={most} experts, wanted at least 1.")
    rows = _dictionary(asked, dictionary)
    texts = asked.probes.search.subset(range(min(FITTED, len(asked.probes.search))))
    target, held = asked.target[: len(texts)], asked.target_choose
    alone = kl_from(lm, held, rows, asked.probes.choose).mean(dim=1)
    empty = float(alone[-1])
    # The empty prompt, the last row, stays in whatever its own KL is.
    near = sorted({*alone.argsort()[:SHORTLIST].tolist(), len(rows) - 1})
    short = [rows[i] for i in near]
    known = _Fit.of(target, *_among(lm, short, texts, target))
    unseen: list[Tensor] = []
    steps: list[dict[str, object]] = []
    chosen: list[int] = []
    weights, kept, before = np.zeros(0), 0, None
    for _ in range(min(most, len(near))):
        others = [k for k in range(len(short)) if k not in chosen]
        begun = np.append(weights, 0.0)
        found = {k: known.solve([*chosen, k], begun, QUICK) for k in others}
        best = min(others, key=lambda k: known.loss([*chosen, k], found[k]))
        chosen = [*chosen, best]
        weights = known.solve(chosen, found[best])
        # Over the whole vocabulary, which fills the memory: only of those that are chosen.
        unseen.append(log_answers(lm, [short[best]], asked.probes.choose)[0])
        mixed = product_of(torch.stack(unseen), torch.tensor(weights))
        now = kl(held, mixed).cpu().double().numpy()
        fall = np.full(len(now), np.nan) if before is None else before - now
        error = float(fall.std(ddof=1) / len(now) ** 0.5)
        fell = before is None or float(fall.mean()) > max(ERRORS * error, LEAST_FALL * empty)
        steps.append(
            {
                "experts": len(chosen),
                "added": lm.decode(short[best]),
                "kl_fit": known.loss(chosen, weights),
                "kl_vocab": float(now.mean()),
                "closed": closed(float(now.mean()), empty),
                "error": error,
                "weights": tuple(weights.tolist()),
            }
        )
        if not fell:
            break
        before, kept = now, len(chosen)
    frame = pd.DataFrame(steps)
    frame["kept"] = frame["experts"] == kept
    chosen, weights = chosen[:kept], np.array(frame["weights"][kept - 1])
    low, high = known.intervals(chosen, weights, asked.seed)
    experts = tuple(
        Expert(lm.decode(short[k]), short[k], float(w), float(a), float(b))
        for k, w, a, b in zip(chosen, weights, low, high, strict=True)
    )
    experts = tuple(sorted(experts, key=lambda e: -abs(e.weight)))
    heaviest = next((e for e in experts if e.token_ids), None)
    if heaviest is None:
        # Nothing readable does better than no prompt: the nearest single text stands for it.
        heaviest = Expert(*_nearest(lm, rows, alone), 0.0, 0.0, 0.0)
    return asked.reading(
        heaviest.token_ids,
        "mixture",
        score=float(frame["closed"][kept - 1]),
        score_unit="share of KL closed",
        experts=experts,
        frame=frame,
    )


def _nearest(lm: LM, rows: list[tuple[int, ...]], alone: Tensor) -> tuple[str, tuple[int, ...]]:
    best = next(rows[i] for i in alone.argsort().tolist() if rows[i])
    return lm.decode(best), best


def _dictionary(asked: Asked, own: Sequence[str] | None) -> list[tuple[int, ...]]:
    """Token rows of the experts, the empty prompt among them."""
    lm, task = asked.lm, asked.known_task
    readable = [text for text in task.readable if not lacking(lm, text)]
    texts = readable if own is None else list(own)
    drawn: list[tuple[int, ...]] = []
    if own is None and speaks(lm):
        texts += [wordings[0].text for wordings in grammar().questions.values()]
    elif own is None:
        source = torch.Generator().manual_seed(asked.seed)
        allowed = allowed_tokens(lm, task, ("labels", "control", "pieces"))
        found = draw_prompts(lm, 5, DRAWN, source, asked.probes.before, allowed)
        drawn = [tuple(row) for row in found.ids.tolist()]
    space = stands_inside(task)
    said = [tuple(tokens_of(lm, t, "text of the dictionary", space)) for t in texts]
    rows = dict.fromkeys(said + drawn)
    rows.pop((), None)
    if not rows:
        raise SoftlensError("The dictionary is empty. Give dictionary= some readable prompts.")
    longest = max(rows, key=len)
    if len(longest) > asked.room:
        raise SoftlensError(
            f"The dictionary has {lm.decode(longest)!r}, of {len(longest)} tokens; there is room "
            f"for {asked.room} beside the texts."
        )
    return [*rows, ()]


def _among(
    lm: LM, rows: list[tuple[int, ...]], texts: EncodedTexts, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens the fit is about (experts, texts, answers), and their ids."""
    mass = target.exp().mean(dim=0)
    answers = mass.topk(min(MOST_ANSWERS, len(mass))).indices.sort().values
    parts = [
        log_answers(lm, rows[i : i + TOGETHER], texts)[..., answers]
        for i in range(0, len(rows), TOGETHER)
    ]
    return torch.cat(parts), answers


@dataclass(frozen=True)
class _Fit:
    """Convex fit of a product of experts, by Newton's method in float64.

    Attributes:
        shares: the prompt's probabilities, shape (texts, answers).
        experts: log-probabilities, shape (experts, texts, answers).
    """

    shares: np.ndarray
    experts: np.ndarray

    @classmethod
    def of(cls, target: Tensor, experts: Tensor, answers: Tensor) -> "_Fit":
        """Both given that the answer is one of `answers`, as a product of experts allows.

        Normalised over fewer tokens, or not at all, the experts have the same product.
        """
        # Off the device first: MPS has no float64.
        among = target[:, answers].cpu().double().log_softmax(dim=-1)
        return cls(among.exp().numpy(), experts.cpu().double().numpy())

    def loss(self, chosen: list[int], weights: np.ndarray) -> float:
        """Mean KL from the prompt's answers, nats."""
        mixed = np.tensordot(weights, self.experts[chosen], axes=1)
        mixed -= logsumexp(mixed, axis=-1, keepdims=True)
        return float((self.shares * (np.log(self.shares + 1e-300) - mixed)).sum(axis=-1).mean())

    def solve(self, chosen: list[int], start: np.ndarray, steps: int = 30) -> np.ndarray:
        """The weights with the least KL."""
        weights, now = start, self.loss(chosen, start)
        for _ in range(steps):
            gradient, hessian = self._slopes(chosen, weights)
            step = np.linalg.solve(_mean(hessian), gradient.mean(axis=0))
            size = 1.0
            while size > 1e-4 and self.loss(chosen, weights - size * step) > now + 1e-12:
                size /= 2
            weights = weights - size * step
            fell, now = now - self.loss(chosen, weights), self.loss(chosen, weights)
            if fell < 1e-8:
                break
        return weights

    def intervals(
        self, chosen: list[int], weights: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Percentile bootstrap over texts, each resample one Newton step from the fit."""
        gradient, hessian = self._slopes(chosen, weights)
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(RESAMPLES):
            pick = rng.integers(len(gradient), size=len(gradient))
            step = np.linalg.solve(_mean(hessian[pick]), gradient[pick].mean(axis=0))
            found.append(weights - step)
        low, high = np.quantile(found, (0.025, 0.975), axis=0)
        return low, high

    def _slopes(self, chosen: list[int], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (texts, chosen) and Hessian (texts, chosen, chosen) of each text's KL."""
        part = self.experts[chosen]
        mixed = np.tensordot(weights, part, axes=1)
        shares = np.exp(mixed - logsumexp(mixed, axis=-1, keepdims=True))
        means = np.einsum("ktv,tv->tk", part, shares)
        gradient = means - np.einsum("ktv,tv->tk", part, self.shares)
        second = np.einsum("ktv,ltv,tv->tkl", part, part, shares, optimize=True)
        return gradient, second - means[:, :, None] * means[:, None, :]


def _mean(hessians: np.ndarray) -> np.ndarray:
    return hessians.mean(axis=0) + RIDGE * np.eye(hessians.shape[1])
